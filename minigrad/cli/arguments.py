"""Numbers as arguments, each refused in a sentence when it is none."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def number(kind: type, fits: Callable[[Any], bool], called: str) -> Callable[[str], Any]:
    """A type for argparse."""
    def read(value: str) -> Any:
        try:
            if fits(made := kind(value)):
                return made
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{value!r} is no {called}")
    return read


positive = number(int, lambda n: n > 0, "whole number above 0")
natural = number(int, lambda n: n >= 0, "whole number from 0 on")
positive_float = number(float, lambda x: 0 < x < math.inf, "number above 0")
natural_float = number(float, lambda x: 0 <= x < math.inf, "number from 0 on")
