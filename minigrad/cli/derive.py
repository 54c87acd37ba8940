"""`minigrad derive`: print the backward pass of a cell or a function as NumPy source, or as C."""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.derived import derive
from minigrad.document import GATES, lstm_cell_forward
from minigrad.engine.messages import in_one_sentence, nearest
from minigrad.engine.pytree import flatten, map_leaves
from minigrad.engine.tensor import Tensor, no_grad
from minigrad.nn.layout import broadcast_state
from minigrad.training.sequence_model import SequenceModel, recurrent_layers
from minigrad.training.user_code import from_file, split_name


def add_derive(commands: Any) -> None:
    job = commands.add_parser(
        "derive", help="print the backward pass of a cell, or of any function, as NumPy source",
        description="Derive the backward pass of a function and print it, with the forward, as a module of NumPy.",
        epilog="examples:\n  minigrad derive lstm\n  minigrad derive gru --sizes 65,100,16 --planned\n"
               "  minigrad derive cells.py:MyCell\n"
               "  minigrad derive model.py:cell --shapes \"h=5,4 x=3,4\"\n"
               "  minigrad derive model.py:loss --shapes \"x=3,4 p={'W': (5, 3), 'b': (5, 1)} scale=()\"",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    job.add_argument("what", metavar="CELL", help=f"{', '.join(CELLS)}, FILE.py:Class, a subclass of nn.Recurrent, or "
                     "FILE.py:function; the file is run")
    job.add_argument("--shapes", metavar="TEXT", help="shapes of the function's arguments: name=3,4, name=() for a "
                     "number, or nested shapes in Python's brackets")
    job.add_argument("--sizes", type=sizes, metavar="D,H,B", help="input, hidden and batch size of a cell: "
                     f"{', '.join(CELLS)} or a class ({','.join(map(str, SIZES))})")
    job.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="(%(default)s)")
    job.add_argument("--planned", action="store_true",
                     help="print what scan runs for a cell (state, x) → (state, y): the loops over time, with buffers")
    job.add_argument("--c", action="store_true", help="print the loops over time of a cell as C, as scan compiles them")
    job.set_defaults(run=run_derive)


def run_derive(arguments: argparse.Namespace) -> int:
    """Print a derived source."""
    f, examples = parse_function(arguments)
    for option in ("planned", "c"):
        if getattr(arguments, option) and len(examples) != 2:
            raise ValueError(f"--{option} is for a cell (state, x) → (state, y), and {arguments.what} takes "
                             f"{len(examples)} arguments")
    try:
        derived = derive(f, *examples)
        source = derived.c_source if arguments.c else derived.planned_source if arguments.planned else derived.source
    except Exception as problem:  # whatever a user's function raises
        raise ValueError(f"{arguments.what} cannot be derived: {in_one_sentence(problem)}") from problem
    print_source(source, "c" if arguments.c else "python")
    return 0


def parse_function(arguments: argparse.Namespace) -> tuple[Callable, tuple]:
    """(function, example arguments): a cell with these --sizes, or a function with arguments of these --shapes."""
    what, f = arguments.what, None
    if what not in CELLS:
        if split_name(what) is None:
            raise ValueError(f"{what!r} is neither {', '.join(CELLS)} nor FILE.py:Class nor FILE.py:function"
                             f"{nearest(what, CELLS)}")
        f = from_file(what, (type, Callable), "function or class")
    is_cell = what in CELLS or isinstance(f, type)
    unfit = "shapes" if is_cell else "sizes"
    if getattr(arguments, unfit) is not None:
        raise ValueError(f"--{unfit} is not for {what}, which takes --{'sizes' if is_cell else 'shapes'}")
    if not is_cell:
        return f, parse_shapes(f, what, arguments.shapes or "", arguments.dtype)
    return (built_in_cell if what in CELLS else own_cell)(f or what, arguments.sizes or SIZES, arguments.dtype)


def own_cell(cell: type, sizes: tuple[int, ...], dtype: str) -> tuple[Callable, tuple]:
    """(cell, example arguments) for a subclass of nn.Recurrent, built and tried as in `minigrad train`."""
    n_x, n_a, batch = sizes
    layers = recurrent_layers(SequenceModel, cell, n_x, n_a, 1, dropout=0.0, dtype=np.dtype(dtype), rng=0)
    made = next(iter(layers.layers.values()))
    with no_grad():
        state = map_leaves(lambda start: np.array(Tensor(broadcast_state(start, batch, np.dtype(dtype))).data),
                           made.initial_state(batch))
    return made.cell, (state, np.zeros((n_x, batch), dtype))


def document_cell(n_x: int, n_a: int, *, dtype: str) -> Callable:
    """The document's cell as (state, x_t) → (state, yt_pred), with two classes."""
    shapes = {name: (n_a, n_a + n_x) if name[0] == "W" else (n_a, 1) for name in GATES} | {"Wy": (2, n_a), "by": (2, 1)}
    parameters = {name: Tensor(np.zeros(shape, dtype), requires_grad=True) for name, shape in shapes.items()}

    def document(state, x_t):
        a_prev, c_prev = state
        a_next, c_next, yt_pred, _ = lstm_cell_forward(x_t, a_prev, c_prev, parameters)
        return (a_next, c_next), yt_pred
    return document


CELLS = {"lstm": (nn.LSTMCell, 2), "gru": (nn.GRUCell, 1), "rnn": (nn.RNNCell, 1),  # constructor, number of states
         "document": (document_cell, 2)}
SIZES = (3, 5, 4)  # input, hidden, batch: all different, to tell shapes apart


def built_in_cell(name: str, sizes: tuple[int, ...], dtype: str) -> tuple[Callable, tuple]:
    make, states = CELLS[name]
    n_x, n_a, batch = sizes
    made = make(n_x, n_a, dtype=dtype)
    state = (np.zeros((n_a, batch), dtype),) * states
    return getattr(made, "cell", made), (state if states > 1 else state[0], np.zeros((n_x, batch), dtype))


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
        try:
            from pygments import highlight
            from pygments.formatters import TerminalFormatter
            from pygments.lexers import get_lexer_by_name
        except ImportError:
            pass
        else:
            source = highlight(source, get_lexer_by_name(language), TerminalFormatter())
    print(source, end="")


def sizes(value: str) -> tuple[int, ...]:
    numbers = tuple(int(n) if n.strip().isdecimal() else 0 for n in value.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not an input, hidden and batch size such as "
                                         f"{','.join(map(str, SIZES))}")
    return numbers
