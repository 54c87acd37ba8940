"""`minigrad derive`: print the backward pass of a cell or a function as NumPy source, as equations, or as C."""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.cli.arguments import add_command
from minigrad.derived import derive
from minigrad.document import GATES, lstm_cell_forward
from minigrad.engine.context import no_grad
from minigrad.engine.messages import in_one_sentence, nearest, refusing
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.engine.tensor import Tensor
from minigrad.nn.layout import broadcast_state
from minigrad.nn.signature import options_of
from minigrad.training.sequence_model import SequenceModel, recurrent_layers
from minigrad.training.user_code import from_file, split_name

CELLS = ("lstm", "gru", "rnn", "document")
FORMS = {"latex": "latex", "c": "c_source", "planned": "planned_source"}  # option → attribute of Derived
LANGUAGES = {"latex": "tex", "c": "c"}
SIZES = (3, 5, 4)  # input, hidden, batch: all different, to tell shapes apart


def add_derive(commands: Any) -> None:
    job = add_command(
        commands, "derive", run_derive, help="print the backward pass of a cell, or of any function, as NumPy source",
        description="Derive the backward pass of a function and print it, with the forward, as a module of NumPy.",
        examples=["derive lstm", "derive lstm --latex", "derive gru --sizes 65,100,16 --planned",
                  "derive cells.py:MyCell",
                  'derive model.py:cell --shapes "h=5,4 x=3,4"',
                  "derive model.py:loss --shapes \"x=3,4 p={'W': (5, 3), 'b': (5, 1)} scale=()\""])
    job.add_argument("what", metavar="CELL", help=f"{', '.join(CELLS)}, FILE.py:Class, a subclass of nn.Recurrent, or "
                     "FILE.py:function; the file is run")
    job.add_argument("--shapes", metavar="TEXT", help="shapes of the function's arguments: name=3,4, name=() for a "
                     "number, or nested shapes in Python's brackets")
    job.add_argument("--sizes", type=sizes, metavar="D,H,B", help="input, hidden and batch size of a cell: "
                     f"{', '.join(CELLS)} or a class ({','.join(map(str, SIZES))})")
    job.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="(%(default)s)")
    job.add_argument("--planned", action="store_true",
                     help="print what scan runs for a cell (state, x) → (state, y): the loops over time, with buffers")
    job.add_argument("--latex", action="store_true", help="print the same lines as equations in LaTeX")
    job.add_argument("--c", action="store_true", help="print the loops over time of a cell as C, as scan compiles them")


def run_derive(arguments: argparse.Namespace) -> int:
    """Print a derived source."""
    f, examples = parse_function(arguments)
    for option in ("planned", "c"):
        if getattr(arguments, option) and len(examples) != 2:
            raise ValueError(f"--{option} is for a cell (state, x) → (state, y), and {arguments.what} takes "
                             f"{len(examples)} arguments")
    try:
        derived = derive(f, *examples)
        form = next((name for name in FORMS if getattr(arguments, name)), "source")
        text = getattr(derived, FORMS.get(form, form))
    except Exception as problem:  # whatever a user's function raises
        raise ValueError(f"{arguments.what} cannot be derived: {in_one_sentence(problem)}") from problem
    print_source(text.rstrip("\n") + "\n", LANGUAGES.get(form, "python"))
    return 0


def parse_function(arguments: argparse.Namespace) -> tuple[Callable, tuple]:
    """(function, example arguments): a cell with these --sizes, or a function with arguments of these --shapes."""
    what, given = arguments.what, {"sizes": arguments.sizes, "shapes": arguments.shapes}
    if what in CELLS:
        f = what
    elif split_name(what) is not None:
        f = from_file(what, (type, Callable), "function or class")
    else:
        raise ValueError(f"{what!r} is neither {', '.join(CELLS)} nor FILE.py:Class nor FILE.py:function"
                         f"{nearest(what, CELLS)}")
    takes, other = ("sizes", "shapes") if isinstance(f, (str, type)) else ("shapes", "sizes")
    if given[other] is not None:
        raise ValueError(f"--{other} is not for {what}, which takes --{takes}")
    if takes == "shapes":
        return f, parse_shapes(f, what, given["shapes"] or "", arguments.dtype)
    make = document_cell if f == "document" else layer_cell
    return make(f, given["sizes"] or SIZES, np.dtype(arguments.dtype))


def layer_cell(cell: str | type, sizes: tuple[int, ...], dtype: np.dtype) -> tuple[Callable, tuple]:
    """(cell, example arguments) for a layer's name or a subclass of nn.Recurrent, built as in `minigrad train`, or from
    its two sizes alone if it takes no dtype and rng."""
    n_x, n_a, batch = sizes
    if isinstance(cell, type) and issubclass(cell, nn.Recurrent) and not {"dtype", "rng"} <= set(options_of(cell)):
        with refusing(f"{cell.__name__} cannot be built as {cell.__name__}({n_x}, {n_a})"):
            made = cell(n_x, n_a)
    else:
        made = recurrent_layers(SequenceModel, cell, n_x, n_a, 1, dropout=0.0, dtype=dtype, rng=0).layers["l0"]
    with no_grad():
        state = map_leaves(lambda start: np.array(Tensor(broadcast_state(batch, dtype, start)).data),
                           made.initial_state(batch))
    return made.cell, (state, np.zeros((n_x, batch), dtype))


def document_cell(_: str, sizes: tuple[int, ...], dtype: np.dtype) -> tuple[Callable, tuple]:
    """(cell, example arguments) for the document's cell as (state, x_t) → (state, yt_pred), with two classes."""
    n_x, n_a, batch = sizes
    shapes = {name: (n_a, n_a + n_x) if name[0] == "W" else (n_a, 1) for name in GATES} | {"Wy": (2, n_a), "by": (2, 1)}
    parameters = {name: Tensor(np.zeros(shape, dtype), requires_grad=True) for name, shape in shapes.items()}

    def document(state, x_t):
        a_prev, c_prev = state
        a_next, c_next, yt_pred, _ = lstm_cell_forward(x_t, a_prev, c_prev, parameters)
        return (a_next, c_next), yt_pred
    return document, ((np.zeros((n_a, batch), dtype),) * 2, np.zeros((n_x, batch), dtype))


def parse_shapes(f: Callable, what: str, text: str, dtype: str) -> tuple:
    """Arrays for the arguments of f, in order, from "x=3,4 state=(5, 4),(5, 4)"; defaults may be omitted."""
    given = {}
    for word in re.split(r"\s+(?=\w+\s*=)", text.strip()) if text.strip() else []:
        name, _, shape = word.partition("=")
        try:
            given[name.strip()] = make_arrays(ast.literal_eval(shape.strip()), dtype)
        except (ValueError, TypeError, SyntaxError, MemoryError):
            raise ValueError(f"--shapes has {word!r}, where name=3,4 is expected, name=() for a number, or a nesting "
                             "of shapes as name=(5,4),(5,4)") from None
    try:
        parameters = {p.name: p for p in inspect.signature(f).parameters.values()
                      if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)}
    except (TypeError, ValueError):
        raise ValueError(f"{what} does not declare its arguments: wrap it in a function that does") from None
    takes = f"{what} takes {', '.join(parameters) or 'no arguments'}"
    for name in given:
        if name not in parameters:
            raise ValueError(f"--shapes has {name!r}, and {takes}{nearest(name, parameters)}")
    missing = [name for name, p in parameters.items() if name not in given and p.default is p.empty]
    if missing:
        raise ValueError(f"{takes}: give --shapes for {', '.join(missing)}, as {missing[0]}=3,4")
    last = max([i for i, name in enumerate(parameters) if name in given], default=-1)
    examples = tuple(given.get(name, p.default) for name, p in list(parameters.items())[:last + 1])
    if not flatten(examples)[0]:
        raise ValueError(f"{what} is derived with respect to its arguments: give it an argument, and its shape")
    return examples


def make_arrays(shape: Any, dtype: str) -> Any:
    """Arrays nested like their shapes. A shape is a number, or a tuple or list of numbers."""
    if isinstance(shape, dict):
        return {key: make_arrays(child, dtype) for key, child in shape.items()}
    if isinstance(shape, (tuple, list)) and not all(type(n) is int for n in shape):
        return type(shape)(make_arrays(child, dtype) for child in shape)
    return np.full(shape, 0.5, dtype)


def print_source(source: str, language: str) -> None:
    """Print source, in colours on a terminal if pygments (an optional dependency) is installed."""
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        with contextlib.suppress(ImportError):
            from pygments import highlight
            from pygments.formatters import TerminalFormatter
            from pygments.lexers import get_lexer_by_name
            source = highlight(source, get_lexer_by_name(language), TerminalFormatter())
    print(source, end="")


def sizes(value: str) -> tuple[int, ...]:
    numbers = tuple(int(n) if n.strip().isdecimal() else 0 for n in value.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not an input, hidden and batch size such as "
                                         f"{','.join(map(str, SIZES))}")
    return numbers
