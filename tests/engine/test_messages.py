"""Objects that a user names by file, and messages that quote the user."""

import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.engine.messages import brief, in_one_sentence, one_line, refusing
from minigrad.training.user_code import from_file, split_name


@pytest.mark.parametrize("what, parts", [
    ("cells.py:Mine", ("cells.py", "Mine")), ("/a b/c.py:x.y", ("/a b/c.py", "x.y")), ("C:\\c.py:M", ("C:\\c.py", "M")),
    ("cells.py:", ("cells.py", "")), ("lstm", None), ("cells:Mine", None), ("cells.py", None)])
def test_a_name_in_a_file_is_split_in_one_way(what, parts):
    assert split_name(what) == parts


def test_a_file_may_import_its_neighbours_and_leaves_the_path_as_it_was(tmp_path):
    (tmp_path / "neighbour.py").write_text("seven = 7\n")
    (tmp_path / "own.py").write_text("from neighbour import seven\nclass Mine:\n    number = seven\n")
    before = list(sys.path)
    try:
        assert from_file(f"{tmp_path / 'own.py'}:Mine", type, "class").number == 7
    finally:
        sys.modules.pop("neighbour", None)
    assert sys.path == before


@pytest.mark.parametrize("content, sentence", [
    (b"\x00", "own.py cannot be run: "), (b"\xff", "own.py cannot be run: "), (b"raise SystemExit(3)", "SystemExit: 3"),
    (b"Mine = 3", "Mine in {file} is not a class; its type is int"), (b"class Mind: pass", "did you mean Mind?")])
def test_a_file_that_does_not_have_it_is_named(content, sentence, tmp_path):
    file = tmp_path / "own.py"
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        from_file(f"{file}:Mine", type, "class")
    assert sentence.format(file=file) in str(error.value)


def test_values_and_texts_from_outside_are_short_and_printable():
    assert one_line("a\n b\x1b[31m\u2028c") == "a b?[31m c"
    assert len(one_line("a " * 10_000)) == 500 and one_line("a" * 600).endswith("a…")
    nested = []
    for _ in range(10_000):
        nested = [nested]
    for value in (nested, "x" * 10_000, 10**4000, {"a": "b\n" * 1000}):
        assert len(brief(value)) < 200


@pytest.mark.parametrize("problem", [KeyError("a"), RecursionError("b"), MemoryError("c"), OverflowError("d")])
def test_whatever_is_raised_becomes_one_sentence(problem):
    with pytest.raises(ValueError, match=rf"the file does not fit: {type(problem).__name__}: "):
        with refusing("the file does not fit"):
            raise problem


def test_a_frame_of_minigrad_is_not_the_users_line():
    """in_one_sentence names the last line of user code, whichever room of the package raised the error."""
    for call in (lambda: nn.LSTM(2, 3)(np.ones((4, 2, 5))), lambda: mg.tensor([1.0]).backward()):
        with pytest.raises((ValueError, RuntimeError)) as caught:
            call()
        error = OSError("x").with_traceback(caught.value.__traceback__)
        assert f"(at {__file__}:" in in_one_sentence(error)
