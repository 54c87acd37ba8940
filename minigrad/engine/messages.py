"""User names and values in error messages: short, on one line, with the nearest known name."""

from __future__ import annotations

import contextlib
import difflib
import os
import reprlib
import traceback
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np

LONGEST = 500  # maximum length of a message that quotes the user, in characters

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80
brief = SHORT.repr  # repr of a user's value, limited in length and depth


def name_of(function: Any, attribute: str = "__name__") -> str:
    """The name of a function, or of the class of a callable object, whose own __getattr__ is not called."""
    name = getattr(function, attribute, None) if isinstance(function, FUNCTIONS) else None
    return name if isinstance(name, str) else type(function).__name__


FUNCTIONS = FunctionType, MethodType, BuiltinFunctionType, np.ufunc, type


def nearest(name: str, names: Iterable[str]) -> str:
    """`: did you mean lstm?` if a known name is similar, else an empty string."""
    near = difflib.get_close_matches(name[:100], list(names), n=1)
    return f": did you mean {near[0]}?" if near else ""


# -- sentences -----------------------------------------------------------------------------------------------------

PACKAGE = os.path.dirname(os.path.dirname(__file__))  # the folder of minigrad, whose frames are not the user's


def in_one_sentence(problem: BaseException) -> str:
    """The message of an error, and the last line of user code that led to it, unless the message names that line."""
    text = one_line(str(problem), 350)
    text = text if isinstance(problem, (ValueError, TypeError)) else f"{type(problem).__name__}: {text}"
    own = [frame for frame in traceback.extract_tb(problem.__traceback__)
           if not frame.filename.startswith((PACKAGE, "<", os.path.dirname(np.__file__)))]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    return text if not where or where in text else f"{text} (at {where})"


def one_line(text: str, longest: int = LONGEST) -> str:
    """User text for a message: printable, on one line, at most `longest` characters."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text[:10 * longest].split()))
    return line if len(line) <= longest else f"{line[:longest - 1]}…"


@contextlib.contextmanager
def refusing(what: str, error: type[ValueError] = ValueError) -> Iterator[None]:
    """Replace any exception raised inside by `error`, "what: the problem". An `error` passes unchanged."""
    try:
        yield
    except error:
        raise
    except Exception as problem:
        raise error(f"{what}: {in_one_sentence(problem)}") from problem
