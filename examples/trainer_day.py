"""A day with toy models, on sequences of one's own: batches, training, more training, a sweep, a file, samples.

    python examples/trainer_day.py                    in a few seconds, into the folder trainer_day
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import minigrad as mg
from minigrad.training import Run, SequenceModel, Trainer, sweep

NAMES = [f".{name}." for name in """
anna emma mia lena hanna lea lina ella ida eva nora clara marie sofia paula mila lotta frieda greta rosa lisa laura
paul jonas finn leon elias ben luca noah emil anton oskar theo jakob felix max moritz karl otto hugo fritz jan tim
""".split()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("trainer_day"), help="folder of the files (%(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="steps of each training (%(default)s)")
    options = parser.parse_args(arguments)
    steps, out = options.steps, options.out
    out.mkdir(parents=True, exist_ok=True)

    # my sequences → batches
    for batch in mg.data.batches(NAMES, size=16, rng=0):
        print(f"batch: x {batch.x.shape}, lengths up to {len(batch.x)}")

    # my sequences → a task → train, in a loop that I can read
    task = mg.data.Sequences(NAMES)
    model = SequenceModel(**task.sizes, cell="gru", hidden=16, rng=0)
    trainer = Trainer(model, task, mg.optim.Adam(model.parameters(), lr=0.005), steps=steps, batch=16)
    trainer.run()
    print(f"after {trainer.step} steps {trainer.measure():.2f} bits a character, {task.baseline:.2f} without memory")

    # longer
    trainer.steps *= 2
    trainer.run()
    print(f"after {trainer.step} steps {trainer.measure():.2f}")

    # a sweep of four runs, each of which survives a kill, and its table; then one of them longer
    task.save(out / "names.npz")
    own = {"options": {"file": out / "names.npz"}, "steps": steps, "batch": 16, "hidden": 16}
    print(sweep("sequences", out / "sweep", cell=["gru", "lstm"], seed=[0, 1], **own))
    with Run.resume(out / "sweep" / "cell=lstm,seed=0", steps=steps + 20, lr=0.002) as run:
        print(f"after {run.go()['steps']} steps {run.trainer.measure():.2f}")

    # keep the weights, load them, sample
    model.save(out / "model.npz")
    again = SequenceModel(**task.sizes, cell="gru", hidden=16).load(out / "model.npz")
    for codes in mg.sample(again, 8, rng=0, prime=task.encode("."), temperature=0.8, batch=5).T:
        print(task.decode(codes).partition(".")[0], end=" ")
    print()


if __name__ == "__main__":
    main()
