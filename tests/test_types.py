"""`py.typed` is a promise: type checkers accept the pages' code, and know every method that an op installs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import PAGES, blocks

from minigrad.engine.tensor import Tensor

ROOT = Path(__file__).parents[1]
CHECKERS = {"mypy": ["mypy", "--follow-imports=silent", "--python-executable", sys.executable],
            "pyright": ["pyright", "--pythonpath", sys.executable]}
USES = """
import numpy as np
import minigrad as mg

t = mg.tensor([1.0, 2.0], requires_grad=True, name="t")
y = +t % 3 // 2 - -t ** 2 @ t / abs(t) + (1 - 2 * t) + divmod(t, 2)[0]
b = (t > 0) & ~(t == 1) | (t != 2)
print(t.T.shape, t[0].item(), y.sum(0, keepdims=True), y.clip(0, 1).round(), b.any(), b.argmax())
one, other = mg.split(t, 2)
print(mg.concatenate([one, other], 0), mg.astype(t, float))
print(float(y.mean().detach()), y.flatten().copy().max(), y.std(ddof=1))
t.grad = np.zeros(2)
t.grad += 1.0
print(t.grad.tolist(), t.grad is None, len(t), [x.item() for x in t], f"{y.sum():.3f}", hash(t))
(value, aux), d = mg.value_and_grad(lambda x: ((x * x).sum(), x), has_aux=True)(np.ones(2))
d, aux = mg.grad(lambda x: ((x * x).sum(), x), has_aux=True)(np.ones(2))


@mg.no_grad()
def measure(x: np.ndarray) -> float:
    return x.sum()


@mg.op(dx=lambda g: 2.0 * g)
def twice(x):
    return 2.0 * x


total: float = measure(np.ones(2)) + 1.0
print(mg.OPS["tanh"].rules["x"], twice(t), mg.OPS["tanh"].name.upper())


class Leaky(mg.nn.Recurrent):
    def __init__(self, size: int):
        super().__init__()
        self.rate = mg.tensor(np.zeros((size, 1)), requires_grad=True)

    def initial_state(self, batch):
        return np.zeros((self.rate.shape[0], batch))

    def cell(self, h, x):
        h_next = h + mg.sigmoid(self.rate) * (x - h)
        return h_next, h_next


class Model(mg.nn.Module):
    def __init__(self):
        self.lstm = mg.nn.LSTM(3, 5, rng=0)

    def __call__(self, x):
        return self.lstm(x)[0] * self.lstm.layers["l0"].W.grad


print(Leaky(3)(np.ones((2, 1, 3)))[0].shape, Model()(np.ones((2, 1, 3))))
"""


def run(checker, *arguments, folder):
    """The output of a type checker where it complains. Skips where it is not installed or cannot start."""
    if not shutil.which(checker):
        pytest.skip(f"{checker} is not installed: pip install '.[types]'")
    environment = {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    started = subprocess.run([checker, "--version"], capture_output=True, text=True, env=environment)
    if started.returncode:
        pytest.skip(f"{checker} does not start here: {started.stderr.strip()[-200:]}")
    done = subprocess.run([*CHECKERS[checker], *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checkers_accept_the_pages_code(tmp_path, checker):
    """All blocks of a page are one script, each answer of an exercise is one; blocks that import torch are left out."""
    for page in PAGES:
        code = [block for _, language, block, _ in blocks((ROOT / page).read_text(encoding="utf-8"))
                if language == "python" and "torch" not in block]
        for number, script in enumerate(code if page == "docs/exercises.md" else ["\n".join(code)]):
            (tmp_path / f"page_{Path(page).stem}_{number}.py").write_text(script, encoding="utf-8")
    scripts = sorted(script.name for script in tmp_path.iterdir())
    assert not (complaints := run(checker, *scripts, folder=tmp_path)), complaints


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checkers_accept_ordinary_use(tmp_path, checker):
    (tmp_path / "uses.py").write_text(USES, encoding="utf-8")
    assert not (complaints := run(checker, "uses.py", folder=tmp_path)), complaints


def test_mypy_accepts_the_engine_and_the_public_surface():
    """The files that pyproject.toml lists for mypy."""
    assert not (complaints := run("mypy", folder=ROOT)), complaints


def test_every_method_that_an_op_installs_is_there_for_type_checkers():
    known = set()
    for file in ("tensor.py", "typing_stubs.py"):
        tree = ast.parse((ROOT / "minigrad" / "engine" / file).read_text(encoding="utf-8"))
        body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
        known |= {node.name for node in body if isinstance(node, ast.FunctionDef)}
    in_place = {name for name in vars(Tensor) if re.fullmatch(r"__i\w+__", name)} - {"__init__", "__index__"}
    assert {name for name, value in vars(Tensor).items() if callable(value)} - known - in_place == {"__hash__"}
