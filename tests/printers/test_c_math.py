"""The C functions of elementwise ops: accuracy in ulp, special values, and vector code.

The reference of float32 is NumPy in float64, that of float64 NumPy in np.longdouble.
"""

import ctypes
import functools
import os
import re
import shutil
import subprocess

import numpy as np
import polynomials
import pytest

from minigrad.printers import c_math
from minigrad.timeloop import compile
from minigrad.timeloop.compile import FLAGS, GCC, NATIVE, compiler, processor

needs_compiler = pytest.mark.skipif(not compiler.enabled(), reason=f"without a C compiler: {compiler.reason()}")
DTYPES = {"f32": np.float32, "f64": np.float64}
WIDER = {"f32": np.float64, "f64": np.longdouble}
C_TYPES = {"f32": "float", "f64": "double"}


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# reference and largest error in ulp of the functions of one argument; 0 means NumPy's bits
ONE = {"exp": (np.exp, 1), "expm1": (np.expm1, 2), "tanh": (np.tanh, 2), "sigmoid": (sigmoid, 2),
       "softplus": (softplus, 2), "softplus_slope": (sigmoid, 2), "log": (np.log, 1.25), "log1p": (np.log1p, 2),
       "log2": (np.log2, 2), "log10": (np.log10, 2), "sin": (np.sin, 1), "cos": (np.cos, 1),
       "sqrt": (np.sqrt, 0), "abs": (np.abs, 0), "sign": (np.sign, 0), "floor": (np.floor, 0), "ceil": (np.ceil, 0),
       "trunc": (np.trunc, 0), "rint": (np.rint, 0)}
TWO = {"logaddexp": (np.logaddexp, None), "power": (np.power, 1), "maximum": (np.maximum, 0),
       "minimum": (np.minimum, 0), "remainder": (np.remainder, 0), "floor_divide": (np.floor_divide, 0)}
# softplus_slope is sigmoid, and shares its code
VECTORISED = [name for name in (*ONE, *TWO)
              if name not in ("sin", "cos", "power", "remainder", "floor_divide", "softplus_slope")]


def loop(name, kind):
    """C text of `mg_<name>_<kind>` over arrays."""
    real, function = C_TYPES[kind], f"mg_{name}_{kind}"
    b, both = (f", const {real} *b", "a[i], b[i]") if name in TWO else ("", "a[i]")
    return (f"void over_{name}_{kind}(long n, {real} *y, const {real} *a{b}) {{\n"
            f"#pragma GCC ivdep\n    for (long i = 0; i < n; i++) y[i] = {function}({both});\n}}\n")


@functools.cache
def program():
    """All functions, and a loop over each."""
    pairs = [(name, kind) for name in (*ONE, *TWO) for kind in DTYPES]
    return c_math.functions(f"mg_{name}_{kind}" for name, kind in pairs) + "".join(loop(*pair) for pair in pairs)


def call(name, kind, *arrays):
    library = compiler.load(program())
    assert library is not None, compiler.reason(program())
    y = np.empty_like(arrays[0])
    getattr(library, f"over_{name}_{kind}")(ctypes.c_long(y.size), *(ctypes.c_void_p(x.ctypes.data)
                                                                    for x in (y, *arrays)))
    return y


@np.errstate(all="ignore")
def points(kind, n, seed=0):
    """About n numbers of all sizes, more where the functions bend, and every special value."""
    dtype, rng, n = DTYPES[kind], np.random.default_rng(seed), n // 5
    info, edge = np.finfo(dtype), 120 if kind == "f32" else 800
    special = [0, info.tiny, info.smallest_subnormal, 3 * info.smallest_subnormal, info.max, np.inf, np.nan, info.eps,
               info.epsneg, 1, 1 - info.epsneg, 1 + info.eps, 0.5, 2, 3, 10, 0.55, 88.72283, 103.97, 709.782712893384,
               745.13321910194, 800, 2**23, 2**24 + 1, 2**52, 2**53]
    special = np.array(special, dtype)
    wide = rng.integers(0, 2**(info.bits - 1), n).astype(f"u{info.bits // 8}").view(dtype)
    grids = [special, -special, np.copysign(wide, rng.choice([-1, 1], n)), np.linspace(-edge, edge, n),
             np.linspace(-3, 3, n), rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-12, 1.5, n),
             1 + rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-8, -0.5, n)]
    return np.concatenate([grid.astype(dtype) for grid in grids])


def errors(y, exact):
    """Errors in ulp. An infinite or nan result has none where it is right, else an infinite one."""
    rounded = exact.astype(y.dtype)
    right = (rounded == y) | (np.isnan(rounded) & np.isnan(y))
    finite = np.isfinite(rounded) & np.isfinite(y)
    ulp = np.where(finite, np.spacing(np.abs(rounded)), 1).astype(exact.dtype)
    difference = np.abs(np.where(finite, y, 0) - np.where(finite, exact, 0)) / ulp
    return np.where(finite, difference, np.where(right, 0, np.inf))


def check(name, kind, n):
    with np.errstate(all="ignore"):
        reference, bound = (ONE | TWO)[name]
        x = [points(kind, n)]
        if name in TWO:
            x = pairs(x[0]) if n < 10**5 else [x[0], np.random.default_rng(1).permutation(x[0])]
        y = call(name, kind, *x)
        if bound == 0:
            np.testing.assert_array_equal(y, reference(*x))
            if name not in ("maximum", "minimum"):  # of 0 and −0, NumPy takes either
                finite = ~np.isnan(y)
                np.testing.assert_array_equal(np.signbit(y)[finite], np.signbit(reference(*x))[finite])
            return
        exact = reference(*(a.astype(WIDER[kind]) for a in x))
        if bound is None:  # the sum of the larger argument and a term up to ln 2 may cancel: relative to the largest
            scale = np.spacing(np.maximum.reduce([np.abs(y), *map(np.abs, x), np.full_like(y, np.log(2))]))
            wrong = ~(np.abs(y - exact) <= 2 * scale) & ~(y == exact) & ~(np.isnan(y) & np.isnan(exact))
            assert not wrong.any(), [a[wrong][:3] for a in (*x, y, exact)]
            return
        found = errors(y, exact)
    worst = found.argmax()
    assert found[worst] <= bound, f"{found[worst]:.3g} ulp at {[float(a[worst]) for a in x]}: {y[worst]}"
    zero = (y == 0) & (exact == 0)
    np.testing.assert_array_equal(np.signbit(y[zero]), np.signbit(exact[zero]))


def pairs(x):
    """Every pair of the special values, and random ones."""
    special = x[:52]
    a, b = (side.ravel() for side in np.meshgrid(special, special))
    return [np.concatenate([a, x]), np.concatenate([b, np.random.default_rng(1).permutation(x)])]


# On some systems longdouble is float64, and float64 has no reference.
KINDS = ["f32", "f64"] if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps else ["f32"]


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_accuracy(name, kind):
    check(name, kind, 20_000)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_accuracy_at_a_million_points(name, kind):
    check(name, kind, 1_000_000)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_accuracy_at_every_61st_float32(name):
    with np.errstate(all="ignore"):
        for start in range(0, 2**32, 2**28):
            x = np.arange(start, start + 2**28, 61, dtype=np.uint32).view(np.float32)
            found = errors(call(name, "f32", x), ONE[name][0](x.astype(np.float64)))
            assert found.max() <= ONE[name][1], (found.max(), x[found.argmax()])


@needs_compiler
@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_an_entry_does_not_depend_on_its_place(name, kind):
    """In a vector, in the rest of a loop, or alone: the same bits."""
    x = points(kind, 1000)
    x = np.roll(x[np.isfinite(x)], 300)[:400]
    arrays = [x, np.ascontiguousarray(x[::-1])] if name in TWO else [x]
    whole = call(name, kind, *arrays)
    for start, n in [(i, 1) for i in range(0, 400, 7)] + [(3, n) for n in range(2, 70, 3)]:
        part = call(name, kind, *(np.ascontiguousarray(a[start:start + n]) for a in arrays))
        np.testing.assert_array_equal(part.view(np.uint8), whole[start:start + n].view(np.uint8))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed, whose report is read")
@pytest.mark.skipif("avx2" not in processor(), reason="a processor without AVX2")
def test_loops_are_vectorised(tmp_path):
    (tmp_path / "program.c").write_text(program(), encoding="utf-8")
    call = ["gcc", *NATIVE, *GCC, *FLAGS, "-fopt-info-vec", "-o", "program.so", "program.c"]
    report = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}).stderr
    lines = program().splitlines()
    vectorised = {lines[int(number) - 1] for number in re.findall(r"program.c:(\d+):\d+: optimized: loop", report)}
    loops = {(name, kind): loop(name, kind).splitlines()[2] for name in VECTORISED for kind in DTYPES}
    assert [pair for pair, line in loops.items() if line not in vectorised] == []


@needs_compiler
@pytest.mark.parametrize("command, native", [
    pytest.param("", (), id="a processor without a fused multiply-add"),
    pytest.param("clang", NATIVE, id="clang", marks=pytest.mark.skipif(
        shutil.which("clang") is None, reason="clang is not installed"))])
def test_accuracy_of_other_builds(command, native, monkeypatch, tmp_path):
    monkeypatch.setattr(compile, "NATIVE", native)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(globals(), "compiler", compile.Compiler(command or compiler.command))
    for name in (*ONE, *TWO):
        for kind in KINDS:
            check(name, kind, 5000)


def test_the_text_is_deterministic_and_complete():
    names = sorted(f"mg_{name}_{kind}" for name in (*ONE, *TWO) for kind in DTYPES)
    text = c_math.functions(names)
    assert text == c_math.functions(reversed(names)) == c_math.functions(set(names))
    defined = re.findall(r"^MG_INLINE \w+ (mg_\w+)\(", text, re.M)
    assert len(set(defined)) == len(defined) and set(names) <= set(defined) <= c_math.NAMES
    for i, one in enumerate(re.split(r"(?m)^MG_INLINE ", text)[1:]):
        called = re.findall(r"mg_\w+(?=\()", one)[1:]
        assert set(called) <= set(defined[:i]), f"{defined[i]} calls what comes after it"
    assert "mg_log_f64" not in c_math.functions(["mg_tanh_f64"])


@pytest.mark.parametrize("name", ["EXP", "LOG"])
@pytest.mark.parametrize("kind", DTYPES)
def test_the_coefficients_are_those_of_the_derivation(name, kind):
    assert c_math.POLYNOMIALS[name][kind] == polynomials.coefficients(name, kind)


@pytest.mark.parametrize("kind", DTYPES)
def test_the_parts_of_the_constants_are_exact(kind):
    constants = c_math.CONSTANTS[kind]
    for name in ("LN_2", "LOG_2"):
        assert (constants[f"{name}_HIGH"], constants[f"{name}_LOW"]) == polynomials.parts(name, kind)
