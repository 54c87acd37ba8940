"""The command `minigrad`."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import nn
from minigrad.derive import derive
from minigrad.document import GATES, lstm_cell_forward
from minigrad.tasks.text import Text, bigram_bits, read_text, unigram_bits
from minigrad.tensor import Tensor
from minigrad.train import CharModel, bits_per_character, check_model, sample, train
from minigrad.tree import flatten


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Exit status 0: done, 1: a check failed, 2: bad input."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except ValueError as problem:
        print(f"minigrad {arguments.command}: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="minigrad", description="Train recurrent networks and see their gradients.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    job = commands.add_parser(
        "train", help="check the gradients of a character model, then train it",
        description="Check the gradients of a character model built on the document's LSTM, then train it on a text.",
        epilog="examples:\n  minigrad train\n  minigrad train --text novel.txt --hidden 256 --steps 5000",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    job.add_argument("--text", metavar="FILE", help="a UTF-8 text; by default Python's language reference")
    job.add_argument("--hidden", type=positive, default=128, metavar="N", help="units of the LSTM (%(default)s)")
    job.add_argument("--length", type=positive, default=32, metavar="N", help="characters a window (%(default)s)")
    job.add_argument("--batch", type=positive, default=32, metavar="N", help="windows a step (%(default)s)")
    job.add_argument("--steps", type=positive, default=1200, metavar="N", help="steps of the optimiser (%(default)s)")
    job.add_argument("--lr", type=positive_float, default=0.02, metavar="X", help="Adam's step size (%(default)s)")
    job.add_argument("--clip", type=positive_float, default=1.0, metavar="X", help="limit of gradients (%(default)s)")
    job.add_argument("--seed", type=int, default=0, metavar="N", help="of every random number (%(default)s)")
    job.set_defaults(run=run_train)
    job = commands.add_parser(
        "derive", help="print the backward pass of a cell, or of any function, as NumPy source",
        description="Derive the backward pass of a function and print it, with the forward, as a module of NumPy.",
        epilog="examples:\n  minigrad derive lstm\n  minigrad derive gru --sizes 65,100,16 --planned\n"
               "  minigrad derive model.py:cell --shapes \"h=5,4 x=3,4\"\n"
               "  minigrad derive model.py:loss --shapes \"x=3,4 p={'W': (5, 3), 'b': (5, 1)} scale=()\"",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    job.add_argument("what", metavar="CELL", help=f"{', '.join(CELLS)}, or FILE.py:function; the file is run")
    job.add_argument("--shapes", metavar="TEXT", help="of the function's arguments, each as name=3,4, name=() for a "
                     "number, or a nesting of shapes in Python's brackets")
    job.add_argument("--sizes", type=sizes, metavar="D,H,B", help="input, hidden and batch size of "
                     f"{', '.join(CELLS)} ({','.join(map(str, SIZES))})")
    job.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="(%(default)s)")
    job.add_argument("--planned", action="store_true",
                     help="print what scan runs for a cell (state, x) → (state, y): the loops over time, with buffers")
    job.set_defaults(run=run_derive)
    return top


def run_train(arguments: argparse.Namespace) -> int:
    """Check, train, measure, sample."""
    rng = np.random.default_rng(arguments.seed)
    text = read_text(arguments.text)
    model = CharModel(len(text.characters), arguments.hidden, rng)

    checked = check_model(model, text, rng)
    print(f"gradient check: worst relative error {checked.worst.error:.1e}, in {checked.worst.name} ({checked.method}, "
          f"tolerance {checked.tolerance:.0e}): {'passed' if checked.ok else 'FAILED'}", flush=True)
    if not checked.ok:
        print(checked)
        return 1

    parameters = sum(p.size for p in model.parameters.values())
    print(f"text: {len(text):,} characters, {len(text.characters)} distinct, from {text.source}\n"
          f"model: the document's LSTM, {arguments.hidden} hidden units, {parameters:,} parameters", flush=True)
    history = train(model, text, steps=arguments.steps, batch=arguments.batch, length=arguments.length, lr=arguments.lr,
                    clip=arguments.clip, report=lambda line: print(line, flush=True))
    how = f"interrupted after {len(history.losses)} of {arguments.steps} steps" if history.interrupted else \
        f"{len(history.losses)} steps"
    print(f"trained: {how}, {history.seconds:.0f} s, {history.tokens / history.seconds:,.0f} tokens/s, "
          f"loss {history.losses[0]:.3f} → {np.mean(history.losses[-50:]):.3f} nats a character")
    print_result(model, text, rng)
    return 0


def print_result(model: CharModel, text: Text, rng: np.random.Generator) -> None:
    print(f"bits per character on the {len(text.held_out):,} held out: LSTM "
          f"{bits_per_character(model, text.held_out):.2f}, bigram {bigram_bits(text):.2f}, "
          f"unigram {unigram_bits(text):.2f}")
    newline = max(0, text.characters.find("\n"))
    print("sample:\n" + text.decode(sample(model, 400, rng, first=newline)).strip("\n"))


# -- derive -------------------------------------------------------------------------------------------------


def run_derive(arguments: argparse.Namespace) -> int:
    """Print a derived source."""
    built_in = arguments.what in CELLS
    unfit = "shapes" if built_in else "sizes"
    if getattr(arguments, unfit) is not None:
        raise ValueError(f"--{unfit} is not for {arguments.what}, which takes --{'sizes' if built_in else 'shapes'}")
    if built_in:
        f, examples = built_in_cell(arguments.what, arguments.sizes or SIZES, arguments.dtype)
    else:
        f = from_file(arguments.what)
        examples = read_shapes(f, arguments.what, arguments.shapes or "", arguments.dtype)
    if arguments.planned and len(examples) != 2:
        raise ValueError(f"--planned is for a cell (state, x) → (state, y), and {arguments.what} takes "
                         f"{len(examples)} arguments")
    try:
        derived = derive(f, *examples)
        source = derived.planned_source if arguments.planned else derived.source
    except Exception as problem:  # whatever a user's function raises
        raise ValueError(f"{arguments.what} cannot be derived: {in_one_sentence(problem)}") from problem
    print_python(source)
    return 0


def document_cell(n_x: int, n_a: int, *, dtype: str) -> Callable:
    """The document's cell as (state, x_t) → (state, yt_pred), of two classes."""
    shapes = {name: (n_a, n_a + n_x) if name[0] == "W" else (n_a, 1) for name in GATES} | {"Wy": (2, n_a), "by": (2, 1)}
    parameters = {name: Tensor(np.zeros(shape, dtype), requires_grad=True) for name, shape in shapes.items()}

    def document(state, x_t):
        a_prev, c_prev = state
        a_next, c_next, yt_pred, _ = lstm_cell_forward(x_t, a_prev, c_prev, parameters)
        return (a_next, c_next), yt_pred
    return document


CELLS = {"lstm": (nn.LSTMCell, 2), "gru": (nn.GRUCell, 1), "rnn": (nn.RNNCell, 1),  # how it is made, its states
         "document": (document_cell, 2)}
SIZES = (3, 5, 4)  # input, hidden, batch: all different, so that a shape says what it is


def built_in_cell(name: str, sizes: tuple[int, ...], dtype: str) -> tuple[Callable, tuple]:
    make, states = CELLS[name]
    n_x, n_a, batch = sizes
    made = make(n_x, n_a, dtype=dtype)
    state = (np.zeros((n_a, batch), dtype),) * states
    return getattr(made, "cell", made), (state if states > 1 else state[0], np.zeros((n_x, batch), dtype))


def from_file(what: str) -> Callable:
    """The function of FILE.py:function; the file is run for it."""
    file, _, name = what.rpartition(":")
    if not file.endswith(".py"):
        raise ValueError(f"{what!r} is neither {', '.join(CELLS)} nor FILE.py:function{nearest(what, CELLS)}")
    if not Path(file).is_file():
        raise ValueError(f"{file} is no file{nearest(file, map(str, Path(file).parent.glob('*.py')))}")
    spec = importlib.util.spec_from_file_location("file_to_derive", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(file).resolve().parent))  # it may import its neighbours, as a script may
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        raise ValueError(f"{file} cannot be run: {in_one_sentence(problem)}") from problem
    finally:
        sys.path.pop(0)
    try:
        f = attrgetter(name)(module)
    except AttributeError:
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ValueError(f"{file} has no function {name!r}{nearest(name, functions)}") from None
    if not callable(f):
        raise ValueError(f"{name} in {file} is no function, but of type {type(f).__name__}")
    return f


def read_shapes(f: Callable, what: str, text: str, dtype: str) -> tuple:
    """Arrays for the arguments of f, in its order, from "x=3,4 state=(5, 4),(5, 4)"; defaults may be left out."""
    given = {}
    for word in re.split(r"\s+(?=\w+\s*=)", text.strip()) if text.strip() else []:
        name, _, shape = word.partition("=")
        try:
            given[name.strip()] = filled(ast.literal_eval(shape.strip()), dtype)
        except (ValueError, TypeError, SyntaxError, MemoryError):
            raise ValueError(f"--shapes has {word!r}, where name=3,4 is expected, name=() for a number, or a nesting "
                             "of shapes as name=(5,4),(5,4)") from None
    try:
        parameters = {p.name: p for p in inspect.signature(f).parameters.values()
                      if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)}
    except (TypeError, ValueError):
        raise ValueError(f"{what} does not say what arguments it takes: wrap it in a function that does") from None
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
        raise ValueError(f"{what} is derived with respect to its arguments: give it one, and its shape")
    return examples


def filled(shape: Any, dtype: str) -> Any:
    """Arrays in the nesting of their shapes. A shape is a number, or a tuple or list of numbers."""
    if isinstance(shape, dict):
        return {key: filled(child, dtype) for key, child in shape.items()}
    if isinstance(shape, (tuple, list)) and not all(type(n) is int for n in shape):
        return type(shape)(filled(child, dtype) for child in shape)
    return np.full(shape, 0.5, dtype)


def nearest(name: str, names: Iterable[str]) -> str:
    """`: did you mean lstm?`, if there is one near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f": did you mean {near[0]}?" if near else ""


def in_one_sentence(problem: BaseException) -> str:
    """What was raised, and the last line of the user's file on the way to it, if it does not say so itself."""
    said = " ".join(str(problem).split())
    said = said if isinstance(problem, (ValueError, TypeError)) else f"{type(problem).__name__}: {said}"
    own = [frame for frame in traceback.extract_tb(problem.__traceback__)
           if not frame.filename.startswith((os.path.dirname(__file__), "<", os.path.dirname(np.__file__)))]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    return said if not where or where in said else f"{said} (at {where})"


def print_python(source: str) -> None:
    """To a terminal in colours, if pygments is there; it is no dependency."""
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        try:
            from pygments import highlight
            from pygments.formatters import TerminalFormatter
            from pygments.lexers import PythonLexer
        except ImportError:
            pass
        else:
            source = highlight(source, PythonLexer(), TerminalFormatter())
    print(source, end="")


def sizes(value: str) -> tuple[int, ...]:
    numbers = tuple(int(n) if n.strip().isdecimal() else 0 for n in value.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no input, hidden and batch size, as {SIZES[0]},{SIZES[1]},"
                                         f"{SIZES[2]}")
    return numbers


# -- numbers in arguments -----------------------------------------------------------------------------------


def positive(value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no whole number above 0")
    return number


def positive_float(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < np.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is no number above 0")
    return number
