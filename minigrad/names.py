"""What a user calls by name: the nearest of the names there are, things in a file of theirs, and their exceptions in
one sentence.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np


def nearest(name: str, names: Iterable[str]) -> str:
    """`: did you mean lstm?`, if there is one near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f": did you mean {near[0]}?" if near else ""


def from_file(what: str, kind: type | tuple[type, ...], called: str) -> Any:
    """The thing FILE.py:name, of this kind and what one calls it; the file is run for it.

    Raises ValueError with a sentence when the file or the name is missing, the file cannot be run, or the thing is of
    another kind.
    """
    file, _, name = what.rpartition(":")
    if not Path(file).is_file():
        raise ValueError(f"{file} is no file{nearest(file, map(str, Path(file).parent.glob('*.py')))}")
    spec = importlib.util.spec_from_file_location(f"minigrad_user_{Path(file).stem}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(file).resolve().parent))  # it may import its neighbours, as a script may
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        raise ValueError(f"{file} cannot be run: {in_one_sentence(problem)}") from problem
    finally:
        sys.path.pop(0)
    try:
        thing = attrgetter(name)(module)
    except AttributeError:
        fitting = [key for key, value in vars(module).items() if isinstance(value, kind)]
        raise ValueError(f"{file} has no {called} {name!r}{nearest(name, fitting)}") from None
    if not isinstance(thing, kind):
        raise ValueError(f"{name} in {file} is no {called}, but of type {type(thing).__name__}")
    return thing


def in_one_sentence(problem: BaseException) -> str:
    """What was raised, and the last line of the user's file on the way to it, if it does not say so itself."""
    said = " ".join(str(problem).split())
    said = said if isinstance(problem, (ValueError, TypeError)) else f"{type(problem).__name__}: {said}"
    own = [frame for frame in traceback.extract_tb(problem.__traceback__)
           if not frame.filename.startswith((os.path.dirname(__file__), "<", os.path.dirname(np.__file__)))]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    return said if not where or where in said else f"{said} (at {where})"
