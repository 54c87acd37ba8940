"""Check the arguments of a constructor: errors name the class that the user called and the arguments that it takes, not
a class inside it or the base class that defines `__init__`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any


class UnknownOption(TypeError, ValueError):
    """Keyword arguments, `names`, that a class does not take. A TypeError, as for any call, and a ValueError, since
    options also come from files and command lines."""

    def __init__(self, whose: str, names: Iterable[str], known: list[str]):
        self.names = list(names)
        near = difflib.get_close_matches(self.names[0], known, n=1, cutoff=0.7)
        super().__init__(f"{whose} has no option {', '.join(self.names)}{f' (did you mean {near[0]}?)' if near else ''}"
                         f": it takes {', '.join(known) or 'none'}")


class CheckedCall:
    """Base class that raises TypeError unless a call fits the signature of `__init__`; UnknownOption for a name. The
    names that a class takes are its `option_names()`."""

    __slots__ = ()

    def __new__(cls, *given: Any, **named: Any) -> Any:
        if given or named:  # copy and pickle call __new__ without arguments
            try:
                signature_of(cls.__init__).bind(None, *given, **named)
            except TypeError:
                raise complaint(cls, given, named, cls.option_names()) from None
        return object.__new__(cls)

    @classmethod
    def option_names(cls) -> list[str]:
        """The names of all arguments."""
        return options_of(cls)


def complaint(cls: Any, given: tuple, named: Mapping[str, Any], known: list[str]) -> TypeError:
    """The error for a call whose arguments do not fit."""
    parameters = list(signature_of(cls.__init__).parameters.values())[1:]
    kinds = {p.kind for p in parameters}
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    name, names = cls.__name__, {p.name for p in parameters}
    unknown = [key for key in named if key not in names]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        return UnknownOption(name, unknown, known)
    if len(given) > len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        by_name = [key for key in known if key not in positional]
        some = f"{', '.join(positional)} by position, not {len(given)} arguments" if positional else \
            "no arguments by position" if by_name else "no arguments"
        return TypeError(f"{name} takes {some}" + (f": give {', '.join(by_name)} by name" if by_name else ""))
    twice = [key for key in positional[:len(given)] if key in named]
    if twice:
        return TypeError(f"{name} is given {twice[0]} by position and by name: give it once")
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in (*named, *positional[:len(given)])
               and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return TypeError(f"{name} needs {' and '.join(missing)}: it takes {', '.join(known)}")


def options_of(cls: Any) -> list[str]:
    """The names of the arguments of a class: its own and, if it has **options, those of its base class. **unknown is
    not passed on."""
    names: dict[str, None] = {}
    for kind in cls.__mro__[:-1]:
        if "__init__" in vars(kind):
            own = list(signature_of(kind.__init__).parameters.values())[1:]
            names |= dict.fromkeys(p.name for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
            if not any(p.kind is p.VAR_KEYWORD and p.name != "unknown" for p in own):
                break
    return list(names)


@lru_cache(maxsize=256)
def signature_of(init: Callable) -> inspect.Signature:
    """The signature of an `__init__`; for object's, one that takes self alone."""
    return inspect.signature((lambda self: None) if init is object.__init__ else init)
