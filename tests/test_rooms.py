"""The architecture, held by tests: imports go to earlier rooms, few packages are used, the core stays small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import minigrad

PACKAGE = Path(minigrad.__file__).parent

# A file imports from earlier rooms and, without a cycle, from its own. A new file needs no row, a new room does.
ROOMS = ["interrupt.py", "notebook.py", "engine", "files", "functional.py", "check", "program", "printers",
         "derived.py", "timeloop", "document.py", "auditor", "nn", "optim.py", "tasks", "data", "training",
         "microscope", "connections", "handwritten", "exercises", "cli", "__init__.py", "__main__.py"]
OUTSIDE = {"filelock", "numpy", "threadpoolctl", "tqdm"}
# third-party packages that a file may use if they are installed
OPTIONAL = {"files/weights.py": {"safetensors"}, "training/sweep.py": {"joblib"},
            "microscope/figures/plot.py": {"matplotlib"}, "connections/tensorboard.py": {"tensorboardX"},
            "connections/onnx_file.py": {"onnx"}, "cli/plot.py": {"matplotlib"}, "cli/derive.py": {"pygments"},
            "cli/bench.py": {"torch"}}
# The reading list. Beside it: composites and einsum, ops without a rule, NumPy's queries, hooks, Python's methods.
CORE = [*(f"engine/{name}.py" for name in ("tensor", "op", "backward")),
        *(f"engine/ops/{name}.py" for name in ("elementwise", "shape", "indexing", "linalg", "reduce"))]
CORE_LINES = 1500  # all lines of the core, docstrings included; the limit may only fall, to 1 100

FILES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))


def imports(file: str) -> list[tuple[int, str]]:
    """(line, full name of the module) for every import of a file, those inside functions too."""
    package = ["minigrad", *Path(file).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from minigrad import tensor` imports the file tensor.py, and the facade only if it takes something else
            found += [(node.lineno, f"{module}.{alias.name}" if file_of(f"{module}.{alias.name}") else module)
                      for alias in node.names]
    return found


def file_of(module: str) -> str | None:
    """minigrad.nn.init → nn/init.py, minigrad.nn → nn/__init__.py; None for a module that is not ours."""
    if module.partition(".")[0] != "minigrad":
        return None
    path = "/".join(module.split(".")[1:])
    return next((p for p in ([f"{path}.py", f"{path}/__init__.py"] if path else ["__init__.py"])
                 if (PACKAGE / p).exists()), None)


def room(file: str) -> int:
    top = file.partition("/")[0]
    assert top in ROOMS, f"{file} is in no room: give {top} a place in ROOMS, and tell design.md"
    return ROOMS.index(top)


@pytest.mark.parametrize("file", FILES)
def test_imports_go_to_earlier_rooms(file):
    for line, module in imports(file):
        top = module.partition(".")[0]
        if top == "minigrad":
            other = file_of(module)
            assert other, f"{file}:{line} imports {module}, which does not exist"
            assert room(other) <= room(file), \
                f"{file} (room {room(file)}) line {line} imports {other} (room {room(other)})"
        else:
            allowed = OUTSIDE | OPTIONAL.get(file, set()) | sys.stdlib_module_names
            assert top in allowed, f"{file}:{line} imports {module}: a runtime dependency needs a strong reason"


def test_no_file_imports_itself_by_way_of_others():
    graph = {file: {file_of(module) for _, module in imports(file)} - {None} for file in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_reading_of_imports_itself(tmp_path, monkeypatch):
    """The parser sees plain, relative, function-local and aliased imports; else the test above proves nothing."""
    (tmp_path / "ops").mkdir()
    for name in ("tensor.py", "ops/__init__.py", "ops/shape.py", "__init__.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "ops/probe.py").write_text(
        "import numpy as np\nfrom .shape import a\nfrom ..tensor import b\nfrom minigrad import tensor, op\n"
        "def f():\n    from minigrad.ops import c\n    import scipy.linalg\nfrom . import shape\n")
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    assert sorted(module for _, module in imports("ops/probe.py")) == [
        "minigrad", "minigrad.ops", "minigrad.ops.shape", "minigrad.ops.shape", "minigrad.tensor", "minigrad.tensor",
        "numpy", "scipy.linalg"]
    assert file_of("minigrad") == "__init__.py" and file_of("minigrad.ops") == "ops/__init__.py"


def test_the_core_stays_small_enough_to_read():
    lines = {file: len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in CORE}
    assert sum(lines.values()) <= CORE_LINES, lines


def test_the_clone_is_what_is_tested():
    """Also when another copy is installed: `pythonpath` in pyproject.toml comes before site-packages."""
    assert PACKAGE == Path(__file__).parents[1] / "minigrad"


def test_rows_have_names(request):
    """No collected test is called after a lambda or an address."""
    unnamed = [item.nodeid for item in request.session.items if re.search(r"<lambda>|<\w+ object| at 0x", item.nodeid)]
    assert not unnamed


def test_the_picture_of_the_rooms_is_true():
    import architecture
    shown = architecture.PICTURE.read_text(encoding="utf-8")
    assert shown == architecture.picture(), "draw it again: PYTHONPATH=. python tests/architecture.py"


def test_minigrad_is_imported_without_matplotlib():
    """A fresh interpreter in which matplotlib cannot be imported."""
    code = ("import sys; sys.modules['matplotlib'] = None\n"
            "import minigrad as mg\n"
            "print(float(mg.grad(lambda x: x * x)(3.0)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr


def test_every_public_name_exists_and_has_a_docstring():
    assert len(set(minigrad.__all__)) == len(minigrad.__all__)
    for name in minigrad.__all__:
        value = getattr(minigrad, name)
        assert isinstance(value, dict) or value.__doc__, f"mg.{name} has no docstring"
