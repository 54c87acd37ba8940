"""`derive`: the backward pass of a function as NumPy source, to read and to run."""

from __future__ import annotations

import itertools
import linecache
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.engine.messages import name_of
from minigrad.engine.pytree import map_leaves
from minigrad.engine.tensor import Tensor
from minigrad.printers.c_loop import CPlan
from minigrad.printers.latex import latex_of
from minigrad.printers.numpy_loop import Plan
from minigrad.printers.readable import Emitter
from minigrad.program.simplify import Program
from minigrad.program.source_tracer import SourceTracer
from minigrad.program.trace import Trace, TraceError

number = itertools.count(1).__next__


class Derived:
    """A function with its derived backward pass.

    source                     a Python module that imports only numpy, with `forward` and `backward`
    planned_source             for a cell (state, x) → (state, y): the same program over time with its buffers, as scan
                               runs it when gradients for everything are wanted
    c_source                   the same as C, as scan compiles it once it has run long enough; raises NotInC if the cell
                               has what is not printed as C
    latex                      the same lines as source, as equations: one `aligned` environment, in names such as
                               f^{⟨t⟩} for ft and ∂L/∂c^{⟨t⟩} for d_c_next (printers/latex.py has the rule); a scan is
                               written out
    forward(*args)             → (output, cache); tensors that the function closes over follow its arguments; if
                               they are left out, their present values are used
    backward(d_output, cache)  → (d_arg, …), one for each argument with floats, nested as the argument
    cache_names                the names of the cached values in the source, in their order: if you already have these
                               values you can call `backward` directly

    It prints as its source, and a notebook highlights it.
    """

    def __init__(self, f: Callable, examples: tuple):
        self.f, self.examples = f, examples
        self.trace = trace = Trace(f, examples, tracer=SourceTracer(loops=True))
        name = name_of(f)
        self.name = name = "the function" if name == "<lambda>" else name
        emitter = Emitter(Program(trace, name))
        trace.close()
        self.source = emitter.module()
        self.cache_names = tuple(emitter.names[value] for value in emitter.kept)
        self.closed = trace.closed
        filename = f"<minigrad derived {name} {number()}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(keepends=True), filename)
        weakref.finalize(self, linecache.cache.pop, filename, None)
        self.module: dict[str, Any] = {}
        exec(compile(self.source, filename, "exec"), self.module)

    @property
    def planned_source(self) -> str:
        program = self.program_of_cell()
        return Plan(program, set(program.gradients)).source

    @property
    def c_source(self) -> str:
        program = self.program_of_cell()
        return CPlan(program, set(program.gradients)).source

    @property
    def latex(self) -> str:
        trace = Trace(self.f, self.examples, tracer=SourceTracer(loops=False))
        emitter = Emitter(Program(trace, self.name))
        trace.close()
        emitter.module()
        return latex_of(emitter)

    def program_of_cell(self) -> Program:
        if len(self.examples) != 2 or not isinstance(self.trace.result, tuple) or len(self.trace.result) != 2:
            raise ValueError(f"{self.name} is not a cell, and planned_source runs a cell over time: "
                             "derive a function (state, x) → (state, y)")
        trace = Trace(self.f, self.examples)  # a scan within it is written out
        program = Program(trace, self.name)
        trace.close()
        return program

    def __repr__(self) -> str:
        return self.source

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.source}\n```"  # a notebook highlights it in its own colours

    def forward(self, *args: Any) -> tuple[Any, tuple]:
        args = [map_leaves(values_of, arg) for arg in args]
        if len(args) == len(self.examples):
            args += [x._array for x in self.closed]
        return self.module["forward"](*args)

    def backward(self, d_output: Any, cache: Any) -> tuple:
        return self.module["backward"](map_leaves(values_of, d_output), cache)


def derive(f: Callable, *examples: Any) -> Derived:
    """Trace f at examples (arrays, or nestings of arrays; only shapes and dtypes matter) and derive its backward pass.

    Python ints, booleans and strings among the examples are constants of the program. Branches are frozen. A Python
    loop is written out; a `scan` is two loops, forward and backward, nested if a cell scans; a cell that differs from
    step to step is written out, with a ScanNotice. Raises TraceError, naming the user's line, where f needs a value (a
    branch, float(x), a NumPy function without an op).
    """
    return Derived(f, examples)


def values_of(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf._array
    return np.asarray(leaf) if isinstance(leaf, (float, complex)) else leaf


__all__ = ["Derived", "TraceError", "derive"]
