"""Compare random cells with the plain loop: `python tests/fuzz.py --seeds 20000 --jobs 2`.

A seed makes a `Case`: a cell as Python text, its state, inputs and weights, and how scan is called. The text is a
line for each op of the table `OPS`, chosen at random among those that the shapes allow. It runs on arrays, on
tensors, on symbols, and on PyTorch's tensors. `compare` runs a case

    by mg.scan           comparing values, gradients, and which results are tracked
    by mg.derive         forward and backward of the cell, and of a function around its scan
    by mg.bptt.record    as by mg.scan, value by value
    by mg.jvp            for some seeds, through scan and through the loop
    by PyTorch           if it is installed and has every op of the cell

and raises AssertionError if one differs from the loop, which records op by op. A failing seed is shrunk and printed
with the command that repeats it: `python tests/fuzz.py --seed 123`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine.pytree import flatten, unflatten

# -- the table of ops -------------------------------------------------------------------------------------------
# One text for NumPy's arrays, minigrad's tensors and symbols, and in PT PyTorch's tensors too (`torch_names`). a, b, c
# are float values, the same at each occurrence in a text; k is an array of integers or booleans.

PT = """
{a} + {b}; {a} - {b}; {a} * {b}; -{a}; {a} / (2.0 + {b} * {b}); 0.5 * {a}; 1.0 - {a}; {a} * 1; {a} + 0.0; {a} ** 2
{a} ** 3
np.tanh({a}); np.tanh({a} + {b}); sigmoid({a}); softplus({a}); relu({a} - 0.1); np.exp(-{a} * {a}); np.sin({a})
np.square({a}); np.sqrt(1.0 + {a} * {a}); np.log1p({a} * {a}); np.abs({a} - 0.123); (1.2 + np.sin({a})) ** {b}
np.maximum({a}, 0.7 * {b} + 0.1); np.minimum({a}, 0.7 * {b} + 0.1); np.clip({a}, -0.4, 0.35)
np.where({a} > 0.1 * {b} + 0.05, {a}, {b}); np.where({a} > 0.07, {b}, 0.3 * {c}); np.where({k} > 0, {a}, {b})
{a} * {k}
{a} @ {b}; {a}.T @ {b}; {a} @ {b}.T; {a} @ {b} + {c}; np.tensordot({a}, {b}, ((1,), (0,))); np.outer({a}, {b})
np.tensordot({a}, {b}, ((0,), (0,))); np.einsum("ib->ib", {a}); np.einsum("ib->bi", {a}); np.einsum("ii->i", {a})
np.einsum("ib,ib->ib", {a}, {b}); np.einsum("i,ib->ib", {a}, {b}); np.einsum("ij,jb->ib", {a}, {b})
np.einsum("ij,kj->ik", {a}, {b}); np.einsum("ib,ib->b", {a}, {b}); np.einsum("ib->", {a})
np.einsum("ij,ib,jb->b", {a}, {b}, {c})
np.transpose({a}, (0, 1)); {a}.T; {a}.T.T; np.moveaxis({a}, 0, 0); np.moveaxis({a}, 0, -1); np.swapaxes({a}, -2, 0)
np.swapaxes({a}, 0, 1); np.swapaxes({a}, 1, 1); np.transpose({a}, (1, 0)); np.transpose({a}[None], (0, 2, 1))[0]
np.transpose({a}, (0, 2, 1)); np.transpose({a}, (2, 0, 1)); np.transpose({a}, (-3, -2, -1))
np.transpose({a}[None], (1, 2, 0))
np.reshape({a}, (-1,)); np.reshape({a}, (1, -1)); np.reshape({a}, {a}.shape); np.reshape({a}.T, {a}.shape); {a}[None]
np.reshape({a}, tuple({a}.shape)[::-1]); np.squeeze({a}); np.broadcast_to({a}, (2, *{a}.shape))
np.broadcast_to({a}, {b}.shape)
{a}[1:]; {a}[:1]; {a}[1:][:1]; {a}[:2][1:]; {a}[:, 1:]; {a}[:, :1]; {a}[..., :1]; {a}[0]; {a}[-1]; {a}[:]; {a}[...]
{a}[:, None]
{a}[[2, 0, 0]]; {a}[[-1, 0]]; {a}[:, [1, 0, 1]]; {a}[1:, 1:]; {a}[:2, :1][1:]; {a}[:, 0]; {a}[1:2] + {a}[:1]
np.sum({a}); np.sum({a}, axis=0); np.sum({a}, axis=-1); np.sum({a}, axis=0, keepdims=True); np.sum({a}, axis=(0, 1))
np.sum({a} * {b}, axis=-1, keepdims=True); np.mean({a}); np.mean({a}, axis=0, keepdims=True); np.mean({a}, axis=-1)
softmax({a}, 0); softmax({a}, -1); logsumexp({a}, 0); logsumexp({a}, -1); log_softmax({a}, 0)
np.concatenate([{a}, {b}]); np.concatenate([{a}, {b}], axis=-1); np.concatenate([{a}, {b}, {a}]); np.stack([{a}, {b}])
np.stack([{a}, {b}], axis=-1); np.concatenate([{a}[:1], {b}[1:]]); np.concatenate([{a}, np.concatenate([{b}, {c}])])
np.concatenate([{a}[1:], {b}[:1]]); detach({a}); detach({a}) * {b}; {a} - detach({a}); detach({a} + {b}) + {a}
({a} > 0.3 * {b} + 0.07) * {a}; {a} * np.sum({b}, axis=0, keepdims=True); {a} * np.tanh({b}) * (1.0 - {c})
"""
OURS = """
{a}[::-1]; {a}[:, ::-1]; {a}[::2]; {a}[()]; {a}[:2][::-1]; {a}[np.array([True, False, True])]; np.copy({a})
{a} + np.array([0.5, -np.inf])[:1]
np.einsum("...b->b...", {a}); np.tensordot({a}, {b}, (1, 0)); np.tensordot({a}, {b}, 1); np.dot({a}, {b})
np.max({a}, axis=0); np.cumsum({a}, axis=0); np.min({a}); np.max({a}, axis=-1, keepdims=True)
logsumexp({a}, (0, 1)); np.var({a}, axis=0); np.prod(1.0 + 0.1 * {a}, axis=0); np.flip({a}, 0)
np.repeat({a}[None], 2, axis=0); np.tile({a}, 2)
np.split({a}, 3)[1]; np.split({a}, [1])[0]; np.split({a}, [1], axis=-1)[1]; np.concatenate([{a}, {b}], axis=None)
np.concatenate(np.split({a}, [1])); np.concatenate(np.split({a}, [1])[::-1])
np.concatenate([*np.split({a}, 3)[:2], {b}[2:]])
np.where({k}, {a}, {b}); np.where({a} > 0.2, {a}, 0.0); np.take({a}, np.array([1, 0]), axis=0); np.pad({a}, 1)
{a}.astype(np.float32); {a}.astype(np.float64); np.float64(0.5) * {a}; {a}.astype(int).astype(float) + {a}
np.sign({a} - 0.11) * {a}
mg.grad(lambda z: np.sum(np.tanh(z) ** 2 * {b}))({a}); mg.grad(lambda z: np.sum(np.tanh(z * {b}) * z))(detach({a}))
mg.scan(lambda h, z: (np.tanh(h * z + 0.5), h * z), {a}, np.stack([{b}, {a}]))[0]
mg.scan(lambda h, z: (np.tanh(h + z), (detach(h), h * {b})), {a}, np.stack([{b}, {c}]))[1][1]
"""
INTS = "{k} + 1; {k} * 2; {k} < 2; {a} > 0.3 * {b} + 0.07; {k}[:1]; ({a} > 0.02).astype(int); {k} == 1"


@dataclass(frozen=True)
class Op:
    """One line of a cell. pt: whether PyTorch can run its text."""

    text: str
    pt: bool

    def wrote(self, line: str) -> bool:
        """Whether a line of a cell comes from this op."""
        return re.fullmatch(re.sub(r"\\\{[abck]\\\}", r"\\w+", re.escape(self.text)), line) is not None


OPS = [Op(text.strip(), table is PT) for table in (PT, OURS, INTS) for text in re.split(r";|\n", table)
       if text.strip()]


def detach(x: Any) -> Any:
    return x.detach() if hasattr(x, "detach") else x


HERE = {"__name__": "fuzzed", "np": np, "mg": mg, "no_grad": mg.no_grad, "detach": detach, "sigmoid": mg.sigmoid,
        "softplus": mg.softplus, "relu": mg.relu, "softmax": mg.softmax, "log_softmax": mg.log_softmax,
        "logsumexp": mg.logsumexp}


# -- cases -------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A cell, its inputs and its options.

    state, x   trees of names;  arrays: name → values, those of xs with the time axis first
    weights    names of closed-over values; those in `tensors` are tensors that require gradients
    lines      [(name, text, under no_grad)];  new, out: the trees of names that the cell returns
    wanted     names of state and xs that require gradients;  loss: seed of the weights of the results
    options    of scan
    """

    state: Any
    x: Any
    arrays: dict[str, np.ndarray]
    weights: list[str]
    tensors: set[str]
    wanted: set[str]
    loss: int
    options: dict[str, Any]
    lines: list[tuple[str, str, bool]] = field(default_factory=list)
    new: Any = None
    out: Any = None

    @property
    def steps(self) -> int:
        return len(self.arrays[flatten(self.x)[0][0]])

    def text(self) -> str:
        body = [f"    {name} = state{path}" for name, path in paths(self.state)]
        body += [f"    {name} = x{path}" for name, path in paths(self.x)]
        for name, text, quiet in self.lines:
            body += ["    with no_grad():", f"        {name} = {text}"] if quiet else [f"    {name} = {text}"]
        returned = ", ".join(repr(tree).replace("'", "") for tree in (self.new, self.out))
        returned = re.sub(r"(\w+):", r'"\1":', returned)
        return "\n".join(["def cell(state, x):", *body, f"    return {returned}"])

    def cell(self, around: dict[str, Any], weights: dict[str, Any]) -> Callable:
        space = {**around, **weights}
        exec(compile(self.text(), "<fuzzed cell>", "exec"), space)
        return space["cell"]

    def tree(self, names: Any, values: dict[str, Any]) -> Any:
        return unflatten(names, [values[name] for name in flatten(names)[0]])


def paths(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, expression that reads it) for each leaf of a tree of names."""
    if isinstance(tree, str):
        yield tree, path
    else:
        for key, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from paths(child, f"{path}[{key!r}]")


def nested(rng: np.random.Generator, names: list[str]) -> Any:
    """Nest the names at random, as a user may."""
    if len(names) == 1 and rng.random() < 0.6:
        return names[0]
    if len(names) > 1 and rng.random() < 0.3:
        return {"one": names[0], "rest": [names[1], {"more": tuple(names[2:])}]}
    return tuple(names) if rng.random() < 0.8 else list(names)


def make(seed: int) -> Case:
    """Make the case of a seed."""
    rng = np.random.default_rng([seed, 2026])
    H, B = (3, 2) if rng.random() < 0.8 else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    T = int(rng.integers(1, 7))
    batch_last = rng.random() < 0.6
    one = (H, B) if batch_last else (B, H)
    mixed = rng.random() < 0.25
    arrays: dict[str, np.ndarray] = {}

    def array(name: str, shape: tuple, kind: str = "float") -> str:
        if kind == "float":
            dtype = np.float32 if mixed and rng.random() < 0.5 else np.float64
            arrays[name] = np.asarray(rng.uniform(-0.9, 0.9, shape), dtype)
        else:
            arrays[name] = np.asarray(rng.integers(0, 2 if kind == "bool" else 3, shape), kind)
        return name

    def chosen(*shapes: tuple) -> tuple:
        return shapes[rng.integers(len(shapes))]
    masked = batch_last and rng.random() < 0.3
    lonely = () if masked else ((), (H,), (1,), (H, H))
    state = [array(f"h{i}", chosen(one, one, *lonely)) for i in range(rng.integers(1, 4))]
    if rng.random() < 0.15:
        state.append(array("n", one if masked else chosen((), one), "int"))
    x = [array(f"x{i}", (T, *chosen(one, one, one, (), (H, 1)))) for i in range(rng.integers(1, 3))]
    if rng.random() < 0.2:
        x.append(array("flags", (T, *chosen(one, one[-1:])), "bool"))
    if rng.random() < 0.2:
        x.append(array("count", (T,), "int"))
    weights = [array(f"w{i}", chosen((H, H), (H, H), (H, 1), (H,), (), (), (1,), (1, 1), one))
               for i in range(rng.integers(1, 4))]
    constants = [array(f"c{i}", chosen(one, (H, H), (), (H,))) for i in range(rng.integers(0, 2))]
    names = [*state, *x, *weights]
    wanted = {name for name in names if arrays[name].dtype.kind == "f" and rng.random() < 0.8}
    options: dict[str, Any] = {"reverse": True} if rng.random() < 0.3 else {}
    if masked:
        options["mask"] = rng.integers(0, 2, (T, B)).astype(bool)
    if rng.random() < 0.25:
        options["checkpoint_every"] = int(rng.integers(1, T + 1))
    over_time = nested(rng, x)
    over_time = tuple(over_time) if isinstance(over_time, list) else over_time  # scan refuses a list
    case = Case(nested(rng, state), over_time, arrays, weights + constants, wanted & set(weights),
                wanted - set(weights), int(rng.integers(1 << 30)), options)
    values = {name: a[0] if name in x else a for name, a in arrays.items()}
    write(case, rng, values)
    finish(case, rng, values, state, B if masked else None)
    return case


def write(case: Case, rng: np.random.Generator, values: dict[str, Any]) -> None:
    """Write the lines of the cell. Each runs on arrays first; lines that NumPy refuses, or that grow, are dropped."""
    for i in range(rng.integers(2, 12)):
        for _ in range(20):
            text, quiet = OPS[rng.integers(len(OPS))].text, rng.random() < 0.1
            if case.lines and rng.random() < 0.1:  # an earlier line again, with or without its gradient
                _, text, quiet = case.lines[rng.integers(len(case.lines))]
                quiet ^= rng.random() < 0.8
            text = filled(text, rng, values)
            y = tried(text, values)
            if y is not None:
                case.lines.append((f"v{i}", text, bool(quiet)))
                values[f"v{i}"] = y
                break


def filled(text: str, rng: np.random.Generator, values: dict[str, Any]) -> str:
    """Replace each letter in the text of an op by a value of its kind, if there is one."""
    for letter, kinds in zip("abck", ("f", "f", "f", "iub")):
        names = [name for name in values if values[name].dtype.kind in kinds]
        if names and f"{{{letter}}}" in text:
            text = text.replace(f"{{{letter}}}", recent(rng, names))
    return text


def recent(rng: np.random.Generator, names: list[str]) -> str:
    """Choose one of the names, preferring late ones."""
    return names[int(len(names) * rng.random() ** 0.6)]


def tried(text: str, values: dict[str, Any]) -> Any:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = np.asarray(eval(text, {**HERE, **values}))
    except (ValueError, IndexError, TypeError, AttributeError, NameError):
        return None
    fits = y.dtype.kind in "fiub" and y.ndim <= 3 and y.size <= 60
    return y if fits and (y.dtype.kind != "f" or (np.abs(y) < 10).all()) else None


def finish(case: Case, rng: np.random.Generator, values: dict[str, Any], state: list[str],
           batch: int | None) -> None:
    """Choose what the cell returns: new states with the old shapes and dtypes, and ys; with a mask, batch is last."""
    new = []
    for name in state:
        old = values[name]
        like = [n for n in values if (values[n].shape, values[n].dtype) == (old.shape, old.dtype)]
        chosen = recent(rng, like)
        if old.dtype.kind == "f" and rng.random() < 0.6:
            other = recent(rng, [n for n in values if values[n].dtype.kind == "f"])
            texts = [f"np.tanh({other} + {chosen}).astype(np.{old.dtype})", f"np.tanh({chosen} + 0.3 * {name})",
                     f"detach({chosen})"]
            text = texts[rng.integers(len(texts))]
            y = tried(text, values)
            if y is not None and (y.shape, y.dtype) == (old.shape, old.dtype):
                chosen = f"{name}_new"
                case.lines.append((chosen, text, False))
                values[chosen] = y
        new.append(chosen)
    case.new = unflatten(case.state, new)
    possible = [n for n in values if batch is None or values[n].shape[-1:] == (batch,)]
    out = [recent(rng, possible) for _ in range(rng.integers(1, 4))] if possible else []
    out += new[:1] * (rng.random() < 0.4 and (batch is None or new[0] in possible))
    case.out = nested(rng, out) if out else ()


# -- running a case ------------------------------------------------------------------------------------------------


class Wild(Exception):
    """A case that cannot be compared: the loop refuses it, or its numbers are too large or NaN."""


@dataclass
class Outcome:
    """Result of a run: results and gradients as arrays by name, and which results are tracked."""

    results: list[np.ndarray]
    gradients: dict[str, np.ndarray]
    tracked: list[bool]


def loop(cell: Callable, state: Any, xs: Any, reverse: bool = False, mask: Any = None, **_: Any) -> tuple[Any, Any]:
    """Run step by step, as the reference."""
    leaves, pattern = flatten(xs)
    state = unflatten(state, [leaf if isinstance(leaf, mg.Tensor) else mg.tensor(leaf) for leaf in flatten(state)[0]])
    outputs = []
    order = slice(None, None, -1 if reverse else 1)
    for t in range(len(leaves[0]))[order]:
        before = state
        state, y = cell(before, unflatten(pattern, [leaf[t] for leaf in leaves]))
        if mask is not None:
            state = unflatten(state, [mg.where(mask[t], new, old)
                                      for new, old in zip(flatten(state)[0], flatten(before)[0])])
            y = unflatten(y, [mg.where(mask[t], leaf, 0.0) for leaf in flatten(y)[0]])
        outputs.append(flatten(y)[0])
    ys = list(map(mg.stack, zip(*outputs[order])))
    return state, unflatten(y, ys)


def tensors_of(case: Case) -> dict[str, Any]:
    """Make new tensors by name; a closed-over array without a gradient stays an array."""
    wanted = case.wanted | case.tensors
    return {name: mg.tensor(a, requires_grad=name in wanted) if name in wanted or name not in case.weights else a.copy()
            for name, a in case.arrays.items()}


def weighed(case: Case, leaves: list[Any]) -> list[np.ndarray]:
    """Return the gradient of the loss with respect to each float result; it is zero for some."""
    rng = np.random.default_rng(case.loss)
    drawn = [(rng.normal(size=leaf.shape).astype(leaf.dtype if leaf.dtype.kind == "f" else float), rng.random())
             for leaf in leaves]
    return [d if u < 0.85 else d * 0 for d, u in drawn]


def run(case: Case, scan: Callable) -> Outcome:
    values = tensors_of(case)
    cell = case.cell(HERE, {name: values[name] for name in case.weights})
    results = scan(cell, case.tree(case.state, values), case.tree(case.x, values), **case.options)
    leaves = flatten(results)[0]
    tracked = [getattr(y, "requires_grad", False) for y in leaves]
    terms = [mg.sum(y * d) for y, d in zip(leaves, weighed(case, leaves)) if getattr(y, "requires_grad", False)]
    if terms:
        sum(terms[1:], terms[0]).backward()
    gradients = {name: np.zeros(values[name].shape) if values[name].grad is None else values[name].grad
                 for name in case.wanted | case.tensors}
    return Outcome([np.asarray(detach(y)) for y in leaves], gradients, tracked)


def ever_tracked(case: Case) -> list[bool]:
    """For each result, whether a gradient can flow to it in the loop after some number of steps."""
    values = tensors_of(case)
    cell = case.cell(HERE, {name: values[name] for name in case.weights})
    state, xs = case.tree(case.state, values), flatten(case.x)[0]
    found: list[bool] | None = None
    for t in range(max(case.steps, len(flatten(case.state)[0]) + 2)):
        step = {name: values[name][t % case.steps] for name in xs}
        before = state
        state, y = cell(state, case.tree(case.x, step))
        if "mask" in case.options:  # a masked step keeps the state
            on = np.ones(case.options["mask"].shape[1], bool)
            state = unflatten(state, [mg.where(on, a, b) for a, b in zip(flatten(state)[0], flatten(before)[0])])
        now = [getattr(leaf, "requires_grad", False) for leaf in flatten((state, y))[0]]
        found = now if found is None else [a or b for a, b in zip(found, now)]
    return found


def close(ours: Any, theirs: Any, what: str, tolerance: float) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, and in the loop {theirs.shape}"
    if theirs.size and theirs.dtype.kind != "b":
        size = np.abs(theirs).max()
        error = np.abs(ours.astype(theirs.dtype) - theirs).max()
        assert error <= tolerance * (1 + size), f"{what}: {ours!r}\nand in the loop {theirs!r}"
    else:
        assert np.array_equal(ours, theirs), f"{what}: {ours!r}\nand in the loop {theirs!r}"


def same(ours: Outcome, theirs: Outcome, tolerance: float) -> None:
    for i, (a, b) in enumerate(zip(ours.results, theirs.results, strict=True)):
        assert a.dtype == b.dtype, f"result {i}: {a.dtype}, and in the loop {b.dtype}"
        close(a, b, f"result {i}", tolerance)
    for name in theirs.gradients:
        close(ours.gradients[name], theirs.gradients[name], f"gradient of {name}", tolerance)


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """Fail if scan runs step by step: the loop must not be compared with itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", sys.modules["minigrad.timeloop.scan"].ScanNotice)
        yield


def compare(case: Case) -> None:
    """Run a case in every form. Raise AssertionError if one differs from the loop, Wild if none can be compared."""
    with np.errstate(all="ignore"):
        try:
            reference = run(case, loop)
        except (ValueError, IndexError, TypeError) as problem:  # an op that is stricter than NumPy
            raise Wild from problem
        for a in [*reference.results, *reference.gradients.values()]:
            if a.dtype.kind == "f" and not (np.abs(a) < 1e4).all():
                raise Wild
        single = "float32" in case.text() or any(a.dtype == np.float32 for a in case.arrays.values())
        tolerance = 3e-4 if single else 1e-9
        with traced():
            ours = run(case, mg.scan)
        same(ours, reference, tolerance)
        ever = ever_tracked(case)
        for i, (a, b, c) in enumerate(zip(ours.tracked, reference.tracked, ever)):
            assert b <= a <= (b or c), f"result {i} is {'' if a else 'not '}tracked, and in the loop it is otherwise"
        with traced():
            derived(case, tolerance)
            if case.loss % 3 == 0:
                derived_scan(case, reference, tolerance)
            if case.loss % 3 == 1:
                with mg.bptt.record():
                    same(run(case, mg.scan), reference, tolerance)
        if case.loss % 4 == 1:
            directional(case, tolerance)
        if case.loss % 2 and tolerance < 1e-6:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                by_torch(case, reference)


def derived(case: Case, tolerance: float) -> None:
    """Compare the two functions of `mg.derive` of the cell with one step on tensors."""
    values = {name: mg.tensor(a[0] if name in flatten(case.x)[0] else a, requires_grad=a.dtype.kind == "f")
              if name not in case.weights or name in case.tensors else a for name, a in case.arrays.items()}
    cell = case.cell(HERE, {name: values[name] for name in case.weights})
    state, x = (case.tree(names, values) for names in (case.state, case.x))
    check_derived(case, mg.derive(cell, state, x), cell, (state, x), values, tolerance)


def derived_scan(case: Case, reference: Outcome, tolerance: float) -> None:
    """The same for a function that scans the cell."""
    values = {name: mg.tensor(a, requires_grad=a.dtype.kind == "f") if name not in case.weights or name in case.tensors
              else a for name, a in case.arrays.items()}
    cell = case.cell(HERE, {name: values[name] for name in case.weights})
    state, x = (case.tree(names, values) for names in (case.state, case.x))

    def scanned(state: Any, xs: Any) -> Any:
        return mg.scan(cell, state, xs, **case.options)
    check_derived(case, mg.derive(scanned, state, x), lambda state, x: loop(cell, state, x, **case.options), (state, x),
                  values, tolerance)


def check_derived(case: Case, ours: Any, f: Callable, args: tuple, values: dict[str, Any], tolerance: float) -> None:
    results = f(*args)
    leaves = flatten(results)[0]
    weights = weighed(case, leaves)
    terms = [mg.sum(y * d) for y, d in zip(leaves, weights) if getattr(y, "requires_grad", False)]
    if terms:
        sum(terms[1:], terms[0]).backward()
    output, cache = ours.forward(*[unflatten(a, [np.array(leaf.data) for leaf in flatten(a)[0]]) for a in args])
    for i, (a, b) in enumerate(zip(flatten(output)[0], leaves, strict=True)):
        close(a, detach(b), f"derived result {i}", tolerance)
    gradients = ours.backward(unflatten(results, weights), cache)
    floats = [leaf for arg in args for leaf in flatten(arg)[0] if leaf.dtype.kind == "f"]
    theirs = [*floats, *(x for x in ours.closed if x.requires_grad)]
    for a, x in zip(flatten(gradients)[0], theirs, strict=True):
        name = next(name for name, value in values.items() if value is x)
        close(a, np.zeros(x.shape) if x.grad is None else x.grad, f"derived gradient of {name}", tolerance)


def directional(case: Case, tolerance: float) -> None:
    """Compare jvp with respect to all floats at once, through scan and through the loop."""
    names = [name for name in case.arrays if name in case.wanted | case.tensors]
    rng = np.random.default_rng(case.loss)
    tangents = tuple(rng.normal(size=case.arrays[name].shape).astype(case.arrays[name].dtype) for name in names)

    def through(scan: Callable) -> Callable:
        def f(*arrays: Any) -> list:
            values = {**case.arrays, **dict(zip(names, arrays))}
            cell = case.cell(HERE, {name: values[name] for name in case.weights})
            results = scan(cell, case.tree(case.state, values), case.tree(case.x, values), **case.options)
            return [y for y in flatten(results)[0] if y.dtype.kind == "f"]
        return f
    if names:
        inputs = tuple(case.arrays[name] for name in names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sys.modules["minigrad.timeloop.scan"].ScanNotice)
            (_, ours), (_, theirs) = (mg.jvp(through(scan), inputs, tangents) for scan in (mg.scan, loop))
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert type(a) is type(b), f"jvp of result {i}: {type(a).__name__}, and in the loop {type(b).__name__}"
            close(a, b, f"jvp of result {i}", tolerance)


# -- PyTorch ---------------------------------------------------------------------------------------------------------


def by_torch(case: Case, reference: Outcome) -> None:
    """Run the text of the cell on PyTorch's tensors, if each of its lines has the same meaning there."""
    try:
        import torch
    except ImportError:
        return
    ours = [text for _, text, _ in case.lines if not any(op.wrote(text) for op in OPS if op.pt)]
    if ours or "mask" in case.options:
        return
    wanted = case.wanted | case.tensors
    values = {name: torch.tensor(a, requires_grad=name in wanted) for name, a in case.arrays.items()}
    cell = case.cell({**HERE, **torch_names(torch)}, {name: values[name] for name in case.weights})
    state, outputs = case.tree(case.state, values), []
    names = flatten(case.x)[0]
    order = slice(None, None, -1 if case.options.get("reverse") else 1)
    for t in range(case.steps)[order]:
        state, y = cell(state, case.tree(case.x, {name: values[name][t] for name in names}))
        outputs.append(flatten(y)[0])
    leaves = [*flatten(state)[0], *map(torch.stack, zip(*outputs[order]))]
    weights = map(torch.tensor, weighed(case, reference.results))
    terms = [(y * d).sum() for y, d in zip(leaves, weights) if y.requires_grad]
    if terms:
        sum(terms[1:], terms[0]).backward()
    for i, (a, b) in enumerate(zip(leaves, reference.results, strict=True)):
        close(a.detach().numpy(), b, f"result {i} of PyTorch", 1e-9)
    for name, b in reference.gradients.items():
        grad = values[name].grad
        close(np.zeros(b.shape) if grad is None else grad.numpy(), b, f"gradient of {name} by PyTorch", 1e-9)


def torch_names(torch: Any) -> dict[str, Any]:
    """Return the names that the text of a cell uses, bound to PyTorch's functions."""
    class Names:
        """NumPy's names."""

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        transpose = staticmethod(lambda x, axes: x.permute(*axes))
        where = staticmethod(lambda c, a, b: torch.where(c, a, b))
        tensordot = staticmethod(lambda a, b, axes: torch.tensordot(a, b, dims=axes))
        outer = staticmethod(lambda a, b: torch.outer(a.reshape(-1), b.reshape(-1)))
        concatenate = staticmethod(lambda arrays, axis=0: torch.cat(list(arrays), dim=axis))
        stack = staticmethod(lambda arrays, axis=0: torch.stack(list(arrays), dim=axis))
        sum = staticmethod(lambda x, axis=None, keepdims=False: torch.sum(x, dim=axis, keepdim=keepdims)
                           if axis is not None else torch.sum(x))
        mean = staticmethod(lambda x, axis=None, keepdims=False: torch.mean(x, dim=axis, keepdim=keepdims)
                            if axis is not None else torch.mean(x))
    return {"np": Names(), "no_grad": torch.no_grad, "sigmoid": torch.sigmoid, "softplus": torch.nn.functional.softplus,
            "relu": torch.relu, "softmax": torch.softmax, "log_softmax": torch.log_softmax,
            "logsumexp": torch.logsumexp}


# -- failing seeds ---------------------------------------------------------------------------------------------------


def failure(case: Case) -> str | None:
    """Return the failure of a case; None if it passes, "" if it cannot be compared."""
    try:
        compare(case)
    except Wild:
        return ""
    except Exception as problem:
        last = traceback.extract_tb(problem.__traceback__)[-1]
        return f"{type(problem).__name__} ({last.filename.rpartition('/')[2]}:{last.lineno}): {problem}"
    return None


def shrunk(case: Case) -> Case:
    """Return a smaller case with the same failure."""
    kind = str(failure(case))[:30]
    while True:
        for smaller in smaller_cases(case):
            with contextlib.suppress(Exception):
                if str(failure(smaller)).startswith(kind):
                    case = smaller
                    break
        else:
            return case


def smaller_cases(case: Case) -> Iterator[Case]:
    used = re.findall(r"\w+", " ".join([*(text for _, text, _ in case.lines), repr(case.new), repr(case.out)]))
    unused = [line for line in case.lines if line[0] not in used]
    if unused:
        yield dataclasses.replace(case, lines=[line for line in case.lines if line not in unused])
    for option in case.options:
        yield dataclasses.replace(case, options={k: v for k, v in case.options.items() if k != option})
    out = flatten(case.out)[0]
    if not isinstance(case.out, str):
        yield from (dataclasses.replace(case, out=name) for name in out)
    if case.steps > 1 and "mask" not in case.options:
        fewer = {name: a[:case.steps - 1] if name in flatten(case.x)[0] else a for name, a in case.arrays.items()}
        yield dataclasses.replace(case, arrays=fewer)
    for name, text, quiet in case.lines:
        for other in dict.fromkeys([*re.findall(r"\b[hxwvc]\d\b", text), *flatten(case.state)[0]]):
            def put(words: str, name: str = name, other: str = other) -> str:
                return re.sub(rf"\b{name}\b", other, words)
            lines = [(n, put(t), q) for n, t, q in case.lines if n != name]
            new, out = (unflatten(tree, list(map(put, flatten(tree)[0]))) for tree in (case.new, case.out))
            yield dataclasses.replace(case, lines=lines, new=new, out=out)
        if quiet:
            yield dataclasses.replace(case, lines=[(n, t, q and n != name) for n, t, q in case.lines])
    for wanted in case.wanted:
        yield dataclasses.replace(case, wanted=case.wanted - {wanted})
    for weight in case.tensors:
        yield dataclasses.replace(case, tensors=case.tensors - {weight})


def check(seed: int) -> str | None:
    """Return a report for a failing seed: the failure, the shrunk cell, and the command that repeats it."""
    case = make(seed)
    problem = failure(case)
    if not problem:
        return problem
    small = shrunk(case)
    shapes = ", ".join(f"{name} {a.dtype} {a.shape}" for name, a in small.arrays.items())
    return (f"{problem}\n\nshrunk, it fails with {failure(small)}\n{small.text()}\n"
            f"    # {shapes}\n    # gradients for {sorted(small.wanted | small.tensors)}, {small.options}\n"
            f"run it again: python tests/fuzz.py --seed {seed}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone, with its cell as it was made")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    if args.seed is not None:
        print(make(args.seed).text())
        seeds = range(args.seed, args.seed + 1)
    else:
        seeds = range(args.start, args.start + args.seeds)
    with ProcessPoolExecutor(args.jobs) as pool:
        problems = []
        for seed, problem in zip(seeds, pool.map(check, seeds, chunksize=8)):
            problems.append(problem)
            if problem:
                print(f"\n== seed {seed}: {problem}", flush=True)
    failed, skipped = sum(map(bool, problems)), problems.count("")
    print(f"{len(seeds)} seeds, {failed} failed, {skipped} could not be compared")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
