"""What a user calls by name: the nearest known name, an object in a Python file of theirs, and their exceptions and
values in one sentence.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import reprlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

LONGEST = 500  # characters of a message about something from outside

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80
brief = SHORT.repr  # the repr of a value from outside, shortened in length and depth


def name_of(function: Any, attribute: str = "__name__") -> str:
    """The name of a function, or of the class of an object that can be called, whose own __getattr__ is not asked."""
    name = getattr(function, attribute, None) if isinstance(function, FUNCTIONS) else None
    return name if isinstance(name, str) else type(function).__name__


FUNCTIONS = FunctionType, MethodType, BuiltinFunctionType, np.ufunc, type


def nearest(name: str, names: Iterable[str]) -> str:
    """`: did you mean lstm?`, if there is one near."""
    near = difflib.get_close_matches(name[:100], list(names), n=1)
    return f": did you mean {near[0]}?" if near else ""


# -- an object in a Python file ------------------------------------------------------------------------------------


def split_name(what: str) -> tuple[str, str] | None:
    """("FILE.py", "name") of "FILE.py:name"; None if `what` does not name a Python file."""
    file, colon, name = what.rpartition(".py:")
    return (f"{file}.py", name) if colon else None


def read_python(file: str) -> bytes:
    """The source of a Python file. Raises ValueError if it is not a file or cannot be read."""
    if not Path(file).is_file():
        near = nearest(file, map(str, Path(file).parent.glob("*.py")))
        raise ValueError(f"{file} is not a file{near}")
    try:
        return Path(file).read_bytes()
    except OSError as problem:
        raise ValueError(f"{file} cannot be read: {problem.strerror or problem}") from None


def fingerprint(file: str) -> str:
    """The SHA-256 of a Python file."""
    return hashlib.sha256(read_python(file)).hexdigest()


def from_file(what: str, kind: type | tuple[type, ...], called: str) -> Any:
    """Run FILE.py and return its object `name` of type `kind`; `called` is the word for it in errors.

    The source itself is run, not a .pyc file beside it. Raises ValueError in one sentence if the file or the name is
    missing, the file cannot be run, or the object is of another type.
    """
    file, name = split_name(what)
    module = ModuleType(f"minigrad_user_{Path(file).stem}")
    module.__file__ = file
    if getattr(sys.modules.get(module.__name__), "running", None) == file:
        raise ValueError(f"{file} loads {name} from itself while it is run: put what trains under "
                         "`if __name__ == \"__main__\":`")
    source = read_python(file)
    sys.modules[module.__name__], module.running = module, file
    sys.path.insert(0, folder := str(Path(file).resolve().parent))  # it may import its neighbours, as a script may
    try:
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as problem:
        raise ValueError(f"{file} cannot be run: {in_one_sentence(problem)}") from problem
    finally:
        del module.running
        with contextlib.suppress(ValueError):  # the file may have changed sys.path
            sys.path.remove(folder)
    try:
        thing = attrgetter(name)(module)
    except AttributeError:
        fitting = [key for key, value in vars(module).items() if isinstance(value, kind)]
        raise ValueError(f"{file} has no {called} {name!r}{nearest(name, fitting)}") from None
    if not isinstance(thing, kind):
        raise ValueError(f"{name} in {file} is not a {called}, but of type {type(thing).__name__}")
    return thing


# -- sentences -----------------------------------------------------------------------------------------------------


def in_one_sentence(problem: BaseException) -> str:
    """What was raised, and the last line of the user's file on the way to it, if it does not say so itself."""
    said = one_line(str(problem), 350)
    said = said if isinstance(problem, (ValueError, TypeError)) else f"{type(problem).__name__}: {said}"
    own = [frame for frame in traceback.extract_tb(problem.__traceback__)
           if not frame.filename.startswith((os.path.dirname(__file__), "<", os.path.dirname(np.__file__)))]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    return said if not where or where in said else f"{said} (at {where})"


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text from outside as part of a message: printable, on one line, and not longer than this."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text[:10 * longest].split()))
    return line if len(line) <= longest else f"{line[:longest - 1]}…"


@contextlib.contextmanager
def refusing(what: str, error: type[ValueError] = ValueError) -> Iterator[None]:
    """Raise `error`, "what: the problem", for whatever is raised inside; one that is an `error` already passes."""
    try:
        yield
    except error:
        raise
    except Exception as problem:
        raise error(f"{what}: {in_one_sentence(problem)}") from problem
