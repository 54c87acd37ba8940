"""The command `minigrad`."""

from __future__ import annotations

import argparse
import sys

import numpy as np

from minigrad.tasks.text import Text, bigram_bits, read_text, unigram_bits
from minigrad.train import CharModel, bits_per_character, check_model, sample, train


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
