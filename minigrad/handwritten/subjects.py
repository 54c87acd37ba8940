"""A hand-written backward with its forward, and how to call the two.

However it is written, a *subject* has the same two methods: `forward(namespace, inputs)` → (outputs, memory) and
`backward(namespace, memory, d_outputs)` → {input: gradient}. Each class here is one way in which people write them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigrad.document import lstm_cell_forward
from minigrad.engine.pytree import flatten, unflatten
from minigrad.engine.tensor import Tensor
from minigrad.handwritten import references as true
from minigrad.handwritten.source import CouldNotRun, Source

D, H, N, T, V = 4, 5, 2, 3, 6  # inputs, hidden units, examples, steps, classes: all different, to tell shapes apart
GATES = {name: (H, H + D) if name[0] == "W" else (H, 1) for name in ("Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo")}
COURSE_LSTM = {**GATES, "Wy": (V, H), "by": (V, 1)}
COURSE_RNN = {"Wax": (H, D), "Waa": (H, H), "Wya": (V, H), "ba": (H, 1), "by": (V, 1)}
SIZES = {"N": N, "T": T, "D": D, "H": H, "V": V, "1": 1}
SAME_SIZES = {**SIZES, "D": H}
LABELS = np.array([[1, 4, 0], [5, 2, 3]])
WORDS = np.array([[1, 4, 1], [5, 1, 3]])  # an index that occurs more than once
MASK = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
CHARS, NEXT = [0, 3, 1, 3], [3, 1, 3, 5]
COURSE_CELLS: dict[str, Callable] = {"rnn_cell_forward": true.rnn_cell_forward, "lstm_cell_forward": lstm_cell_forward}


@dataclass
class Subject:
    """A hand-written backward and its forward; `references` are the true forwards that it may belong to."""

    name: str  # of the backward
    convention: str
    inputs: dict[str, tuple[int, ...]]
    references: list[Callable] = field(default_factory=list)
    arriving: tuple[int, ...] = (0,)  # the outputs whose gradients the backward gets
    silent: tuple[str, ...] = ()  # inputs whose gradients it does not return
    cell: str | None = None  # the backward of one step that a sequence's backward calls
    forward_name: str = ""
    time: int | None = None  # the axis of time of a sequence
    names: tuple[str, ...] = ()  # of what the backward returns, where it is a tuple
    weights: tuple[str, ...] = ()  # of a class: the arguments of its constructor
    clips: bool = False  # whether np.clip may clip in a function that always does
    known: list[Callable] = field(default_factory=list)  # true forwards that it may belong to, and need not

    @property
    def needs(self) -> tuple[str, ...]:
        """The names that the file must define."""
        return self.name, self.forward_name

    @property
    def given(self) -> dict[str, Any]:
        """The names that are set for the file."""
        return {}

    def forward(self, namespace: dict[str, Any], inputs: dict[str, np.ndarray]) -> tuple[tuple, Any]:
        raise NotImplementedError

    def backward(self, namespace: dict[str, Any], memory: Any, d_outputs: list[np.ndarray]) -> dict[str, Any]:
        raise NotImplementedError

    def named(self, result: Any, order: Iterable[str] | None = None) -> dict[str, Any]:
        """What a backward returned, by the names of the inputs; a tuple without names has `order`."""
        wanted = [name for name in (self.inputs if order is None else order) if name not in self.silent]
        if isinstance(result, dict):
            plain = {name.replace("_", "").lower() if len(name) > 2 else name: name for name in wanted}
            aliases = {"x": "xt", "dx": "xt"} | {name: name for name in wanted}
            found = {}
            for key, value in result.items():
                short = str(key)[1:] if str(key).startswith("d") else str(key)
                name = aliases.get(short) or plain.get(short.replace("_", "").lower())
                if name in wanted:
                    found[name] = value
            return found
        result = result if isinstance(result, (tuple, list)) else (result,)
        if any(isinstance(one, dict) for one in result):  # dx, dh, {"W": dW}
            found = {name: d for one in result if isinstance(one, dict) for name, d in self.named(one).items()}
            rest = [one for one in result if not isinstance(one, dict)]
            return found | dict(zip([name for name in wanted if name not in found], rest))
        is_named = set(self.names) <= set(self.inputs) and len(self.names) == len(result)
        if len(result) > len(wanted):
            wanted = list(self.inputs)
        return dict(zip(self.names if is_named else wanted, result))


class Course(Subject):
    """forward(x, *states, parameters) → (*outputs, cache), backward(*d_outputs, cache) → dict, features first.

    c0: the cell state before a sequence. The course's forward has zero there, and a zero hides faults: the first step
    adds nothing to dWf. So the audit makes the caches with the user's cell, from another c0.
    """

    c0: Any = None

    def forward(self, namespace, inputs):
        weights = COURSE_RNN if "Wax" in inputs else COURSE_LSTM
        parameters = {name: inputs[name] for name in weights}
        arguments = [value for name, value in inputs.items() if name not in weights]
        forward = namespace[self.forward_name]
        if self.c0 is not None:
            forward = self.loop(namespace, self.c0)
        *outputs, cache = forward(*arguments, parameters)
        return tuple(outputs), (cache, parameters)

    def loop(self, namespace: dict[str, Any], c0: Any = 0.0) -> Callable:
        """The true loop over the cell of this namespace."""
        cell = (self.cell or self.name).replace("backward", "forward")
        return true.course_loop(lambda *args: namespace[cell](*args), 2 if cell.startswith("lstm") else 1, c0)

    def backward(self, namespace, memory, d_outputs):
        return self.named(namespace[self.name](*d_outputs, memory[0]))

    def true_forwards(self, namespace: dict[str, Any]) -> dict[str, Callable]:
        """The course's own two forwards; that of the sequence calls the cell of this namespace."""
        cell = (self.cell or self.name).replace("backward", "forward")
        return {cell: COURSE_CELLS[cell], cell.replace("_cell", ""): self.loop(namespace)}


class Positional(Subject):
    """forward(*inputs) → (*outputs, cache), backward(*d_outputs, cache) → tuple, batch first."""

    def forward(self, namespace, inputs):
        before = [WORDS] if "embedding" in self.forward_name else []
        after = [{"mode": "train"}] if "norm" in self.forward_name else []
        *outputs, cache = namespace[self.forward_name](*before, *inputs.values(), *after)
        return tuple(outputs), (cache, inputs)

    def backward(self, namespace, memory, d_outputs):
        return self.named(namespace[self.name](*d_outputs, memory[0]))


class Together(Subject):
    """loss, dx = f(x, labels): the loss and its gradient in one function."""

    def forward(self, namespace, inputs):
        x = inputs["x"]
        labels = (LABELS, MASK.copy()) if x.ndim == 3 else (LABELS[:, 0],)
        loss, *gradients = namespace[self.name](x, *labels)
        return (loss,), gradients

    def backward(self, namespace, memory, d_outputs):
        return {name: scaled(d_outputs[0], value) for name, value in self.named(memory).items()}


@dataclass
class LossFun(Together):
    """lossFun(inputs, targets, *states) → loss, gradients, states, as in min-char-rnn: its weights are globals."""

    sizes: dict[str, int] = field(default_factory=dict)  # the globals that are sizes

    @property
    def given(self):
        """The weights, the sizes, and a text in place of any file that is opened."""
        return {**dict.fromkeys(self.weights), **self.sizes, "open": lambda *_, **__: io.StringIO("abcdef" * 9)}

    def forward(self, namespace, inputs):
        namespace |= {name: inputs[name] for name in self.weights}
        if not self.clips:
            without_clip(namespace)
        result = namespace[self.name](list(CHARS), list(NEXT), *(inputs[name] for name in self.silent))
        loss, *gradients = result if isinstance(result, tuple) else (result,)
        dicts = [d for d in gradients if isinstance(d, dict)]
        return (loss,), dicts[0] if dicts else gradients[:len(self.weights)]


def without_clip(namespace: dict[str, Any]) -> None:
    for name in [name for name, value in namespace.items() if value is np]:
        namespace[name] = Unclipped(np)


class Unclipped:
    """NumPy, with a `clip` that returns its argument."""

    def __init__(self, numpy: Any):
        self.numpy = numpy

    def __getattr__(self, name: str) -> Any:
        return getattr(self.numpy, name)

    def clip(self, x: Any, *_: Any, **__: Any) -> Any:
        return x


@dataclass
class Layer(Subject):
    """A class: C(weights or sizes), forward(*xs) → outputs, backward(*d_outputs) → d_xs.

    The gradients of its weights are in `grads` (a list or a dict), in attributes such as dW, or returned.
    """

    order: tuple[str, ...] = ()  # the parameters of forward
    constants: dict[str, np.ndarray] = field(default_factory=dict)  # those of them that are not floats
    made_from: tuple = ()  # the arguments of the constructor: names of weights, and sizes
    arrive: int = 1  # how many gradients backward takes

    def forward(self, namespace, inputs):
        layer = namespace[self.name](*(inputs[one] if isinstance(one, str) else one for one in self.made_from))
        for name, _, put in weights_of(layer):
            if name in inputs:
                put(inputs[name])
        return self.outputs(layer, inputs)

    def outputs(self, layer: Any, inputs: dict[str, Any]) -> tuple[tuple, Any]:
        """The outputs of an instance, and what its backward needs."""
        result = layer.forward(*(self.constants[name] if name in self.constants else inputs[name]
                                 for name in self.order))
        result = result if isinstance(result, tuple) else (result,)
        outputs = tuple(y for y in result if isinstance(y, (np.ndarray, Tensor, float, np.number)))
        self.arriving = tuple(range(max(1, min(self.arrive, len(outputs)))))
        return outputs, (layer, inputs, [y for y in result if not any(y is z for z in outputs)])

    def backward(self, namespace, memory, d_outputs):
        layer, _, caches = memory
        for name in dir(layer):
            if re.match(r"(zero|clear|reset)_?grad", name):
                getattr(layer, name)()
        is_loss = all(np.ndim(d) == 0 for d in d_outputs)  # its gradient is 1 to whoever writes backward(dout=1)
        result = layer.backward(*([] if is_loss and not self.arrive else d_outputs), *caches[:max(
            0, self.arrive - len(d_outputs))])
        found = {} if result is None else self.named(result, [name for name in self.order if name in self.inputs])
        grads = getattr(layer, "grads", getattr(layer, "gradients", None))
        if isinstance(grads, dict):
            found = self.named(grads) | found
        elif isinstance(grads, (list, tuple)) and len(grads) == len(self.weights):
            found = dict(zip(self.weights, grads)) | found
        for name in self.weights:
            for own in (f"d{name}", f"d_{name}", f"grad_{name}", f"{name}_grad"):
                if name not in found and getattr(layer, own, None) is not None:
                    found[name] = getattr(layer, own)
        return {name: scaled(d_outputs[0], d) for name, d in found.items()} if is_loss and not self.arrive else found


class Named(Subject):
    """Two functions that the user names: any forward that runs on tensors, and a backward of one of the forms

    backward(*d_outputs, cache), if forward returns (*outputs, cache); backward(d_outputs, *inputs);
    backward(*d_outputs, *inputs). It is its own reference.
    """

    pattern: Any = None  # the nesting of the forward's arguments
    takes: tuple[str, ...] = ()  # the parameters of the backward
    elsewhere: Source | None = None  # the forward's file, if it is another one

    def arguments(self, inputs: dict[str, Any]) -> tuple:
        return unflatten(self.pattern, list(inputs.values()))

    def forward(self, namespace, inputs):
        arguments = self.arguments(inputs)
        result = namespace[self.forward_name](*arguments)
        result = result if isinstance(result, tuple) else (result,)
        with_cache = "cache" in self.takes[-1] or (len(self.takes) == len(result) > 1 and \
            len(self.takes) != len(arguments) + 1)
        outputs = result[:len(self.takes) - 1] if with_cache else result
        self.arriving = tuple(range(len(outputs)))
        return outputs, (result[-1:] if with_cache else arguments, inputs)

    def backward(self, namespace, memory, d_outputs):
        rest, _ = memory
        count = len(self.takes) - len(rest)
        if count not in (1, len(d_outputs)):
            raise CouldNotRun(f"{self.name} takes {', '.join(self.takes)}, and one of these is expected: the gradients "
                              f"of the {len(d_outputs)} outputs and the cache, or the gradients and the "
                              f"{len(rest)} arguments of {self.forward_name}")
        arriving = d_outputs if count == len(d_outputs) else [tuple(d_outputs)]
        result = namespace[self.name](*arriving, *rest)
        if isinstance(result, dict) and not any(str(key).removeprefix("d") in self.inputs for key in result):
            result = tuple(flatten(result)[0])
        if isinstance(result, (tuple, list)) and not any(isinstance(one, dict) and self.named(one) for one in result):
            result = tuple(flatten(result)[0])
        return self.named(result)


WEIGHT = r"^_?([WUVRwub](?![a-z]{3})|p_?[figoc]$|weight|bias|gamma|beta|theta)"  # a name of a weight
WEIGHTS = r"^(params?|parameters|weights|theta|p)$"  # of a dict of them


def weights_of(layer: Any) -> list[tuple[str, Any, Callable]]:
    """(name, array, how to replace it) of each weight: of attributes, of a dict of them, or of a list `params`."""
    found: list[tuple[str, Any, Callable]] = []

    def is_weight(name: Any, value: Any) -> bool:
        return isinstance(name, str) and bool(re.match(WEIGHT, name)) and isinstance(value, (np.ndarray, Tensor)) \
            and np.ndim(value) > 0

    for name, value in vars(layer).items():
        if is_weight(name, value):
            found.append((name, value, lambda w, name=name: setattr(layer, name, w)))
        if isinstance(value, dict) and re.search(WEIGHTS, name):
            found += [(key, w, lambda new, value=value, key=key: value.__setitem__(key, new))
                      for key, w in value.items() if is_weight(key, w)]
    params = getattr(layer, "params", None)
    if not found and isinstance(params, list):
        found = [(f"params[{i}]", w, lambda new, i=i: params.__setitem__(i, new)) for i, w in enumerate(params)]
    return found


def square(subject: Subject) -> Subject:
    """The subject with as many inputs as hidden units."""
    longer = {D: H, D + H: 2 * H}
    return replace(subject, inputs={name: tuple(longer.get(n, n) for n in shape)
                                    for name, shape in subject.inputs.items()})


def scaled(d: Any, value: Any) -> Any:
    return None if value is None else np.asarray(d) * value
