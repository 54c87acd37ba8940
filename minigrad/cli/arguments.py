"""Parse arguments: check numbers, and suggest the nearest option for a mistyped one."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from minigrad.engine.messages import nearest


class Parser(argparse.ArgumentParser):
    """Reports an unknown option or command under the usage of its own command, with the nearest known one.

    known_elsewhere   words that are not commands → what to write in their place
    """

    known_elsewhere: dict[str, str] = {}  # noqa: RUF012  (argparse makes the parsers of the commands)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        args = sys.argv[1:] if args is None else args
        self.refuse_unknown(args)
        namespace, rest = super().parse_known_args(args, namespace)
        if rest:
            near = nearest(rest[0], self._option_string_actions) if rest[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{near}")
        return namespace, rest

    def refuse_unknown(self, args: Sequence[str]) -> None:
        known = list(self._option_string_actions)
        for argument in args:
            name, _, _ = argument.partition("=")
            if argument == "--" or (self._subparsers is not None and not argument.startswith("-")):
                return  # the rest is positional, or is parsed by a command's parser
            if name.startswith("--") and " " not in name and not any(one.startswith(name) for one in known):
                self.error(f"unrecognized argument {name}{nearest(name, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            meant = self.known_elsewhere.get(str(value))
            near = f": did you mean {meant}?" if meant else nearest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{near} (choose from "
                                                 f"{', '.join(map(str, action.choices))})")


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], *, help: str, description: str,
                examples: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Add a command that calls `run`; its help ends with these examples, one per line."""
    job = commands.add_parser(name, help=help, description=description,
                              epilog="\n  minigrad ".join(["examples:", *examples]) if examples else None,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    job.set_defaults(run=run)
    return job


def number(kind: type, fits: Callable[[Any], bool], called: str) -> Callable[[str], Any]:
    """An argparse type: numbers of this kind that pass `fits`; `called` is the word for errors."""
    def read(value: str) -> Any:
        with contextlib.suppress(ValueError):
            if fits(made := kind(value)):
                return made
        raise argparse.ArgumentTypeError(f"{value!r} is not a {called}")
    return read


positive = number(int, lambda n: n > 0, "whole number above 0")
natural = number(int, lambda n: n >= 0, "whole number from 0 on")
positive_float = number(float, lambda x: 0 < x < math.inf, "number above 0")
natural_float = number(float, lambda x: 0 <= x < math.inf, "number from 0 on")


def encode(option: str, text: str, characters: str) -> list[int]:
    """The position of each character of an option's text in `characters`. Raises ValueError for an unknown one."""
    unknown = sorted(set(text) - set(characters))
    if unknown:
        raise ValueError(f"{option} has {''.join(unknown)!r}, which is not in the text that the model was trained on")
    return [characters.index(c) for c in text]


def add_trust(job: argparse.ArgumentParser) -> None:
    """Add the option that lets somebody else's run execute its Python file."""
    job.add_argument("--trust", action="store_true", help="run the Python file that the run's config.json names for "
                     "its cell, although you have not trained with it on this machine")
