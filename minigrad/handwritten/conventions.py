"""The conventions in which people write backward passes by hand, and how to call each.

A *subject* is one hand-written backward with its forward. However it is written, it has the same two methods:
`forward(namespace, inputs)` → (outputs, memory) and `backward(namespace, memory, d_outputs)` → {input: gradient}.
`find` recognises the subjects of a file by the names of its functions and their parameters; the tables below are all
that it knows.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigrad.document import lstm_cell_forward
from minigrad.engine.messages import nearest
from minigrad.engine.pytree import flatten, named_leaves, unflatten
from minigrad.handwritten import references as true
from minigrad.handwritten.source import CouldNotRun, Source, method_of, parameters_of

D, H, N, T, V = 4, 5, 2, 3, 6  # inputs, hidden units, examples, steps, classes: all different, to tell shapes apart
GATES = {name: (H, H + D) if name[0] == "W" else (H, 1) for name in ("Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo")}
COURSE_LSTM = {**GATES, "Wy": (V, H), "by": (V, 1)}
COURSE_RNN = {"Wax": (H, D), "Waa": (H, H), "Wya": (V, H), "ba": (H, 1), "by": (V, 1)}
LABELS = np.array([[1, 4, 0], [5, 2, 3]])
CHARS, NEXT = [0, 3, 1, 3], [3, 1, 3, 5]


def fused(gates: int) -> dict[str, tuple[int, ...]]:
    return {"Wx": (D, gates * H), "Wh": (H, gates * H), "b": (gates * H,)}


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

    @property
    def needs(self) -> tuple[str, ...]:
        """The names that the file must define."""
        return self.name, self.forward_name

    @property
    def given(self) -> tuple[str, ...]:
        """The names that are set for the file."""
        return ()

    def forward(self, namespace: dict[str, Any], inputs: dict[str, np.ndarray]) -> tuple[tuple, Any]:
        raise NotImplementedError

    def backward(self, namespace: dict[str, Any], memory: Any, d_outputs: list[np.ndarray]) -> dict[str, Any]:
        raise NotImplementedError

    def named(self, result: Any) -> dict[str, Any]:
        """What a backward returned, by the names of the inputs."""
        wanted = [name for name in self.inputs if name not in self.silent]
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
        names = self.names if set(self.names) <= set(wanted) and len(self.names) == len(result) else tuple(wanted)
        return dict(zip(names, result))


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
        before = [LABELS] if "embedding" in self.forward_name else []
        after = [{"mode": "train"}] if "norm" in self.forward_name else []
        *outputs, cache = namespace[self.forward_name](*before, *inputs.values(), *after)
        return tuple(outputs), (cache, inputs)

    def backward(self, namespace, memory, d_outputs):
        return self.named(namespace[self.name](*d_outputs, memory[0]))


class Together(Subject):
    """loss, dx = f(x, labels): the loss and its gradient in one function."""

    def forward(self, namespace, inputs):
        x = inputs["x"]
        labels = (LABELS, np.ones(LABELS.shape)) if x.ndim == 3 else (LABELS[:, 0],)
        loss, *gradients = namespace[self.name](x, *labels)
        return (loss,), gradients

    def backward(self, namespace, memory, d_outputs):
        return {name: scaled(d_outputs[0], value) for name, value in self.named(memory).items()}


class LossFun(Together):
    """min-char-rnn's lossFun(inputs, targets, hprev) → loss, gradients, h; its weights are globals."""

    hprev = np.linspace(-0.5, 0.5, H)[:, None]

    @property
    def given(self):
        return *self.inputs, "hidden_size", "vocab_size"

    def forward(self, namespace, inputs):
        namespace |= {**inputs, "hidden_size": H, "vocab_size": V}
        for name in [name for name, value in namespace.items() if value is np and not self.clips]:
            namespace[name] = Unclipped(np)
        loss, *gradients = namespace[self.name](list(CHARS), list(NEXT), self.hprev.copy())
        return (loss,), gradients[:len(self.inputs)]


class Unclipped:
    """NumPy, with a `clip` that returns its argument."""

    def __init__(self, numpy: Any):
        self.numpy = numpy

    def __getattr__(self, name: str) -> Any:
        return getattr(self.numpy, name)

    def clip(self, x: Any, *_: Any, **__: Any) -> Any:
        return x


class Layer(Subject):
    """A class: C(*weights), forward(*xs) → outputs, backward(*d_outputs) → d_xs, with the weights' in `grads`."""

    def forward(self, namespace, inputs):
        layer = namespace[self.name](*(inputs[name] for name in self.weights))
        outputs = layer.forward(*(value for name, value in inputs.items() if name not in self.weights))
        return outputs if isinstance(outputs, tuple) else (outputs,), (layer, inputs)

    def backward(self, namespace, memory, d_outputs):
        layer, _ = memory
        result = layer.backward(*d_outputs)
        xs = [name for name in self.inputs if name not in (*self.weights, *self.silent)]
        found = dict(zip([*xs, *self.weights], result if isinstance(result, (tuple, list)) else (result,)))
        if len(found) == len(self.inputs) > len(xs):
            return found
        grads = getattr(layer, "grads", None)
        if isinstance(grads, dict):
            return found | self.named(grads)
        if grads is None:
            grads = [getattr(layer, f"d{name}", None) for name in self.weights]
        return found | dict(zip(self.weights, grads))


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
        return self.named(tuple(flatten(result)[0]) if isinstance(result, (tuple, list)) else result)


def pair(source: Source, backward: str, other: Source, forward: str, shapes: str) -> Named:
    """The subject for `FILE:backward --forward FILE:forward --shapes "x=3,4 p={'W': (5, 3)}"`."""
    given: dict[str, Any] = {}
    for word in re.split(r"\s+(?=\w+\s*=)", shapes.strip()):
        name, _, shape = word.partition("=")
        try:
            given[name.strip()] = shapes_of(ast.literal_eval(shape.strip()))
        except (ValueError, TypeError, SyntaxError):
            raise CouldNotRun(f"--shapes has {word!r}, where name=3,4 is expected, name=() for a number, or a nesting "
                              "of shapes in Python's brackets") from None
    for where, name in ((source, backward), (other, forward)):
        if not isinstance(where.definitions.get(name), ast.FunctionDef):
            raise CouldNotRun(f"{where.file} has no function {name!r}{nearest(name, where.definitions)}")
    takes = parameters_of(other.definitions[forward])
    if list(given) != list(takes[:len(given)]) or not given:
        raise CouldNotRun(f"{forward} takes {', '.join(takes)}: give --shapes for them in this order, as "
                          f"{takes[0] if takes else 'x'}=3,4")
    leaves, pattern = flatten(tuple(given.values()))
    names = [name.rpartition(".")[2] for name, _ in named_leaves(given)]
    subject = Named(backward, "named functions", {name: leaf.shape for name, leaf in zip(names, leaves)},
                    forward_name=forward, names=returned(source.definitions[backward], dict.fromkeys(names)))
    subject.pattern, subject.takes = pattern, parameters_of(source.definitions[backward])
    subject.elsewhere = other if other.file != source.file else None
    return subject


def shapes_of(shape: Any) -> Any:
    """Zeros nested like their shapes. A shape is a number, or a tuple or list of numbers."""
    if isinstance(shape, dict):
        return {key: shapes_of(child) for key, child in shape.items()}
    if isinstance(shape, (tuple, list)) and not all(type(n) is int for n in shape):
        return tuple(shapes_of(child) for child in shape)
    return np.zeros(shape)


def square(subject: Subject) -> Subject:
    """The subject with as many inputs as hidden units."""
    sizes = {D: H, D + H: 2 * H}
    return replace(subject, inputs={name: tuple(sizes.get(n, n) for n in shape)
                                    for name, shape in subject.inputs.items()})


def scaled(d: Any, value: Any) -> Any:
    return None if value is None else np.asarray(d) * value


# -- the tables -------------------------------------------------------------------------------------------

COURSE: dict[str, tuple] = {  # backward: (inputs, reference, arriving, cell, axis of time)
    "rnn_cell_backward": ({"xt": (D, N), "a_prev": (H, N), **COURSE_RNN}, true.course_rnn_cell, (0,), None, None),
    "rnn_backward": ({"x": (D, N, T), "a0": (H, N), **COURSE_RNN}, true.course_rnn, (0,), "rnn_cell_backward", 2),
    "lstm_cell_backward": ({"xt": (D, N), "a_prev": (H, N), "c_prev": (H, N), **COURSE_LSTM}, true.course_lstm_cell,
                           (0, 1), None, None),
    "lstm_backward": ({"x": (D, N, T), "a0": (H, N), **COURSE_LSTM}, true.course_lstm, (0,), "lstm_cell_backward", 2),
}
COURSE_CELLS: dict[str, Callable] = {"rnn_cell_forward": true.rnn_cell_forward, "lstm_cell_forward": lstm_cell_forward}

LSTM_STEPS, GRU_STEPS = true.lstm_steps("ifog"), true.gru_steps()
CS231N: dict[str, tuple] = {
    "rnn_step_backward": ({"x": (N, D), "prev_h": (N, H), **fused(1)}, [true.rnn_step], (0,), None, None),
    "rnn_backward": ({"x": (N, T, D), "h0": (N, H), **fused(1)}, [true.over_time(true.rnn_step, 1)], (0,),
                     "rnn_step_backward", 1),
    "lstm_step_backward": ({"x": (N, D), "prev_h": (N, H), "prev_c": (N, H), **fused(4)}, LSTM_STEPS, (0, 1), None,
                           None),
    "lstm_backward": ({"x": (N, T, D), "h0": (N, H), **fused(4)}, [true.over_time(s, 2) for s in LSTM_STEPS], (0,),
                      "lstm_step_backward", 1),
    "gru_step_backward": ({"x": (N, D), "prev_h": (N, H), **fused(3)}, GRU_STEPS, (0,), None, None),
    "gru_backward": ({"x": (N, T, D), "h0": (N, H), **fused(3)}, [true.over_time(s, 1) for s in GRU_STEPS], (0,),
                     "gru_step_backward", 1),
    "affine_backward": ({"x": (N, D), "w": (D, H), "b": (H,)}, [true.affine], (0,), None, None),
    "temporal_affine_backward": ({"x": (N, T, D), "w": (D, H), "b": (H,)}, [true.affine], (0,), None, None),
    "batchnorm_backward": ({"x": (V, D), "gamma": (D,), "beta": (D,)}, [true.batchnorm], (0,), None, None),
    "batchnorm_backward_alt": ({"x": (V, D), "gamma": (D,), "beta": (D,)}, [true.batchnorm], (0,), None, None),
    "layernorm_backward": ({"x": (N, D), "gamma": (D,), "beta": (D,)}, [true.layernorm], (0,), None, None),
    "relu_backward": ({"x": (N, D)}, [true.rectifier], (0,), None, None),
    "word_embedding_backward": ({"W": (V, D)}, [true.embedding(LABELS)], (0,), None, None),
}
LOSSES: dict[str, tuple] = {
    "softmax_loss": ({"x": (N, V)}, [true.cross_entropy(LABELS[:, 0], c) for c in (N, 1)]),
    "temporal_softmax_loss": ({"x": (N, T, V)}, [true.cross_entropy(LABELS, c) for c in (N, 1, N * T)]),
}
MIN_CHAR: dict[str, tuple[int, ...]] = {"Wxh": (H, V), "Whh": (H, H), "Why": (V, H), "bh": (H, 1), "by": (V, 1)}

BOOK_LSTM = true.lstm_steps("fgio")
# (what the class's name contains, how many inputs forward has): (inputs, references, arriving)
LAYERS: dict[tuple[str, int], tuple] = {
    ("LSTM", 3): ({"x": (N, D), "h_prev": (N, H), "c_prev": (N, H), **fused(4)}, BOOK_LSTM, (0, 1)),
    ("GRU", 2): ({"x": (N, D), "h_prev": (N, H), **fused(3)}, GRU_STEPS, (0,)),
    ("RNN", 2): ({"x": (N, D), "h_prev": (N, H), **fused(1)}, [true.rnn_step], (0,)),
    ("LSTM", 1): ({"xs": (N, T, D), **fused(4)}, [true.from_zero(true.over_time(s, 2)) for s in BOOK_LSTM], (0,)),
    ("GRU", 1): ({"xs": (N, T, D), **fused(3)}, [true.from_zero(true.over_time(s, 1)) for s in GRU_STEPS], (0,)),
    ("RNN", 1): ({"xs": (N, T, D), **fused(1)}, [true.from_zero(true.over_time(true.rnn_step, 1))], (0,)),
    ("Affine", 1): ({"x": (N, D), "W": (D, H), "b": (H,)}, [true.affine], (0,)),
    ("Linear", 1): ({"x": (N, D), "W": (D, H), "b": (H,)}, [true.affine], (0,)),
    ("MatMul", 1): ({"x": (N, D), "W": (D, H)}, [true.product], (0,)),
}


def find(source: Source) -> list[Subject]:
    """The subjects of a file, a cell before the sequence that calls it. Raises CouldNotRun if there is none."""
    defined = source.definitions
    found = [*functions(defined), *layers(defined)]
    if not found:
        pairs = [name for name in defined if name.endswith("backward")]
        hint = f"name {pairs[0]}'s forward and shapes, as {source.file}:{pairs[0]} --forward " \
               f"{source.file}:{pairs[0].replace('backward', 'forward')} --shapes \"x=3,4 W=5,3\"" if pairs else \
               "name the two functions and the shapes of the forward's arguments, as FILE:function --forward " \
               "FILE:function --shapes \"x=3,4 W=5,3\""
        raise CouldNotRun(f"{source.file} has no backward whose convention is known by its names (lstm_cell_backward, "
                          "lstm_step_backward, lossFun and their like, or a class with forward, backward and "
                          f"grads): {hint}")
    return found


def functions(defined: dict[str, Any]) -> Iterator[Subject]:
    for known, (inputs, reference, arriving, cell, time) in COURSE.items():
        name = own_name(known, defined)
        if name and is_course(known, defined):
            forward = own_name(forward_of(known), defined) or forward_of(known)
            yield Course(name, "the course's convention", inputs, [reference], arriving,
                         tuple({"Wy", "by", "Wya"} & inputs.keys()), cell and own_name(cell, defined), forward, time)
    for known, (inputs, references, arriving, cell, time) in CS231N.items():
        name = own_name(known, defined)
        if name and not is_course(known, defined):
            yield Positional(name, "cs231n's convention", inputs, references, arriving, time=time,
                             cell=cell and own_name(cell, defined),
                             forward_name=own_name(forward_of(known), defined) or forward_of(known),
                             names=returned(defined[name], inputs))
    for name, (inputs, references) in LOSSES.items():
        if name in defined and len(parameters_of(defined[name])) >= (3 if name.startswith("temporal") else 2):
            yield Together(name, "cs231n's convention", inputs, references)
    if "lossFun" in defined:
        hprev = LossFun.hprev
        yield LossFun("lossFun", "min-char-rnn's convention", MIN_CHAR,
                      [true.min_char(CHARS, NEXT, hprev, count) for count in (1, len(CHARS))],
                      names=returned(defined["lossFun"], MIN_CHAR, first=1))


def own_name(known: str, defined: dict[str, Any]) -> str | None:
    """The file's name for a function of a convention: the same, or the only one that contains it, my_lstm_backward."""
    if known in defined:
        return known
    found = [name for name, node in defined.items() if re.search(rf"(^|_){known}(\d|_|$)", name)
             and name not in CS231N and isinstance(node, ast.FunctionDef)]
    return found[0] if len(found) == 1 else None


def forward_of(backward: str) -> str:
    return backward.removesuffix("_alt").replace("backward", "forward")


def is_course(known: str, defined: dict[str, Any]) -> bool:
    """Whether the functions are the course's: three or four inputs with a dict of parameters, and a dict returned."""
    if known not in CS231N or known not in COURSE:
        return known in COURSE
    forward = own_name(forward_of(known), defined)
    if forward is None:
        text = ast.unparse(defined[own_name(known, defined) or known])
        return "parameters" in text or "gradients" in text or "caches" in text
    return len(parameters_of(defined[forward])) <= 4


def not_judged(source: Source, subjects: list[Subject]) -> list[str]:
    """The other functions and classes of a file with a backward, in no convention that is known."""
    judged = {name for subject in subjects for name in (subject.name, subject.cell)}
    return [name for name, node in source.definitions.items() if name not in judged and (
        name.endswith("backward") if isinstance(node, ast.FunctionDef) else method_of(node, "backward"))]


def returned(node: ast.AST, inputs: dict[str, Any], first: int = 0) -> tuple[str, ...]:
    """The inputs whose gradients a function returns as a tuple of names, dx, dW, …; empty if that cannot be told."""
    for statement in reversed([n for n in ast.walk(node) if isinstance(n, ast.Return)]):
        if isinstance(statement.value, ast.Tuple):
            names = [ast.unparse(e).removeprefix("d").split("[")[0] for e in statement.value.elts][first:]
            aliases = {"hprev": "prev_h", "h_prev": "prev_h", "c_prev": "prev_c", "W": "w"}
            names = [n if n in inputs else aliases.get(n, n) for n in names][:len(inputs)]
            return tuple(names) if set(names) <= set(inputs) else ()
    return ()


def layers(defined: dict[str, Any]) -> Iterator[Subject]:
    """Classes, those with a state as an argument before those over time."""
    classes = [node for node in defined.values() if isinstance(node, ast.ClassDef)
               and method_of(node, "forward") and method_of(node, "backward")]
    for (kind, count), (inputs, references, arriving) in LAYERS.items():
        for node in classes:
            if kind.lower() not in node.name.lower() or len(parameters_of(node, "forward")) != count:
                continue
            weights = [name for name in inputs if name[0] in "Wb"]
            takes = [name for name in parameters_of(node) if name in weights]
            own = {name: shape for name, shape in inputs.items() if name not in weights or name in takes}
            if takes == weights or (kind == "GRU" and takes == ["Wx", "Wh"]):
                fitting = [r for r in references if len(takes) == len(weights)] or references
                layer = Layer(node.name, "classes with forward, backward and grads", own, fitting, arriving,
                              time=1 if "xs" in inputs else None)
                layer.weights = tuple(takes)
                step = [other.name for other in classes if kind in other.name and other is not node
                        and len(parameters_of(other, "forward")) > 1]
                layer.cell = step[0] if "xs" in inputs and step else None
                yield layer
