"""Settings for all test files. This file's folder is on the import path, so that every test can import `cases`."""

import ast
import functools
import gc
import os
from pathlib import Path

import numpy  # noqa: F401  (thread limits reach only the libraries that are already loaded)
import pytest
from threadpoolctl import threadpool_limits

# Two BLAS threads wait for each other when other processes keep the cores busy: see docs/performance.md.
threadpool_limits(1, user_api="blas")

# The quick subset, `pytest -m quick`: it sees a wrong rule, derivation, scan and checkpoint.
QUICK = ("engine/", "check/test_gradcheck.py", "program/test_simplify.py", "program/test_purity.py", "nn/",
         "timeloop/test_cache.py", "training/test_checkpoint.py", "test_derived.py", "test_document.py",
         "test_functional.py", "test_notebook.py", "test_optim.py", "test_rooms.py")


def pytest_configure(config):
    """Allow scan's notices. Named in pyproject.toml, the class would be imported before pytest sets `pythonpath`."""
    config.addinivalue_line("filterwarnings", "ignore::minigrad.timeloop.scan.ScanNotice")


def pytest_collection_modifyitems(items):
    """Mark the tests of the quick subset."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(QUICK):
            item.add_marker("quick")


def pytest_make_parametrize_id(val):
    """Name a row after the text of its lambda and the values of its containers, where pytest would number them."""
    if isinstance(val, (dict, list, tuple)) and len(text := str(val)) <= 60 and " at 0x" not in text:
        return text
    return text_of(val) if getattr(val, "__name__", "") == "<lambda>" else None


def text_of(function):
    """The body of a lambda. Of several on one line, the one whose columns Python recorded (from 3.11), or the first."""
    code = function.__code__
    bodies = [node.body for node in lambdas(code.co_filename) if node.lineno == code.co_firstlineno]
    recorded = set(code.co_positions()) if hasattr(code, "co_positions") else ()
    found = [body for body in bodies
             if (body.lineno, body.end_lineno, body.col_offset, body.end_col_offset) in recorded]
    return ast.unparse((found or bodies)[0])


@functools.cache
def lambdas(file):
    return [node for node in ast.walk(ast.parse(Path(file).read_bytes())) if isinstance(node, ast.Lambda)]


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """Files that the tests train with are not remembered as the user's."""
    os.environ["MINIGRAD_STATE"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Programs in C are compiled into a folder of the tests, which all their processes share."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp().parent / "cache")


def pytest_collection_finish():
    """Collected tests live to the end: exempt them, thousands of objects, from garbage collection."""
    gc.freeze()
