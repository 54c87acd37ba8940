"""The pages are true: their Python runs and prints what they show; their links, paths and names exist.

One namespace and one folder a page, blocks in order. What a ```python block prints must equal the ```text or ```output
block that follows it; where none follows, the comments `# → …` of its print lines, if there are any. A block that
quotes the source opens with ```python no-run; a file of minigrad must contain it, word for word. A ```bash block runs
too, to status 0; a ```sh block does not, nor one that imports torch where that is not installed.
"""

import contextlib
import importlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minigrad.engine.op import OPS
from minigrad.engine.operators import NUMPY

ROOT = Path(__file__).parents[1]
PAGES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
         if path.exists()]
BLOCK = re.compile(r"^```(python|bash)[ ]*\n(.*?)^```[ ]*\n(?:[ ]*\n)*(?:^```(?:text|output)\n(.*?)^```)?", re.M | re.S)
QUOTE = re.compile(r"^```python no-run[ ]*\n(.*?)^```", re.M | re.S)
ARROW = re.compile(r"^\s*print\(.*#\s*→\s*(.*?)\s*$", re.M)
LINK = re.compile(r"""(?:\]\(|src=["'])([^)\s"'#]+)""")
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
NAME = re.compile(r"(?<![\w./])(?:minigrad|mg|nn|optim)(?:\.[A-Za-z]\w*)+")


def blocks(text):
    """[(line, language, code, expected output or None)]"""
    out = []
    for match in BLOCK.finditer(text):
        language, code, printed = match.groups()
        if printed is None and ARROW.search(code):
            printed = "\n".join(ARROW.findall(code))
        out.append((text.count("\n", 0, match.start()) + 2, language, code, printed))
    return out


@pytest.fixture
def own_ops():
    """Ops that a page declares go again with the page."""
    ops, functions = dict(OPS), dict(NUMPY)
    yield
    for registry, before in ((OPS, ops), (NUMPY, functions)):
        registry.clear()
        registry.update(before)


def run_in_bash(code, folder):
    """With the `minigrad` of this very tree."""
    command = folder / "bin" / "minigrad"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m minigrad "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-ec", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_page_runs_and_prints_what_it_says(page, own_ops, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace = {"__name__": "page"}
    for line, language, code, expected in blocks((ROOT / page).read_text(encoding="utf-8")):
        if "import torch" in code and importlib.util.find_spec("torch") is None:
            continue
        if language == "bash":
            run_in_bash(code, tmp_path)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (line - 1) + code, ROOT / page, "exec"), namespace)
        if expected is not None:
            assert [s.rstrip() for s in printed.getvalue().strip().splitlines()] == \
                   [s.rstrip() for s in expected.strip().splitlines()], f"{page}, line {line}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in LINK.findall(text)
               if not re.match(r"[a-z]+:", link) and not ((ROOT / page).parent / link).exists()]
    assert not missing, f"{page} links to files that do not exist: {missing}"


def exists(name):
    """Whether a dotted name such as minigrad.tasks.Adding, mg.grad or nn.LSTM can be imported or looked up."""
    found = importlib.import_module("minigrad")
    for part in name.removeprefix("minigrad.").removeprefix("mg.").split("."):
        if not hasattr(found, part):
            try:
                importlib.import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        found = getattr(found, part)
    return True


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_names_in_prose_exist(page):
    """Paths below the clone or the package, in `code` and in the texts of links; names of minigrad in `code`."""
    text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    code = re.findall(r"`([^`\n]+)`", text)
    places = (ROOT, ROOT / "minigrad")
    missing = [path for words in code + re.findall(r"\[([^\]]+)\]\(", text)
               for path in re.findall(r"(?<![\w/.])\w+/[\w./*-]*", words)
               if any((place / path.partition("/")[0]).is_dir() for place in places)
               and not any(list(place.glob(path)) for place in places)]
    missing += [name for words in code for name in NAME.findall(words) if not exists(name)]
    assert not missing, f"{page} mentions paths or names that do not exist: {missing}"


@pytest.mark.parametrize("page", PAGES)
def test_quotes_are_in_the_source(page):
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "minigrad").rglob("*.py"))
    for quote in QUOTE.findall((ROOT / page).read_text(encoding="utf-8")):
        assert quote in source, f"{page} quotes lines that the source does not contain:\n{quote}"


def test_blocks_are_found_with_what_they_print():
    page = ("```python\nprint(1)\n```\n\n```text\n1\n```\n```python\nprint(2)  # → 2\nx = 3  # → not printed\n```\n"
            "words\n```text\nof no block\n```\n```sh\nrm\n```\n```bash\nls\n```\n")
    assert blocks(page) == [(2, "python", "print(1)\n", "1\n"),
                            (9, "python", "print(2)  # → 2\nx = 3  # → not printed\n", "2"), (20, "bash", "ls\n", None)]
