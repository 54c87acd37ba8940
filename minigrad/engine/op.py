"""`@op`: a NumPy function together with the rules of its derivative, in one block.

The public function of an op is generated as text and compiled (`write_call`). Called with ndarrays only, it *is* the
forward, and nothing is recorded. With a Tensor among its inputs it returns a Tensor. If a gradient can flow through
that result, its node keeps the values that the rules will read.
"""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from minigrad.engine.arrays import asarray, ndarray, plain
from minigrad.engine.context import recording, watcher
from minigrad.engine.operators import install
from minigrad.engine.tensor import Shape, Tensor, fill, new, result

OPS: dict[str, Op] = {}  # every op by name
REQUIRED = inspect.Parameter.empty
BROADCAST = "from the right, axes must have equal lengths, or one of them 1 (reshape or mg.expand_dims one of them)"


class VJP(NamedTuple):
    """The rule of one input, as functions of (g, y, inputs, metadata)."""

    position: int  # of the input
    recorded: Callable  # on tensors and symbols
    plain: Callable  # on arrays
    saves: tuple[int, ...]  # the inputs that the rule reads, -1 for y: exactly the values to keep
    into: Callable | None = None  # takes `total` before g, and adds the gradient into that array


class Op:
    """An op, as `@op` declares it. It is stored in `OPS` and as `.op` of its public function."""

    name: str
    forward: Any  # sees ndarrays only
    call: Any  # the generated function of inputs and metadata, which records: see `write_call`
    arrays: tuple[str, ...]  # names of the array arguments; a variadic op has one, `*arrays`
    variadic: bool = False
    defaults: dict[str, Any]  # {name of metadata: default value, or REQUIRED}
    rules: dict[str, Any]  # {argument: rule}; an argument without a rule passes no gradient
    vjps: list[VJP]  # one for each rule
    fresh: bool = False  # True for scan: nothing else refers to the arrays that its rule returns, and g may be None
    analytic: bool = True  # False if the forward breaks the complex step (abs, sign)
    infix: str | None = None
    numpy: tuple = ()
    shapes: str = ""

    # Traits steer the passes and printers; an op's name never does. The declaration states or implies them.
    ufunc: Any = None  # the NumPy ufunc that computes the op, taken from `np=`
    elementwise: bool = False  # an entry of y depends only on the inputs' entries at its index; true of all ufuncs
    linear: bool = False  # y is linear in all inputs together, so the op commutes with sums: Σ f(x) = f(Σ x)
    view: Any = False  # y is a view of the first input: `is_view(metadata)`
    text: Any = None  # template of the NumPy text, if it is neither an operator nor a keyword call: `template`
    buffered: str | None = None  # NumPy statements that write y into a buffer `{y}`; a ufunc needs none
    helper: str | None = None  # source of a function for derived text; by default the source of the forward
    c: Any = None  # template of the C expression, see printers/c_expressions.py

    def is_view(self, metadata: dict) -> bool:
        """Whether y is a view of the first input, for this metadata."""
        return self.view(**metadata) if callable(self.view) else self.view

    def template(self, metadata: dict) -> str | None:
        """The NumPy text, with the inputs and the metadata in braces; None for an operator or a plain call."""
        return self.text(**metadata) if callable(self.text) else self.text

    def __repr__(self) -> str:
        return self.name

    def __call__(self, inputs: tuple, metadata: dict) -> Any:
        """Call the op on tensors or arrays, with all metadata by name."""
        return self.call(inputs, **metadata) if self.variadic else self.call(*inputs, **metadata)

    def missing(self, argument: str) -> TypeError:
        """The error of a call without a required argument."""
        return TypeError(f"{self.name} takes {', '.join([*self.arrays, *self.defaults])}; {argument!r} is missing")

    def error(self, problem: Exception, arrays: tuple, metadata: dict) -> Exception:
        """NumPy's error as one sentence that names the op, the shapes and the remedy."""
        names = [f"{self.arrays[0]}[{i}]" for i in range(len(arrays))] if self.variadic else self.arrays
        shapes = ", ".join(f"{name} {numpy.shape(x)}" for name, x in zip(names, arrays))
        given = "".join(f", {key} {value.shape}" if isinstance(value, ndarray) else f", {key}={value!r}"
                        for key, value in metadata.items() if value is not self.defaults[key])
        kind = next(k for k in (IndexError, ValueError, TypeError) if isinstance(problem, k))
        if kind is ValueError and self.shapes and re.search("broadcast|shape|dimension", str(problem)):
            return kind(f"{self.name}: {shapes}{given} do not go together: {self.shapes}")
        return kind(f"{self.name} cannot take {shapes}{given}: {problem}")


def primitive(name: str) -> Op:
    """An internal op, which users never call and the sweep handles itself."""
    self = Op()
    self.name, self.arrays, self.defaults, self.rules, self.vjps = name, ("whole",), {}, {}, []
    self.forward = self.call = None
    return self


# An op with several results has one node for all of them; each result is a PART of it.
PART = primitive("part")
RELEASED = primitive("released")  # replaces the op of a node after its backward


def op(forward: Callable | None = None, *, np: Any = (), infix: str | None = None, method: bool = False,
       analytic: bool = True, shapes: str = "", elementwise: bool = False, linear: bool = False, view: Any = False,
       text: Any = None, buffered: str | None = None, helper: str | None = None, c: Any = None, **rules: Any) -> Any:
    """Declare an op: its NumPy forward and, as `d<argument>`, the rule of its derivative.

    ```python
    @op(np=np.tanh, dx=lambda g, y: g * (1.0 - y * y))
    def tanh(x):
        '''y = tanh x,  dy/dx = 1 − y².'''
        return np.tanh(x)
    ```
    Array arguments are positional, metadata is keyword-only, `*arrays` takes any number of arrays. A rule names the
    values it uses: `g` (the gradient of y), `y` (the result), any input, `<input>_shape`, any metadata. The rule for
    `*arrays` returns one gradient for each array. An op may return a tuple; then g is a tuple. Rules use operators
    and minigrad ops only: they run on arrays, tensors and symbols. They never undo broadcasting; the engine does. A
    rule `d<argument>_into(total, g, …)` beside `d<argument>` adds the same gradient into an existing array.

    np        the NumPy function or functions that call this op when they get a Tensor
    infix     the operator of Tensor that calls this op, such as "+"
    method    whether the op is a method of Tensor
    analytic  False if the complex step does not see the derivative
    shapes    the sentence for errors that says which shapes fit

    The other arguments are traits, see `Op`; view, text and c may be functions of the metadata. An op states
    `elementwise` if `np` is a ufunc but its forward computes something else.

    Raises TypeError or ValueError, with a sentence that names the op, if the declaration breaks these rules.
    Complex numbers: the derivative is the holomorphic one, without conjugation.
    """
    if forward is None:
        traits = {"elementwise": elementwise, "linear": linear, "view": view, "text": text, "buffered": buffered,
                  "helper": helper, "c": c}
        return lambda f: op(f, np=np, infix=infix, method=method, analytic=analytic, shapes=shapes, **traits, **rules)
    self = describe_op(forward, rules)
    self.analytic, self.infix = analytic, infix
    self.numpy = np if isinstance(np, tuple) else (np,)
    self.shapes = shapes or (BROADCAST if len(self.arrays) > 1 else "")
    self.ufunc = None if elementwise else ufunc_of(self.numpy)
    self.elementwise = elementwise or self.ufunc is not None
    self.linear, self.view, self.text, self.buffered, self.helper, self.c = linear, view, text, buffered, helper, c
    if linear and any(vjp.saves for vjp in self.vjps):
        raise TypeError(f"op {self.name}: the rule of a linear op must not read an input or the result; this one does")
    self.call = write_call(self)
    public = named(sequence_or_arrays(self) if self.variadic else self.call, self)
    public.__signature__ = inspect.signature(forward)
    OPS[self.name] = self
    install(public, self.numpy, infix, method)
    return public


def ufunc_of(functions: tuple) -> Any:
    """The first function, if it is an elementwise ufunc of NumPy."""
    first = functions[0] if functions else None
    if isinstance(first, numpy.ufunc) and first.signature is None and getattr(numpy, first.__name__, None) is first:
        return first
    return None


def named(public: Any, self: Op) -> Any:
    public.op, forward = self, self.forward
    public.__name__, public.__qualname__, public.__doc__ = forward.__name__, forward.__qualname__, forward.__doc__
    public.__module__ = forward.__module__
    return public


# -- reading and checking a declaration -----------------------------------------------------------------


def describe_op(forward: Callable, rules: dict[str, Callable]) -> Op:
    """Make an op from its declaration, and check the contract."""
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
            raise TypeError(f"op {name}: {key} is not the rule of an array argument; these are "
                            f"{', '.join(self.arrays)}")
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
    """Compile a rule into two positional calls, and list the inputs that it reads (-1 for y)."""
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
                        f"it may use {', '.join([*where, *inputs])}")
    head = f"lambda {''.join(name + ', ' for name in extra)}g, y, x, m: "
    known = {"rule": rule, "Tensor": Tensor, "shape": lambda a: getattr(a, "shape", ()),
             "data": lambda a: a._array if isinstance(a, Tensor) else a}
    recorded, plainly = (eval(f"{head}rule({', '.join((where | values)[name] for name in names)})", known)
                         for values in (inputs, arrays))
    # the shape of another argument is read from that argument, which may not require a gradient
    read = [name.removesuffix("_shape") for name in names if not self.variadic and name != f"{key[1:]}_shape"]
    saves = tuple(-1 if name == "y" else self.arrays.index(name) for name in {*names, *read}
                  if name == "y" or name in self.arrays)
    return recorded, plainly, saves


def is_pure(rule: Any) -> bool:
    """Whether a rule has no closure and does not use numpy, including its nested functions and comprehensions."""
    codes = [rule.__code__]
    for code in codes:
        codes += [c for c in code.co_consts if inspect.iscode(c)]
    return not rule.__closure__ and not any({"np", "numpy"} & set(code.co_names) for code in codes)


# -- the public function of an op -----------------------------------------------------------------------


def write_call(self: Op) -> Callable:
    """Generate the function of an op for its own arguments, and compile it. That of `multiply`, in short:

        def multiply(a, b):
            if isinstance(a, Tensor): a_array = a._array; seen = True; tracked = a._tracked        # b likewise
            else: a = a_array = plain(a)
            if seen and a watcher is set: return its result
            y = forward(a_array, b_array)
            if not seen: return y
            if tracked and recording(): return result(y, op, (a, b), mask, {}, None)
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
        saved = ", ".join(kept_source(self, i) for i in range(len(self.arrays)))
        lines += [f"if {plainly}:", "    if tracked and recording():",
                  f"        return result(y, op, ({saved},), {mask_source(self)}, {by_name}, {kept_source(self, -1)})",
                  "    return fill(new(Tensor), y)"]
    lines += [f"return finish(op, {inputs}, {arrays}, {by_name}, y, tracked)"]
    text = f"def {self.name}({', '.join(signature)}):\n" + "".join(f"    {line}\n" for line in lines)
    filename = f"<op {self.name}>"
    linecache.cache[filename] = len(text), None, text.splitlines(True), filename
    written: dict[str, Any] = {}
    exec(compile(text, filename, "exec"), words, written)
    return written[self.name]


def kept_source(self: Op, i: int) -> str:
    """Source of the expression that a node keeps for input i (-1 for y): the value if a rule that runs reads it."""
    name = "y" if i < 0 else self.arrays[i]
    readers = [vjp.position for vjp in self.vjps if i in vjp.saves]
    is_ruled = any(vjp.position == i for vjp in self.vjps)
    node = f"({name}._node or {name} if {name}_tracked else None)" if is_ruled else "None"
    if not readers:
        return node
    if len(readers) == len(self.vjps):
        return name
    return f"({name} if {' or '.join(f'{self.arrays[k]}_tracked' for k in readers)} else {node})"


def mask_source(self: Op) -> str:
    """Source of a node's mask: bit i is set if a gradient goes to input i."""
    if len(self.vjps) == 1:
        return str(1 << self.vjps[0].position)
    return " | ".join(f"{self.arrays[vjp.position]}_tracked << {vjp.position}" for vjp in self.vjps)


def finish(self: Op, inputs: tuple, arrays: Any, metadata: dict, y: Any, tracked: bool) -> Any:
    """The general path: make tensors of results that are numbers or tuples, or of an op that is not analytic."""
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
    """The result y as a tensor. Its node keeps the values that the rules will read."""
    mask = sum([1 << i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x._tracked])
    saves = {i for vjp in self.vjps if self.variadic or mask >> vjp.position & 1 for i in vjp.saves}
    every = self.variadic and 0 in saves
    kept = inputs if every else tuple([x if i in saves else link(x) for i, x in enumerate(inputs)])
    return result(y, self, kept, mask, metadata, y if -1 in saves else None)


def link(x: Any) -> Any:
    """Replacement for an input that no rule reads: its node if a gradient goes there, else its shape."""
    return (x._node or x) if isinstance(x, Tensor) and x._tracked else Shape(numpy.shape(x))


def record_parts(self: Op, inputs: tuple, metadata: dict, ys: tuple, tracked: list[bool]) -> tuple[Tensor, ...]:
    """The results of an op that returns several: parts of one node, whose rules run once for all of them."""
    if not (any(tracked) and recording.get()):
        return tuple([fill(new(Tensor), y) for y in ys])
    whole: Any = record(self, inputs, metadata, ys[0])._node
    whole._array = tuple([Shape(y.shape, y.dtype) for y in ys]) if whole._array is None else ys
    return tuple([result(y, PART, (whole,), 1, {"i": i}, None) if tracked[i] else fill(new(Tensor), y)
                  for i, y in enumerate(ys)])


def sequence_or_arrays(self: Op) -> Callable:
    """The public function of a variadic op: of one sequence (or array of rows), as in NumPy, or of arrays."""
    def public(*arrays, **metadata):
        if arrays and (isinstance(arrays[0], (list, tuple)) or (len(arrays) == 1 and numpy.ndim(arrays[0]))):
            return self.call(*arrays, **metadata)
        return self.call(arrays, **metadata)
    return public
