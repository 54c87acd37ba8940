"""`@op`: a NumPy function together with the rules of its derivative, in one block.

The public function of an op is written out as text and compiled (`write_call`). With ndarrays alone it *is* the
forward, and nothing is recorded. With a Tensor among its inputs the result is a Tensor, and if a gradient can flow
through it, its node keeps the values that the rules will read.
"""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from minigrad.engine.arrays import asarray, ndarray, plain
from minigrad.engine.operators import install
from minigrad.engine.tensor import Shape, Tensor, fill, new, recording, result, watcher

OPS: dict[str, Op] = {}  # every op by name
REQUIRED = inspect.Parameter.empty
BROADCAST = "from the right, axes must have equal lengths, or one of them 1 (reshape or mg.expand_dims one of them)"


class VJP(NamedTuple):
    """The rule of the input at a position, as functions of (g, y, inputs, metadata).

    recorded  on tensors and symbols;  plain: on the inputs' arrays
    saves     the inputs that it reads, -1 for y: the exact list of values to keep
    into      with `total` before g, adds the gradient into that array; or None
    """

    position: int
    recorded: Callable
    plain: Callable
    saves: tuple[int, ...]
    into: Callable | None = None


class Op:
    """An op as `@op` declares it: in `OPS`, and the attribute `.op` of its function.

    name, forward  the forward sees ndarrays only
    call           the function of its array inputs and metadata that records: see `write_call`
    arrays         the names of its array arguments; with variadic there is one, `*arrays`
    defaults       its metadata by name, with default values (or REQUIRED)
    rules          {argument: rule}; an argument without a rule passes no gradient
    vjps           [`VJP`], one for each rule
    analytic       False where the forward breaks the complex step (abs, sign)
    fresh          True where the gradients of a variadic rule are arrays that nobody else holds

    Traits steer the passes and printers; an op's name never does. They are read off the declaration or stated in it:
    ufunc          the NumPy ufunc that computes it entry by entry, taken from `np=`; else None
    elementwise    each entry of y needs only the entries of the (broadcast) inputs at its index; true of every ufunc
    linear         y is linear in all inputs together, so sums can be exchanged with it: Σ f(x) = f(Σ x)
    view           y is a view of its first input: `is_view(metadata)`
    text           its NumPy text as a template, where it is neither an operator nor a call by keyword: `template`
    buffered       NumPy statements that write it into a buffer `{y}`; a ufunc needs none
    helper         source of its function for derived text, where NumPy has none; else the source of its forward
    c              its C expression as a template of its inputs, or a function of the metadata that returns one (or
                   None: not printed); `{s}` is f32 or f64, `{f}` C's suffix, `{type}` the type of the result
    """

    name: str
    forward: Any
    call: Any
    arrays: tuple[str, ...]
    defaults: dict[str, Any]
    rules: dict[str, Any]
    vjps: list[VJP]
    analytic: bool = True
    fresh: bool = False
    variadic: bool = False
    infix: str | None = None
    numpy: tuple = ()
    shapes: str = ""
    ufunc: Any = None
    elementwise: bool = False
    linear: bool = False
    view: Any = False
    text: Any = None
    buffered: str | None = None
    helper: str | None = None
    c: Any = None

    def is_view(self, metadata: dict) -> bool:
        """Whether y is a view of its first input, with this metadata."""
        return self.view(**metadata) if callable(self.view) else self.view

    def template(self, metadata: dict) -> str | None:
        """The NumPy text, with the inputs and the metadata in braces; None for an operator or a plain call."""
        return self.text(**metadata) if callable(self.text) else self.text

    def __repr__(self) -> str:
        return self.name

    def __call__(self, inputs: tuple, metadata: dict) -> Any:
        """The op on its inputs, tensors or arrays, with all of its metadata by name."""
        return self.call(inputs, **metadata) if self.variadic else self.call(*inputs, **metadata)

    def missing(self, argument: str) -> TypeError:
        """The error of a call without an argument that it needs."""
        return TypeError(f"{self.name} takes {', '.join([*self.arrays, *self.defaults])}; {argument!r} is missing")

    def error(self, problem: Exception, arrays: tuple, metadata: dict) -> Exception:
        """NumPy's complaint as one sentence that names the op, the shapes and what to do."""
        names = [f"{self.arrays[0]}[{i}]" for i in range(len(arrays))] if self.variadic else self.arrays
        shapes = ", ".join(f"{name} {numpy.shape(x)}" for name, x in zip(names, arrays))
        given = "".join(f", {key} {value.shape}" if isinstance(value, ndarray) else f", {key}={value!r}"
                        for key, value in metadata.items() if value is not self.defaults[key])
        kind = next(k for k in (IndexError, ValueError, TypeError) if isinstance(problem, k))
        if kind is ValueError and self.shapes and re.search("broadcast|shape|dimension", str(problem)):
            return kind(f"{self.name}: {shapes}{given} do not go together: {self.shapes}")
        return kind(f"{self.name} cannot take {shapes}{given}: {problem}")


def primitive(name: str) -> Op:
    """An op of the engine's own, which no user calls and the sweep knows how to treat."""
    self = Op()
    self.name, self.arrays, self.defaults, self.rules, self.vjps = name, ("whole",), {}, {}, []
    self.forward = self.call = None
    return self


# An op with several results has one node with all of them; each result is a PART of it.
PART = primitive("part")
RELEASED = primitive("released")  # the op of a result whose backward has been done


def op(forward: Callable | None = None, *, np: Any = (), infix: str | None = None, method: bool = False,
       analytic: bool = True, shapes: str = "", elementwise: bool = False,
       linear: bool = False, view: Any = False, text: Any = None, buffered: str | None = None,
       helper: str | None = None, c: Any = None, **rules: Callable) -> Callable[..., Any]:
    """Declare an op: its NumPy forward and, as `d<argument>`, the rule of its derivative.

    ```python
    @op(np=np.tanh, dx=lambda g, y: g * (1.0 - y * y))
    def tanh(x):
        '''y = tanh x,  dy/dx = 1 − y².'''
        return np.tanh(x)
    ```
    Array arguments are positional, metadata is keyword-only, `*arrays` takes any number. A rule names what it
    uses: `g` the gradient that arrives, `y` the result, any input, `<input>_shape`, any metadata. The rule for
    `*arrays` returns one gradient for each. An op may return a tuple; then g is a tuple. Rules use operators
    and minigrad ops only, so that one text serves arrays, tensors and symbols. They never undo broadcasting:
    the engine does. A rule `d<argument>_into(total, g, …)` beside `d<argument>` adds the same gradient into an
    array that exists.

    np        NumPy's function or functions that this op answers for when they are called with a Tensor
    infix     the operator it gives to Tensor, as "+"
    method    whether Tensor gets it as a method
    analytic  False where the complex step does not see the derivative
    shapes    the sentence that tells which shapes go together

    The other arguments state traits, which `Op` explains; view, text and c may be functions of the metadata. An op that
    only answers for a ufunc, as its own forward does something else, states `elementwise`.

    Raises TypeError or ValueError at once, with a sentence that names the op, when a declaration does not hold.
    Complex numbers: the derivative is the holomorphic one, without conjugation.
    """
    if forward is None:
        return lambda f: op(f, np=np, infix=infix, method=method, analytic=analytic, shapes=shapes,
                            elementwise=elementwise, linear=linear, view=view, text=text, buffered=buffered,
                            helper=helper, c=c, **rules)
    self = describe_op(forward, rules)
    self.analytic, self.infix = analytic, infix
    self.numpy = np if isinstance(np, tuple) else (np,)
    self.shapes = shapes or (BROADCAST if len(self.arrays) > 1 else "")
    self.ufunc = None if elementwise else ufunc_of(self.numpy)
    self.elementwise = elementwise or self.ufunc is not None
    self.linear, self.view, self.text, self.buffered, self.helper, self.c = linear, view, text, buffered, helper, c
    if linear and any(vjp.saves for vjp in self.vjps):
        raise TypeError(f"op {self.name}: the rule of a linear op reads no input and no result; this one does")
    self.call = write_call(self)
    public = named(sequence_or_arrays(self) if self.variadic else self.call, self)
    public.__signature__ = inspect.signature(forward)
    OPS[self.name] = self
    install(public, self.numpy, infix, method)
    return public


def ufunc_of(functions: tuple) -> Any:
    """NumPy's ufunc that computes one entry from one entry of each input, if the first function is one."""
    first = functions[0] if functions else None
    if isinstance(first, numpy.ufunc) and first.signature is None and getattr(numpy, first.__name__, None) is first:
        return first
    return None


def named(public: Any, self: Op) -> Any:
    public.op, forward = self, self.forward
    public.__name__, public.__qualname__, public.__doc__ = forward.__name__, forward.__qualname__, forward.__doc__
    public.__module__ = forward.__module__
    return public


# -- a declaration, read and checked --------------------------------------------------------------------


def describe_op(forward: Callable, rules: dict[str, Callable]) -> Op:
    """Read an op off its declaration, and check the contract."""
    name = forward.__name__
    if name in OPS and OPS[name].forward.__module__.startswith("minigrad.") \
            and not forward.__module__.startswith("minigrad."):
        raise ValueError(f"op {name}: minigrad has an op of this name; choose another")
    self = primitive(name)
    self.forward = forward
    parameters = list(inspect.signature(forward).parameters.values())
    self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    self.arrays = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    self.defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD or (p.kind is not p.KEYWORD_ONLY and p.default is not REQUIRED)
           for p in parameters) or (self.variadic and len(self.arrays) > 1):
        raise TypeError(f"op {name}: arrays are positional without defaults (or one *arrays), metadata keyword-only")
    adders = {}
    for key, rule in rules.items():
        argument, into = key[1:].removesuffix("_into"), key.endswith("_into")
        if key[0] != "d" or argument not in self.arrays:
            raise TypeError(f"op {name}: {key} is the rule of no array argument; they are {', '.join(self.arrays)}")
        recorded, plainly, saves = bind(self, key, rule, ("total",) if into else ())
        rule.__name__ = rule.__qualname__ = f"{name}.{key}"
        position = self.arrays.index(argument)
        if into:
            adders[position] = plainly, saves
        else:
            self.rules[argument] = rule
            self.vjps.append(VJP(position, recorded, plainly, saves))
    for i, vjp in enumerate(self.vjps):
        if vjp.position in adders:
            adder, saves = adders[vjp.position]
            self.vjps[i] = vjp._replace(into=adder, saves=tuple({*vjp.saves, *saves}))
    return self


def bind(self: Op, key: str, rule: Callable, extra: tuple[str, ...]) -> tuple[Callable, Callable, tuple[int, ...]]:
    """Resolve the names of a rule once, into two positional calls, and say which inputs it reads (-1: y)."""
    if not inspect.isfunction(rule):
        raise TypeError(f"op {self.name}: the rule {key} must be a function or lambda, not {rule!r}")
    if not extra and not is_pure(rule):
        raise TypeError(f"op {self.name}: the rule {key} must be pure: no closure and no bare numpy, "
                        "only operators, minigrad ops and its own arguments")
    where = {"g": "g", "y": "y", **{name: name for name in extra}, **{name: f"m[{name!r}]" for name in self.defaults}}
    if self.variadic:
        where |= {f"{self.arrays[0]}_shape": "[shape(a) for a in x]"}
        inputs, arrays = {self.arrays[0]: "x"}, {self.arrays[0]: "[data(a) for a in x]"}
    else:
        where |= {f"{name}_shape": f"shape(x[{i}])" for i, name in enumerate(self.arrays)}
        inputs = {name: f"x[{i}]" for i, name in enumerate(self.arrays)}
        arrays = {name: f"({x}._array if isinstance({x}, Tensor) else {x})" for name, x in inputs.items()}
    names = list(inspect.signature(rule).parameters)
    unknown = [name for name in names if name not in where and name not in inputs]
    if unknown:
        raise TypeError(f"op {self.name}: the rule {key} asks for {unknown[0]!r}; "
                        f"there are {', '.join([*where, *inputs])}")
    head = f"lambda {''.join(name + ', ' for name in extra)}g, y, x, m: "
    known = {"rule": rule, "Tensor": Tensor, "shape": lambda a: getattr(a, "shape", ()),
             "data": lambda a: a._array if isinstance(a, Tensor) else a}
    recorded, plainly = (eval(f"{head}rule({', '.join((where | values)[name] for name in names)})", known)
                         for values in (inputs, arrays))
    # the shape of another argument, which may require no gradient, is read off that argument
    read = [name.removesuffix("_shape") for name in names if not self.variadic and name != f"{key[1:]}_shape"]
    saves = tuple(-1 if name == "y" else self.arrays.index(name) for name in {*names, *read}
                  if name == "y" or name in self.arrays)
    return recorded, plainly, saves


def is_pure(rule: Any) -> bool:
    """Whether a rule captures nothing and does not name numpy, in nested functions and comprehensions neither."""
    codes = [rule.__code__]
    for code in codes:
        codes += [c for c in code.co_consts if inspect.iscode(c)]
    return not rule.__closure__ and not any({"np", "numpy"} & set(code.co_names) for code in codes)


# -- the function of an op ------------------------------------------------------------------------------


def write_call(self: Op) -> Callable:
    """Write the function of an op for its own arguments, and compile it. That of `multiply`, in short:

        def multiply(a, b):
            if isinstance(a, Tensor): a_array = a._array; seen = True; tracked = a._tracked        # b likewise
            else: a = a_array = plain(a)
            if seen and a watcher is set: return its answer
            y = forward(a_array, b_array)
            if not seen: return y
            if tracked and recording(): return fill(new(Tensor), y, True, op, (a, b), {})
            return fill(new(Tensor), y)
    """
    words = {"__name__": __name__, "op": self, "forward": self.forward, "Tensor": Tensor, "plain": plain,
             "watcher": watcher.get, "recording": recording.get, "fill": fill, "new": new, "result": result,
             "ndarray": ndarray, "finish": finish}
    words |= {f"default_{key}": value for key, value in self.defaults.items()} | {"REQUIRED": REQUIRED, "NOTHING": {}}
    signature = [*[f"{name}=REQUIRED" for name in self.arrays], *[f"{key}=default_{key}" for key in self.defaults]]
    keys = "".join(f", {key}={key}" for key in self.defaults)
    by_name = "{" + ", ".join(f"{key!r}: {key}" for key in self.defaults) + "}" if self.defaults else "NOTHING"
    ruled = [self.arrays[vjp.position] for vjp in self.vjps]
    if self.variadic:
        (name,) = self.arrays
        inputs, arrays, spread = f"{name}_inputs", f"{name}_arrays", f"*{name}_arrays"
        lines = [f"{inputs} = tuple([x if isinstance(x, Tensor) else plain(x) for x in {name}])",
                 f"{arrays} = [x._array if isinstance(x, Tensor) else x for x in {inputs}]",
                 f"seen = any([isinstance(x, Tensor) for x in {inputs}])",
                 f"tracked = any([isinstance(x, Tensor) and x._tracked for x in {inputs}])" if ruled
                 else "tracked = False"]
    else:
        inputs, spread = f"({', '.join(self.arrays)},)", ", ".join(f"{name}_array" for name in self.arrays)
        arrays = f"({spread},)"
        lines = [f"seen = {''.join(f'{name}_tracked = ' for name in ruled)}False"]
        for name in self.arrays:
            tracked = f"; {name}_tracked = {name}._tracked" if name in ruled else ""
            lines += [f"if isinstance({name}, Tensor):", f"    {name}_array = {name}._array; seen = True{tracked}",
                      "else:", f"    if {name} is REQUIRED: raise op.missing({name!r})",
                      f"    {name} = {name}_array = plain({name})"]
        lines += [f"tracked = {' or '.join(f'{name}_tracked' for name in ruled) or False}"]
    lines += [f"if {key} is REQUIRED: raise op.missing({key!r})"
              for key, default in self.defaults.items() if default is REQUIRED]
    lines += ["if seen and (watching := watcher()) is not None:",
              f"    return watching(op, {inputs}, {arrays}, {by_name}, tracked)",
              "try:", f"    y = forward({spread}{keys})", "except (ValueError, TypeError, IndexError) as problem:",
              f"    raise op.error(problem, {arrays}, {by_name}) from problem", "if not seen:", "    return y"]
    if not ruled:
        lines += ["if y.__class__ is ndarray: return fill(new(Tensor), y)"]
    elif not self.variadic:
        plainly = "y.__class__ is ndarray" if self.analytic else "y.__class__ is ndarray and not tracked"
        saved = ", ".join(kept(self, i) for i in range(len(self.arrays)))
        lines += [f"if {plainly}:", "    if tracked and recording():",
                  f"        return result(y, op, ({saved},), {mask(self)}, {by_name}, {kept(self, -1)})",
                  "    return fill(new(Tensor), y)"]
    lines += [f"return finish(op, {inputs}, {arrays}, {by_name}, y, tracked)"]
    text = f"def {self.name}({', '.join(signature)}):\n" + "".join(f"    {line}\n" for line in lines)
    filename = f"<op {self.name}>"
    linecache.cache[filename] = len(text), None, text.splitlines(True), filename
    written: dict[str, Any] = {}
    exec(compile(text, filename, "exec"), words, written)
    return written[self.name]


def kept(self: Op, i: int) -> str:
    """Source of what a node keeps of input i, or of y (-1): the value if a rule that runs reads it."""
    name = "y" if i < 0 else self.arrays[i]
    readers = [vjp.position for vjp in self.vjps if i in vjp.saves]
    is_ruled = any(vjp.position == i for vjp in self.vjps)
    node = f"({name}._node or {name} if {name}_tracked else None)" if is_ruled else "None"
    if not readers:
        return node
    if len(readers) == len(self.vjps):
        return name
    return f"({name} if {' or '.join(f'{self.arrays[k]}_tracked' for k in readers)} else {node})"


def mask(self: Op) -> str:
    """Source of a node's mask: bit i is set if a gradient goes to input i."""
    if len(self.vjps) == 1:
        return str(1 << self.vjps[0].position)
    return " | ".join(f"{self.arrays[vjp.position]}_tracked << {vjp.position}" for vjp in self.vjps)


def finish(self: Op, inputs: tuple, arrays: Any, metadata: dict, y: Any, tracked: bool) -> Any:
    """The result of an op as tensors, where it is a number or a tuple, or the op is not analytic."""
    if y.__class__ is tuple:
        return record_parts(self, inputs, metadata, tuple(map(asarray, y)), [tracked] * len(y))
    y = asarray(y)
    if not self.analytic and tracked:
        if any(numpy.iscomplexobj(a) for a in arrays):
            raise TypeError(f"{self.name} has no complex derivative: differentiate it at real values")
        tracked = y.dtype.kind in "fc"  # a cast to integers ends the gradient
    if tracked and recording.get():
        return record(self, inputs, metadata, y)
    return fill(new(Tensor), y)


def record(self: Op, inputs: tuple, metadata: dict, y: Any) -> Tensor:
    """The result y as a tensor with a node, which keeps what the rules that run will read."""
    mask = sum(1 << i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x._tracked)
    saves = {i for vjp in self.vjps if self.variadic or mask >> vjp.position & 1 for i in vjp.saves}
    kept = tuple([x if i in saves or (self.variadic and 0 in saves) else link(x) for i, x in enumerate(inputs)])
    return result(y, self, kept, mask, metadata, y if -1 in saves else None)


def link(x: Any) -> Any:
    """What a node keeps of an input that no rule reads: its node if a gradient goes there, else its shape."""
    return (x._node or x) if isinstance(x, Tensor) and x._tracked else Shape(numpy.shape(x))


def record_parts(self: Op, inputs: tuple, metadata: dict, ys: tuple, tracked: list[bool]) -> tuple[Tensor, ...]:
    """The results of an op that returns several: parts of one node, which sends all their gradients on together."""
    if not (any(tracked) and recording.get()):
        return tuple([fill(new(Tensor), y) for y in ys])
    whole: Any = record(self, inputs, metadata, Shape(()))._node
    whole._array = ys if any(-1 in vjp.saves for vjp in self.vjps) else tuple([Shape(y.shape, y.dtype) for y in ys])
    return tuple([part(whole, i, y) if tracked[i] else fill(new(Tensor), y) for i, y in enumerate(ys)])


def part(whole: Any, i: int, y: Any) -> Tensor:
    """Result i of a node of several."""
    return result(y, PART, (whole,), 1, {"i": i}, None)


def sequence_or_arrays(self: Op) -> Callable:
    """The public function of a variadic op: of one sequence (or array of rows), as NumPy has it, or of arrays."""
    def public(*arrays, **metadata):
        if arrays and (isinstance(arrays[0], (list, tuple)) or (len(arrays) == 1 and numpy.ndim(arrays[0]))):
            return self.call(*arrays, **metadata)
        return self.call(arrays, **metadata)
    return public
