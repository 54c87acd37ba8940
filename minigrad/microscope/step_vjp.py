"""The VJP of one recorded step for many cotangents at once, stacked along one more, last axis."""

from __future__ import annotations

import numpy as np

from minigrad.engine.ops import concatenate, getitem
from minigrad.engine.ops import sum as sum_op
from minigrad.microscope.cell_program import evaluate, instructions
from minigrad.microscope.recording import Record
from minigrad.program.analysis import is_matrix_product
from minigrad.program.ir import Value, in_order

Array = np.ndarray


class StepVJP:
    """Push K cotangents of a step's results at once through the part of its backward that computes `values`."""

    def __init__(self, scan: Record, values: list[Value]):
        self.scan, self.values = scan, values
        self.zeros = {seed: np.zeros(seed.shape, seed.dtype) for seed in scan.step.program.seeds.values()}
        self.program = instructions(in_order(values, {*scan.step.recorded, *self.zeros}))

    def __call__(self, t: int, given: list[tuple[Value, Array]]) -> list[Array]:
        """[(result, its K cotangents (…, K))], zero for other results → (…, K) of each value, at step t of running."""
        seeds, count = self.scan.step.seeds(given), given[0][1].shape[-1]
        env = {**self.scan.invariants, **self.scan.forward_values[t], **self.zeros, **seeds}
        stacked = set(seeds)
        evaluate_stacked(self.program, env, stacked, count)
        return [with_last_axis(env[value], value in stacked, count) for value in self.values]


def evaluate_stacked(program: list[tuple], env: dict[Value, Array], stacked: set[Value], count: int) -> None:
    """`evaluate` where values in `stacked` have one more, last axis of length `count`; values that depend on them are
    added to `stacked`. Common ops compute all entries of this axis in one call, other ops one by one."""
    for instruction in program:
        value, forward, inputs, metadata, part, dtype = instruction
        if stacked.isdisjoint(inputs):
            evaluate([instruction], env)
            continue
        arrays, is_stacked = [env[a] for a in inputs], [a in stacked for a in inputs]
        if value.op.elementwise and part is None:
            y = forward(*[x if many else np.asarray(x)[..., None] for x, many in zip(arrays, is_stacked)])
        elif is_matrix_product(value) and not all(is_stacked):
            a, b = arrays
            y = np.tensordot(a, b, 1) if is_stacked[1] else np.tensordot(b, a, ((0,), (1,))).swapaxes(0, 1)
        elif takes_last_axis(value):
            y = forward(*[with_last_axis(*pair, count) for pair in zip(arrays, is_stacked)], **metadata)
        else:
            one_by_one = [forward(*[x[..., i] if many else x for x, many in zip(arrays, is_stacked)], **metadata)
                          for i in range(count)]
            y = np.stack(one_by_one if part is None else [parts[part] for parts in one_by_one], axis=-1)
        env[value] = np.asarray(y, dtype)
        stacked.add(value)


def takes_last_axis(value: Value) -> bool:
    """Whether the op of a value leaves one more, last axis of its inputs alone: a slice, or a sum or concatenation
    along an axis counted from the first."""
    op, metadata = value.op, value.metadata
    if op is getitem.op:
        return all(isinstance(i, (int, slice)) for i in metadata["index"])
    return op in (sum_op.op, concatenate.op) and isinstance(metadata["axis"], int) and metadata["axis"] >= 0


def with_last_axis(x: Array, is_stacked: bool, count: int) -> Array:
    """x with the last axis; repeat it `count` times if it is not stacked."""
    return x if is_stacked else np.broadcast_to(x[..., None], (*x.shape, count))
