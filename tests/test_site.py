"""The site's pages, before Zensical: links lead to pages of the site, and the reference has every public name."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import minigrad as mg

ROOT = Path(__file__).parents[1]


@pytest.fixture
def builder(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAGES", tmp_path)
    return module


def test_links_are_rewritten_for_their_place(builder):
    pages = {ROOT / "README.md": "index.md", ROOT / "docs" / "engine.md": "engine.md"}
    wanted = []

    def rewrite(text, page):
        return builder.linked(text, page, pages[page], pages, wanted)
    assert rewrite("[a](docs/engine.md#x)", ROOT / "README.md") == "[a](engine.md#x)"
    assert rewrite("![a](images/engine.svg) [r](../README.md)", ROOT / "docs" / "engine.md") == \
        "![a](images/engine.svg) [r](index.md)"
    assert rewrite("[a](../minigrad/nn) [b](../minigrad/optim.py) [c](../.ci/run)", ROOT / "docs" / "engine.md") == \
        "[a](source/minigrad/nn/index.md) [b](source/minigrad/optim.py.md) [c](source/ci/run.md)"
    assert wanted == [ROOT / "minigrad" / "nn", ROOT / "minigrad" / "optim.py", ROOT / ".ci" / "run"]
    assert rewrite("```python no-run\nx\n```", ROOT / "README.md") == "```python\nx\n```"
    for same in ("[a](https://a.b/c.md)", "[a](#x)", "```\n[a](docs/engine.md)\n```"):
        assert rewrite(same, ROOT / "README.md") == same


def test_the_reference_has_every_public_name(builder, tmp_path):
    builder.write_reference()
    text = "\n".join(path.read_text(encoding="utf-8") for path in (tmp_path / "reference").glob("*.md"))
    modules = {"bptt", "connections", "data", "nn", "ops", "optim", "plot", "training"}
    missing = [name for name in mg.__all__ if name not in modules and f"# mg.{name}\n" not in text]
    assert set(missing) <= {"OPS", "GradcheckError"}, missing
    assert "# mg.nn.LSTM\n" in text and "# mg.bptt.credit\n" in text and "# mg.plot.ledger\n" in text
    assert " at 0x" not in text


def test_broken_links_are_found(builder, tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="x"></h1><a href="b.html#y"></a><a href="#x"></a><a href="c.html"></a>'
                                     '<img src="d.png"><a href="https://e.f"></a>')
    (tmp_path / "b.html").write_text("<h1 id='z'></h1>")
    assert list(builder.broken_links(tmp_path)) == [
        "a.html links to b.html#y, and that page has no such heading", "a.html links to c.html, which does not exist",
        "a.html links to d.png, which does not exist"]


@pytest.mark.slow
def test_the_site_is_built():
    pytest.importorskip("zensical")
    done = subprocess.run([sys.executable, ROOT / "docs" / "build_site.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
