"""Optimisers: how gradients change parameters. PyTorch's formulas, argument names and defaults.

A formula is written once, for a flat array: it turns gradients into the update to subtract. The gradients of all
parameters of one dtype are concatenated, so a hundred parameters need as few NumPy calls as one. The parameters keep
their own arrays: a step subtracts from their data in place, which counts as a change (`Tensor.data`).

Schedules are functions of the step, counted from 0: `optimizer.lr = schedule(step)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from minigrad.engine.tensor import Tensor, describe
from minigrad.nn.signature import CheckedCall, options_of
from minigrad.nn.state_dict import with_shapes


class Optimizer(CheckedCall):
    """Base class of all optimisers. For your own formula, subclass it, name the arrays that it keeps from step to step
    in `moments`, and write `change`.

    parameters    the tensors to train, leaves that require gradients; one whose grad is None does not change
    lr            the step size; may be assigned at any time
    weight_decay  this times the parameters is added to their gradients (L2)
    decoupled     True: subtract lr · weight_decay · parameters with the update instead, as AdamW does

    Raises TypeError for a parameter that is not a tensor, ValueError for an empty list, for a parameter that is given
    twice or cannot be trained, and for numbers out of their range.
    """

    moments: tuple[str, ...] = ()
    decoupled = False

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0):
        self.parameters = trainable(type(self).__name__, params)
        self.lr, self.weight_decay = self.number("lr", lr), self.number("weight_decay", weight_decay)
        self.steps = [0] * len(self.parameters)
        kinds: dict[np.dtype, list[int]] = {}
        for i, p in enumerate(self.parameters):
            kinds.setdefault(p.dtype, []).append(i)
        self.flats = [Flat(members, self.parameters, self.moments) for members in kinds.values()]

    def change(self, g: np.ndarray, steps: int, work: np.ndarray, *moments: np.ndarray) -> None:
        """Turn gradients into the update to subtract from the parameters, in place.

        g        the gradients, flat and concatenated; overwritten by the update
        steps    the number of steps of these parameters, including this one
        work     scratch array of g's shape
        moments  arrays of g's shape, in the order of `moments`, initially 0; update them in place
        """
        raise NotImplementedError(f"{type(self).__name__} has no formula yet: write its method change")

    def __repr__(self) -> str:
        given = {name: vars(self)[name] for name in options_of(type(self)) if name in vars(self)}
        settings = [f"{name}={x:.6g}" if type(x) is float else f"{name}={x!r}" for name, x in given.items()]
        count, size = len(self.parameters), sum(p.size for p in self.parameters)
        return (f"{type(self).__name__}({', '.join(settings)}): {count} parameter{'s' * (count != 1)} of {size:,} "
                f"numbers, {max(self.steps)} steps taken")

    def zero_grad(self) -> None:
        """Set the grad of every parameter to None."""
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        lr = self.lr = self.number("lr", self.lr)
        found = [(flat, *run) for flat in self.flats for run in flat.runs(self.parameters, self.steps)]
        for flat, run, part in found:
            np.concatenate([self.parameters[i].grad.ravel() for i in run], out=flat.g[part])
        for flat, run, part in found:
            g, parameters = flat.g[part], [self.parameters[i] for i in run]
            decay = self.weight_decay and np.concatenate([p.data.ravel() for p in parameters], dtype=g.dtype)
            if self.weight_decay and not self.decoupled:
                decay *= self.weight_decay
                g += decay
            self.change(g, self.steps[run[0]] + 1, flat.work[:g.size], *[m[part] for m in flat.moments.values()])
            if self.weight_decay and self.decoupled:
                decay *= lr * self.weight_decay
                g += decay
            for i, p in zip(run, parameters):
                self.steps[i] += 1
                p.data = np.subtract(p.data, flat.views[i], out=p.data if p.data.flags.writeable else None)

    # -- saving -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Copies of lr, the number of steps of each parameter, and the moments in the parameters' shapes: "exp_avg.0"
        for the first. Settings that no step or schedule changes are not included."""
        return {"lr": self.lr, "steps": np.array(self.steps),
                **{name: array.copy() for name, array in self.named_moments().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict()` of an optimiser of this kind over parameters of these shapes.

        Raises ValueError, and changes nothing, unless names and shapes are exactly those of `state_dict()`.
        """
        moments, kind = self.named_moments(), type(self).__name__
        shapes = {"lr": (), "steps": (len(self.steps),), **{name: array.shape for name, array in moments.items()}}
        state = with_shapes(state, shapes, kind)
        steps = state["steps"]
        if steps.dtype.kind not in "iu" or steps.min() < 0:
            raise ValueError(f"{kind} counts steps by integers ≥ 0, not {steps.tolist()}")
        if odd := [name for name in moments if state[name].dtype.kind not in "fiu"]:
            raise ValueError(f"{kind} keeps real numbers, and {odd[0]} is {state[odd[0]].dtype}")
        self.lr, self.steps = self.number("lr", state["lr"].item()), steps.tolist()
        for name, array in moments.items():
            array[...] = state[name]

    def named_moments(self) -> dict[str, np.ndarray]:
        """Views of the moments, by name and number of the parameter."""
        return {f"{name}.{i}": flat.moments[name][part].reshape(self.parameters[i].shape) for name in self.moments
                for flat in self.flats for i, part in flat.parts.items()}

    def number(self, name: str, value: Any, top: float = math.inf) -> float:
        """A setting as a Python float, which keeps float32 arrays float32. Raises ValueError unless 0 ≤ value < top."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0.0 <= number < top:
            limit = "a finite number ≥ 0" if top == math.inf else f"a number from 0 to less than {top:g}"
            raise ValueError(f"{type(self).__name__} takes {name} as {limit}, not {value!r}")
        return number


class Flat:
    """Flat buffers for the parameters of one dtype: gradients, which `change` turns into the update, and moments."""

    def __init__(self, members: list[int], parameters: list[Tensor], moments: tuple[str, ...]):
        self.parts, start = {}, 0
        for i in members:
            self.parts[i] = slice(start, start := start + parameters[i].size)
        dtype = np.result_type(parameters[members[0]].dtype, np.float32)  # in float16, eps and g² would be 0 or inf
        self.g, self.work = np.empty(start, dtype), np.empty(start, dtype)
        self.moments = {name: np.zeros(start, dtype) for name in moments}
        self.shapes = {i: parameters[i].shape for i in members}

    @cached_property
    def views(self) -> dict[int, np.ndarray]:
        """A view of g for each parameter, in its shape."""
        return {i: self.g[self.parts[i]].reshape(shape) for i, shape in self.shapes.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Without the views, which copy and pickle would turn into arrays of their own."""
        return {name: value for name, value in vars(self).items() if name != "views"}

    def runs(self, parameters: list[Tensor], steps: list[int]) -> list[tuple[list[int], slice]]:
        """(parameters, slice of the buffers) for each run of neighbours with gradients and equal step counts: usually
        one run of all."""
        alike = groupby(self.parts, lambda i: None if parameters[i].grad is None else steps[i])
        runs = [list(run) for count, run in alike if count is not None]
        return [(run, slice(self.parts[run[0]].start, self.parts[run[-1]].stop)) for run in runs]


def trainable(who: str, params: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list. Raises TypeError or ValueError unless each is a trainable leaf, listed once."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(f"{who} takes a list of tensors, such as model.parameters(), not a {type(params).__name__}")
    parameters = list(params)
    if not parameters:
        raise ValueError(f"{who} was given no parameters: pass the tensors to train")
    for i, p in enumerate(parameters):
        if not isinstance(p, Tensor):
            raise TypeError(f"{who} takes tensors, as model.parameters() lists them, and number {i} is a "
                            f"{type(p).__name__}")
        if not (p.is_leaf and p.requires_grad and p.dtype.kind == "f"):
            raise ValueError(f"{who} cannot train number {i}, {describe(p)}: parameters are real leaf tensors that "
                             "require gradients")
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError(f"{who} was given a parameter twice: list each once")
    return parameters


# -- the formulas -------------------------------------------------------------------------------------------------


class SGD(Optimizer):
    """Stochastic gradient descent, plain or with momentum:

        b ← g at the first step, then momentum · b + (1 − dampening) g
        p ← p − lr · b, with Nesterov p − lr (g + momentum · b)

    PyTorch's momentum: lr is not part of b. Sutskever et al. 2013. Nesterov needs momentum, and no dampening.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False):
        self.momentum = self.number("momentum", momentum)
        self.dampening = self.number("dampening", dampening)
        self.nesterov = nesterov
        if nesterov and not (self.momentum and not self.dampening):
            raise ValueError(f"SGD takes nesterov=True with a momentum > 0 and no dampening, not {momentum} and "
                             f"{dampening}")
        self.moments = ("momentum_buffer",) if self.momentum else ()
        super().__init__(params, lr, weight_decay)

    def change(self, g, steps, work, b=None):
        if b is not None:
            b *= self.momentum
            b += g if steps == 1 else np.multiply(g, 1 - self.dampening, out=work)
            if self.nesterov:
                g += np.multiply(b, self.momentum, out=work)
            else:
                g[...] = b
        g *= self.lr


class RMSprop(Optimizer):
    """Divide each gradient by its running root mean square (Tieleman & Hinton 2012, lecture 6.5):

        v ← alpha · v + (1 − alpha) g²          p ← p − lr · g / (√v + eps)

    momentum  b ← momentum · b + g / (√v + eps), and p ← p − lr · b
    centered  √(v − m²) in place of √v, m the running mean of g (Graves 2013); if rounding makes v < m² this is 0,
              where PyTorch gives NaN
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False):
        self.alpha, self.eps = self.number("alpha", alpha, 1), self.number("eps", eps)
        self.momentum, self.centered = self.number("momentum", momentum), centered
        self.moments = ("square_avg", *["grad_avg"] * bool(centered), *["momentum_buffer"] * bool(self.momentum))
        super().__init__(params, lr, weight_decay)

    def change(self, g, steps, work, v, *rest):
        v *= self.alpha
        np.multiply(g, g, out=work)
        work *= 1 - self.alpha
        v += work
        if self.centered:
            m = rest[0]
            m *= self.alpha
            m += np.multiply(g, 1 - self.alpha, out=work)
            np.multiply(m, m, out=work)
            np.subtract(v, work, out=work)
            np.maximum(work, 0.0, out=work)
            np.sqrt(work, out=work)
        else:
            np.sqrt(v, out=work)
        work += self.eps
        g /= work
        if self.momentum:
            b = rest[-1]
            b *= self.momentum
            b += g
            g[...] = b
        g *= self.lr


class Adagrad(Optimizer):
    """Divide each gradient by the root of the sum of all its squares (Duchi, Hazan & Singer 2011):

        v ← v + g²          p ← p − lr / (1 + (t − 1) lr_decay) · g / (√v + eps)

    v starts at initial_accumulator_value; t counts steps from 1.
    """

    moments = ("sum",)

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10):
        self.lr_decay, self.eps = self.number("lr_decay", lr_decay), self.number("eps", eps)
        super().__init__(params, lr, weight_decay)
        for v in self.named_moments().values():
            v[...] = self.number("initial_accumulator_value", initial_accumulator_value)

    def change(self, g, steps, work, v):
        v += np.multiply(g, g, out=work)
        np.sqrt(v, out=work)
        work += self.eps
        g /= work
        g *= self.lr / (1 + (steps - 1) * self.lr_decay)


class Adam(Optimizer):
    """Take steps of about lr from running means of the gradient and of its square (Kingma & Ba 2015, algorithm 1):

        m ← β₁ m + (1 − β₁) g      v ← β₂ v + (1 − β₂) g²
        p ← p − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + eps)

    betas (β₁, β₂); t counts the steps of each parameter from 1.
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0):
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{type(self).__name__} takes betas as two numbers, not {betas!r}")
        self.betas = tuple(self.number(f"betas[{i}]", beta, 1) for i, beta in enumerate(betas))
        self.eps = self.number("eps", eps)
        super().__init__(params, lr, weight_decay)

    def change(self, g, steps, work, m, v):
        beta1, beta2 = self.betas
        m *= beta1
        m += np.multiply(g, 1 - beta1, out=work)
        v *= beta2
        g *= g
        g *= 1 - beta2
        v += g
        root = math.sqrt(1 - beta2 ** steps)  # factored out of the denominator, which saves a pass over v
        np.sqrt(v, out=g)
        g += self.eps * root
        np.divide(m, g, out=g)
        g *= self.lr * root / (1 - beta1 ** steps)


class AdamW(Adam):
    """Adam with weight decay outside the moments: p ← p − lr · weight_decay · p − Adam's update. Loshchilov & Hutter
    2019."""

    decoupled = True

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)


# -- clipping -----------------------------------------------------------------------------------------------------


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor to a common norm of at most max_norm; returns the norm before.

    The factor is max_norm / (norm + 1e-6), as in PyTorch; max_norm=math.inf only measures. If the norm is not finite,
    nothing is scaled. Raises ValueError for a max_norm that is negative or NaN.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm takes a max_norm ≥ 0, not {max_norm!r}")
    clipped = [p for p in ([parameters] if isinstance(parameters, Tensor) else parameters) if p.grad is not None]
    gradients = [p.grad.astype(np.float32) if p.grad.dtype == np.float16 else p.grad for p in clipped]
    norm = math.sqrt(sum(float(np.vdot(g, g).real) for g in gradients))
    if norm == math.inf:  # perhaps only the squares overflow: in float32 from 10¹⁹ on
        norm = math.hypot(*(float(np.linalg.norm(p.grad.ravel().astype(float))) for p in clipped))
    factor = max_norm / (norm + 1e-6)
    if factor < 1 and math.isfinite(norm):
        for p in clipped:
            wide = np.result_type(p.grad.dtype, np.float32)  # in float16 the factor itself may be 0
            p.grad = np.multiply(p.grad, factor, dtype=wide).astype(p.grad.dtype, copy=False)
    return norm


# -- schedules: lr as a function of the step ----------------------------------------------------------------------

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """lr at every step."""
    return lambda step: lr


def step_decay(lr: float, every: int, factor: float) -> Schedule:
    """lr · factor^⌊step / every⌋: multiplied by the factor after each `every` steps. Raises ValueError if every < 1."""
    if every < 1:
        raise ValueError(f"step_decay takes every ≥ 1 steps, not {every}")
    return lambda step: lr * factor ** (step // every)


def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """From lr at step 0 along half a cosine to `final` at `steps`, then constant (Loshchilov & Hutter 2017, without
    restarts). Raises ValueError if steps < 1."""
    if steps < 1:
        raise ValueError(f"cosine takes steps ≥ 1, not {steps}")
    return lambda step: final + (lr - final) * (0.5 + 0.5 * math.cos(math.pi * min(step / steps, 1.0)))


def warm_up(steps: int, schedule: Schedule) -> Schedule:
    """The schedule, multiplied by (step + 1) / steps during the first `steps` steps. Raises ValueError if steps < 0."""
    if steps < 0:
        raise ValueError(f"warm_up takes steps ≥ 0, not {steps}")
    return lambda step: schedule(step) * min(1.0, (step + 1) / max(1, steps))
