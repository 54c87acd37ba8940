"""Compare a gradient with numerical derivatives, which use none of the rules, and explain the difference.

Complex step: φ(x + i h v) = φ(x) + i h φ'(x)·v + O(h²), so φ'·v = Im φ(x + i h v) / h. Nothing is subtracted, so
h = 1e-20 leaves no truncation error and the derivative is exact to the last digit (Squire & Trapp 1998; Martins,
Sturdza & Alonso 2003). The forward must take complex numbers. If an op does not (abs), or if the two methods disagree
along one random direction (an op that drops the imaginary part, a kink), fourth-order central differences replace it;
they are good to about ten digits.

f may have any results: random weights u sum them to one number φ = Σ u y, whose gradient contains every entry of the
Jacobian with a weight of its own.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.check.faults import COMPLEX_STEP, CallSites, nodes_behind, relative, scan_calls, wrong_rules
from minigrad.check.gradcheck_report import GradcheckError, GradcheckReport, Row
from minigrad.engine.anomaly import unwatched
from minigrad.engine.backward import behind, data_of, sweep
from minigrad.engine.context import no_grad, recording
from minigrad.engine.op import Op
from minigrad.engine.ops import multiply
from minigrad.engine.ops import sum as total
from minigrad.engine.pytree import flatten, named_leaves, unflatten
from minigrad.engine.tensor import Node, Tensor, wrap

STEPS = (1e-3, 1e-2, 1e-4, 1e-5, 1e-6)  # steps of central differences, tried in this order until one agrees
# Relative tolerance; entries below FLOOR × largest gradient are compared absolutely.
# The complex step has rounding errors only, 1e-16 times the length of sums; fourth order has about (1e-16)^(4/5).
TOLERANCE = {"complex step": 1e-9, "central differences": 1e-6}
FLOOR = {"complex step": 1e-5, "central differences": 1e-3}


def gradcheck(f: Callable, *inputs: Any, order: int = 1, method: str = "auto", tolerance: float | None = None,
              max_entries: int = 64, directions: int = 8, rng: Any = 0, raise_error: bool = True,
              frozen: bool = False) -> GradcheckReport:
    """Check the gradients of f, a function or a Module, at the given inputs.

    f(*inputs) returns a tensor or any nesting of tensors. Inputs are any nesting of tuples, lists and dicts; their
    float leaves (arrays, tensors, numbers) are checked, others are passed unchanged. Leaf tensors that f closes over
    and that require gradients, such as a Module's parameters, are checked too. Everything is computed in float64;
    float32 rounding is measured separately. Inputs and parameters keep their values, also after an exception.

    order        1, or 2 to check the gradient of the gradient too
    method       "auto", "complex" or "central"
    tolerance    relative; by default 1e-9 for the complex step, 1e-6 for central differences
    max_entries  inputs up to this size are checked entry by entry, larger ones along random directions
    directions   the number of random directions
    rng          a seed or np.random.Generator, for weights and directions
    frozen       values that f detaches are constants, computed once at these inputs. A truncated gradient, which stops
                 where a state is detached, is then checked against the function with that state frozen

    Returns a `GradcheckReport`. Raises GradcheckError, with the report, if a gradient is wrong or if f is not
    differentiable at the inputs, not deterministic, or does not depend on them; with raise_error=False the first two
    are only reported. A kink passes if the rule gives the mean of both slopes, as |x|'(0) = 0.
    """
    if order not in (1, 2):
        raise ValueError(f"order is 1 or 2, not {order}")
    if method not in ("auto", "complex", "central"):
        raise ValueError(f"method is 'auto', 'complex' or 'central', not {method!r}")
    with Checked(f, inputs, np.random.default_rng(rng), Frozen() if frozen else None) as checked:
        outputs = checked.deterministic_outputs()
        why = "" if method == "central" else checked.unfit_for_complex(outputs, order)
        if method == "complex" and why:
            raise GradcheckError(f"the complex step cannot be used: {why}; use method='central'")
        name = "central differences" if method == "central" or why else "complex step"
        report = GradcheckReport(name, TOLERANCE[name] if tolerance is None else tolerance, why)
        for n in range(1, order + 1):
            checked.check(report, n, max_entries, directions)
        report.rounding = checked.rounding()
        if any(row.verdict == "wrong" for row in report.rows):
            checked.blame(report, order)
    if raise_error and not report.ok:
        row = report.worst
        place = f"{row.name}{list(row.index) if row.index else ''}"
        found = f"the gradient of {place} is wrong: derived {row.derived:.10g}, numeric {row.numeric:.10g}"
        if row.verdict != "wrong":
            found = f"the gradient of {place} is {row.verdict}"
        raise GradcheckError(f"{found}\n{report}", report)
    return report


class Checked:
    """f and its leaves, in float64: evaluates f with other values, and restores the parameters on exit."""

    def __init__(self, f: Callable, inputs: tuple, rng: np.random.Generator, frozen: Frozen | None):
        self.f, self.rng, self.frozen = f, rng, frozen
        self.given, self.pattern = flatten(inputs)
        names = [name for name, _ in named_leaves(named_arguments(f, inputs))]
        self.where = [i for i, x in enumerate(self.given) if is_float(x)]
        self.names = [names[i] for i in self.where]
        self.originals = [data_of(self.given[i]) for i in self.where]
        self.parameters: list[Tensor] = []
        self.kept: list[tuple[Tensor, np.ndarray]] = []

    def __enter__(self) -> Checked:
        """Find the parameters: f's named parameters, and the leaves behind the results that are not inputs."""
        self.context = contextlib.ExitStack()
        self.context.callback(recording.reset, recording.set(True))
        self.context.enter_context(np.errstate(all="ignore"))  # the report lists values that are not finite
        with self.context:
            outputs, fresh = self.run([np.array(x) for x in self.originals])
            named = dict(getattr(getattr(self.f, "__self__", self.f), "named_parameters", dict)())
            mine = {x._index for x in fresh}
            found = {x._index: x for x in [*named.values(), *behind(outputs)]
                     if x._tracked and x._op is None and x._index not in mine}
            self.parameters = [found[index] for index in sorted(found)]
            self.kept = [(x, x._array) for x in self.parameters]
            known = {id(x): name for name, x in named.items()}
            self.names += [known.get(id(x)) or x.name or f"parameter {i}" for i, x in enumerate(self.parameters)]
            self.originals += [x._array for x in self.parameters]
            self.values = [np.array(x, np.complex128 if x.dtype.kind == "c" else np.float64) for x in self.originals]
            if not self.values:
                raise GradcheckError("there is nothing to check: no input is a float, and f uses no tensor that "
                                     "requires gradients")
            self.context = self.context.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        for x, data in self.kept:
            x._array = data
        self.context.close()

    # -- evaluation -----------------------------------------------------------------------------------

    def run(self, values: list) -> tuple[list[Tensor], list[Tensor]]:
        """Call f with these values in its leaves; returns its float results as tensors, and the leaves."""
        fresh: list[Tensor] = []
        leaves: list[Any] = [np.array(x) if isinstance(x, np.ndarray) else wrap(x._array.copy())
                             if isinstance(x, Tensor) else x for x in self.given]
        for i, value in zip(self.where, values):
            leaves[i] = wrap(np.array(value), tracked=True)
            fresh.append(leaves[i])
        for x, value in zip(self.parameters, values[len(self.where):]):
            x._array = value
        y = self.f(*unflatten(self.pattern, leaves))
        outputs = [leaf if isinstance(leaf, Tensor) else wrap(np.asarray(leaf)) for leaf in flatten(y)[0]]
        return [y for y in outputs if y._array.dtype.kind in "fc"], fresh + self.parameters

    def deterministic_outputs(self) -> list[Tensor]:
        """The results of f. Raises GradcheckError unless two calls agree and the results are tracked and finite."""
        outputs, _ = self.run(self.values)
        again, _ = self.run(self.values)
        if self.frozen is not None:
            with self.frozen:  # records the detached values
                self.run(self.values)
        if len(outputs) != len(again) or not all(np.array_equal(one._array, other._array, equal_nan=True)
                                                 for one, other in zip(outputs, again)):
            raise GradcheckError("f is not deterministic: two calls with the same inputs gave different results; "
                                 "seed its randomness, reset any state it keeps, and build modules outside of it")
        if not any(y._tracked for y in outputs):
            raise GradcheckError("the results of f do not depend on any input through recorded ops: f must compute "
                                 "with the tensors it is given")
        if not all(np.isfinite(y._array).all() for y in outputs):
            raise GradcheckError("f is not finite at these inputs: choose others, or find the place with "
                                 "mg.detect_anomaly()")
        self.weights = [self.away_from_zero(y._array.shape) for y in outputs]
        self.mixture = [self.away_from_zero(x.shape) for x in self.values]
        return outputs

    def away_from_zero(self, shape: tuple) -> np.ndarray:
        """Random numbers of either sign, at least 0.5 in size, so each entry counts."""
        return self.rng.uniform(0.5, 1.5, shape) * self.rng.choice([-1.0, 1.0], shape)

    def phi(self, values: list, order: int) -> complex:
        """The number to differentiate: φ = Σ u y for order 1, ψ = Σ w dφ/dx for order 2."""
        with self.frozen or contextlib.nullcontext():
            if order == 2:
                return sum(np.sum(w * g) for w, g in zip(self.mixture, self.gradients(values, 1)))
            with no_grad():
                outputs, _ = self.run(values)
        return sum(np.sum(u * y._array) for u, y in zip(self.weights, outputs))

    def gradients(self, values: list, order: int) -> list[np.ndarray]:
        """The engine's gradients of φ (order 1) or ψ (order 2) for every leaf."""
        outputs, leaves = self.run(values)
        if order == 1:
            found = sweep(outputs, [u.astype(y._array.dtype) for u, y in zip(self.weights, outputs)], leaves)
        else:
            psi = self.psi(outputs, leaves)
            found = sweep([psi], [np.ones((), psi._array.dtype)], leaves) if psi is not None else {}
        return [np.asarray(found.get(x._index, np.zeros(x._array.shape))) for x in leaves]

    def psi(self, outputs: list[Tensor], leaves: list[Tensor]) -> Tensor | None:
        """ψ = Σ w dφ/dx as a tensor whose graph includes the backward pass; None if it is constant."""
        seeds = [wrap(u.astype(y._array.dtype)) for u, y in zip(self.weights, outputs)]
        first = sweep(outputs, seeds, leaves, graph=True)
        terms = [total(multiply(first[x._index], w)) for x, w in zip(leaves, self.mixture) if x._index in first]
        terms = [term for term in terms if isinstance(term, Tensor) and term._tracked]
        return sum(terms[1:], terms[0]) if terms else None

    def unfit_for_complex(self, outputs: list[Tensor], order: int) -> str:
        """The reason why the complex step cannot be used, or ''."""
        blocked = sorted({node._op.name for node in nodes_behind(outputs) if not node._op.analytic})
        if blocked:
            return f"{', '.join(blocked)} does not take the complex step"
        if any(x.dtype.kind == "c" for x in self.values):
            return "the inputs are complex"
        along = {k: self.away_from_zero(x.shape) / np.sqrt(max(1, x.size)) for k, x in enumerate(self.values)}
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            try:
                for n in range(1, order + 1):
                    scale = 1e-3 * abs(self.phi(self.values, n)) + 1e-10  # if all is 0, rounding does not count
                    if self.central_slope(along, n, self.complex_slope(along, n), scale, 1e-6)[1] > 1e-5:
                        return "the complex step does not see all of f, or there is a kink"
            except Exception as problem:  # f took real values before, so complex ones are the cause
                return f"f does not take complex numbers: {problem}"
        return ""

    # -- comparison -----------------------------------------------------------------------------------

    def check(self, report: GradcheckReport, order: int, max_entries: int, directions: int) -> None:
        """Compare the gradient of each leaf, and add a row for it to the report."""
        derived = self.gradients(self.values, order)
        largest = max([float(np.max(np.abs(g), initial=0.0)) for g in derived] + [abs(self.phi(self.values, order))])
        for k, (name, x, g) in enumerate(zip(self.names, self.values, derived)):
            scale = 1e-3 * float(np.max(np.abs(g), initial=0.0)) + FLOOR[report.method] * largest
            leaf = Leaf(self, report, k, g, order, scale)
            if x.size <= max_entries:
                row = Row(order, name, x.shape, f"{x.size} entries")
                for i in range(x.size):
                    leaf.compare(row, *unit(x.shape, i))
            else:
                row = Row(order, name, x.shape, f"{directions} directions")
                for _ in range(directions):
                    v = self.away_from_zero(x.shape) / np.sqrt(x.size)
                    leaf.compare(row, None, v)
                    if row.verdict != "ok":
                        leaf.compare(row, *unit(x.shape, leaf.culprit(v)))
                        break
            report.rows.append(row)

    def complex_slope(self, along: dict[int, np.ndarray], order: int) -> float:
        """The derivative of φ or ψ by the complex step."""
        return self.shifted(along, 1j * COMPLEX_STEP, order).imag / COMPLEX_STEP

    def central_slope(self, along: dict[int, np.ndarray], order: int, derived: complex, scale: float, enough: float
                      ) -> tuple[complex, float]:
        """(derivative by central differences, its relative error against `derived`), with the best of STEPS or the
        first whose error is at most `enough`."""
        best: tuple[complex, float] = (np.nan, np.inf)
        size = max([1.0, *(float(np.max(np.abs(self.values[k] * v), initial=0.0)) for k, v in along.items())])
        for h in STEPS:
            h *= size
            f1, f2, f_1, f_2 = (self.shifted(along, n * h, order) for n in (1, 2, -1, -2))
            numeric = (8 * (f1 - f_1) - (f2 - f_2)) / (12 * h)
            if relative(derived, numeric, scale) < best[1]:
                best = numeric, relative(derived, numeric, scale)
            if best[1] <= enough:
                break
        return best

    def shifted(self, along: dict[int, np.ndarray], h: complex, order: int) -> complex:
        """φ or ψ with h v added to leaf k, for each item k: v of `along`."""
        values = [x + h * along[k] if k in along else x for k, x in enumerate(self.values)]
        if isinstance(h, complex):  # make every leaf complex, since parameters may be views of one another
            values = [x + 0j for x in values]
        return self.phi(values, order)

    def rounding(self) -> float | None:
        """The largest difference of the float32 gradient from the float64 one, relative to its largest entry; None
        without float32 or float16 leaves."""
        if not any(x.dtype in (np.float32, np.float16) for x in self.originals):
            return None
        exact, rounded = self.gradients(self.values, 1), self.gradients(self.originals, 1)
        return max((float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in zip(exact, rounded)
                    if a.size and np.max(np.abs(a)) > 0), default=0.0)

    # -- blame ----------------------------------------------------------------------------------------

    def blame(self, report: GradcheckReport, order: int) -> None:
        """Check every rule behind the results by itself, at the values that it was called with: first with each scan
        run as a loop, which shows the rules in its cell, and if these are right, with the scan as one op."""
        with CallSites() as sites:
            nodes = self.nodes(order)
        calls = [sites.calls[node._index] for node in nodes if node._index in sites.calls]
        wrong = wrong_rules(calls, self.rng) or wrong_rules(scan_calls(self.nodes(order)), self.rng)
        for rule, (count, found) in sorted(wrong.items(), key=lambda item: -item[1][1][0][0]):
            error, call = found[0]
            report.blamed.append((rule, error))
            if len(found) < count:
                place = call.location
                report.locations[rule] = f"in {len(found)} of {count} calls" + (f", as {place}" if place else "")

    def nodes(self, order: int) -> list[Node]:
        """The recorded nodes behind the results and, for order 2, behind their gradients."""
        outputs, leaves = self.run(self.values)
        psi = self.psi(outputs, leaves) if order == 2 else None
        return nodes_behind(outputs if psi is None else [*outputs, psi])


class Frozen(CallSites):
    """A watcher under which `detach()` returns the values of the first evaluation, call by call."""

    def __init__(self) -> None:
        self.values: list[np.ndarray] = []
        self.at: int | None = None

    def __enter__(self) -> Frozen:
        self.at = 0 if self.values else None
        return super().__enter__()

    def __call__(self, op: Op, inputs: tuple, arrays: Any, metadata: dict, tracked: bool) -> Any:
        return unwatched(op, inputs, arrays, metadata, tracked)

    def detached(self, x: Tensor) -> Tensor:
        data = x._array
        if self.at is None:
            self.values.append(np.array(data))
            return wrap(data)
        if self.at == len(self.values) or self.values[self.at].shape != data.shape:
            raise GradcheckError("f detaches other values when its inputs change a little: with frozen=True the calls "
                                 "of detach() must be the same, and in the same order")
        self.at += 1
        return wrap(self.values[self.at - 1].astype(data.dtype, copy=False))


@dataclass
class Leaf:
    """One leaf of a check: its number k, its derived gradient g, and the scale below which differences are absolute."""

    checked: Checked
    report: GradcheckReport
    k: int
    g: np.ndarray
    order: int
    scale: float

    def compare(self, row: Row, index: tuple[int, ...] | None, v: np.ndarray) -> None:
        """Compare the slopes along v; store them in the row if they are the worst so far, or an entry after a
        direction."""
        derived, numeric, error = self.slopes(v)
        if not np.isfinite(derived):
            verdict = "not finite here"
        else:
            verdict = "ok" if error <= self.report.tolerance else self.kink(v) or "wrong"
        if (row.derived is None or (row.index is None and index is not None and verdict != "ok")
                or (verdict != "ok", error) > (row.verdict != "ok", row.error)):
            row.index, row.verdict, row.error = index, verdict, error
            row.derived, row.numeric = float(np.real(derived)), float(np.real(numeric))

    def slopes(self, v: np.ndarray) -> tuple[complex, complex, float]:
        """(derived, numeric, relative error) of the derivative along v."""
        derived, along = np.sum(self.g[v != 0] * v[v != 0]), {self.k: v}
        if not np.isfinite(derived):
            return derived, np.nan, np.inf
        if self.report.method == "complex step":
            numeric = self.checked.complex_slope(along, self.order)
            return derived, numeric, relative(derived, numeric, self.scale)
        return derived, *self.checked.central_slope(along, self.order, derived, self.scale, self.report.tolerance / 10)

    def culprit(self, v: np.ndarray) -> int:
        """The number of a wrong entry, found by halving a direction along which the gradient is wrong."""
        numbers = np.arange(v.size)
        while numbers.size > 1:
            errors = []
            for half in np.array_split(numbers, 2):
                part = np.zeros(v.size)
                part[half] = v.flat[half] * np.sqrt(v.size / half.size)
                errors.append((self.slopes(part.reshape(v.shape))[2], half))
            numbers = max(errors, key=lambda pair: pair[0])[1]
        return int(numbers[0])

    def kink(self, v: np.ndarray) -> str:
        """The verdict if the slopes from the left and from the right differ, also at a smaller step; otherwise ''."""
        middle = self.checked.phi(self.checked.values, self.order)
        gaps = []
        for h in (1e-5, 1e-6):
            right = np.real(self.checked.shifted({self.k: v}, h, self.order) - middle) / h
            left = np.real(middle - self.checked.shifted({self.k: v}, -h, self.order)) / h
            gaps.append(abs(right - left))
        if gaps[1] > 0.5 * gaps[0] and gaps[1] > 0.01 * max(abs(left), abs(right), self.scale):
            return f"not differentiable here, its slope {left:.4g} from below and {right:.4g} from above"
        return ""


def named_arguments(f: Callable, inputs: tuple) -> dict[str, Any]:
    """The inputs by the names of f's parameters, or numbered."""
    try:
        bound = inspect.signature(f).bind(*inputs)
    except (TypeError, ValueError):
        return {f"input {i}": x for i, x in enumerate(inputs)}
    return dict(bound.arguments)


def is_float(x: Any) -> bool:
    """True for a leaf of real or complex floats, which is checked."""
    return isinstance(x, (Tensor, np.ndarray, np.generic, float, complex)) and data_of(x).dtype.kind in "fc"


def unit(shape: tuple, i: int) -> tuple[tuple[int, ...], np.ndarray]:
    """(index of the i-th entry, unit direction along it)"""
    v = np.zeros(shape)
    index = tuple(int(n) for n in np.unravel_index(i, shape))
    v[index] = 1.0
    return index, v
