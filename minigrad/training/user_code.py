"""Load an object from a user's Python file, named as `FILE.py:name`."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from minigrad.engine.messages import in_one_sentence, nearest


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
        raise ValueError(f"{file} loads {name} from itself while it is run: put the training under "
                         "`if __name__ == \"__main__\":`")
    source = read_python(file)
    sys.modules[module.__name__], module.running = module, file
    sys.path.insert(0, folder := str(Path(file).resolve().parent))  # like a script, it may import modules beside it
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
        raise ValueError(f"{name} in {file} is not a {called}; its type is {type(thing).__name__}")
    return thing
