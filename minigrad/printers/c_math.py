"""C text of the elementwise functions of a program, as static inline functions that compilers vectorise.

`functions({"mg_tanh_f32", …})` returns those functions and what they call. A name ends in f32 (float) or f64 (double).
NaN, ±inf, ±0 and subnormal numbers pass as in NumPy.

    exp, expm1, tanh, sigmoid, softplus, softplus_slope, log, log1p, log2, log10, logaddexp    branch-free: a loop over
        them is vectorised. They reduce to eʳ with |r| ≤ ½ ln 2, or to ln m with √½ ≤ m < √2 (Cody and Waite), and
        there to a polynomial, whose coefficients are derived in tests/printers/polynomials.py. Errors are below 2 ulp.
    sqrt, abs, sign, floor, ceil, trunc, rint, maximum, minimum    one or two instructions
    sin, cos, power, remainder, floor_divide    one call of the C library per entry, not vectorised: the reduction of
        huge arguments, and the exact remainder, take a loop

They need IEEE arithmetic: no -ffast-math, -fassociative-math or -ffinite-math-only. A fused multiply-add is written as
mg_fma, so the result of an entry does not depend on how the compiler vectorises the loop around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

HEAD = """\
#include <stdint.h>
#define MG_INLINE static inline __attribute__((always_inline))  // a loop around a call is not vectorised"""

# The text of each function for both types: REAL and BITS are float and uint32_t, or double and uint64_t; a name in
# capitals is a constant below, and numbers get the suffix of the type.
TEXT = {
    "fma": """
REAL mg_fma(REAL a, REAL b, REAL c) {  // a b + c, rounded once if the processor can
#if defined(__FMA__) || defined(__FP_FAST_FMA) || defined(__aarch64__)
    return BUILTIN_fma(a, b, c);
#else
    return a * b + c;
#endif
}""",
    "bits": """
BITS mg_bits(REAL x) {
    BITS i;
    __builtin_memcpy(&i, &x, sizeof i);
    return i;
}""",
    "from_bits": """
REAL mg_from_bits(BITS i) {
    REAL x;
    __builtin_memcpy(&x, &i, sizeof x);
    return x;
}""",
    "nearest": """
REAL mg_nearest(REAL x, REAL factor) {  // the whole number nearest to their product: the sum has no bits for a fraction
    return mg_fma(x, factor, SHIFT) - SHIFT;
}""",
    "power_of_2": """
REAL mg_power_of_2(REAL k) {  // 2ᵏ for a whole k, if it is a normal number
    return mg_from_bits(mg_bits(k + (SHIFT + BIAS)) << MANTISSA);
}""",
    "reduced": """
REAL mg_reduced(REAL x, REAL k) {  // x − k ln 2
    return mg_fma(-k, LN_2_LOW, mg_fma(-k, LN_2_HIGH, x));
}""",
    "exp_rest": """
REAL mg_exp_rest(REAL r) {  // (eʳ − 1 − r) / r² for |r| ≤ ½ ln 2
    REAL q = POLYNOMIAL_EXP(r);
    return q;
}""",
    "exp_less_1": """
REAL mg_exp_less_1(REAL r) {  // eʳ − 1 for |r| ≤ ½ ln 2
    return mg_fma(r * r, mg_exp_rest(r), r);
}""",
    "exp": """
REAL mg_exp(REAL x) {
    x = x > OVERFLOW ? OVERFLOW : x;
    x = x < -UNDERFLOW ? -UNDERFLOW : x;
    REAL k = mg_nearest(x, PER_LN_2), half = mg_nearest(k, 0.5);
    REAL p = 1.0 + mg_exp_less_1(mg_reduced(x, k));
    return p * mg_power_of_2(half) * mg_power_of_2(k - half);  // in two factors, which do not overflow
}""",
    "exp_decay": """
REAL mg_exp_decay(REAL x) {  // e^(−|x|)
    x = -mg_abs(x);
    x = x < -UNDERFLOW ? -UNDERFLOW : x;
    REAL k = mg_nearest(x, PER_LN_2);
    REAL p = 1.0 + mg_exp_less_1(mg_reduced(x, k));
    return p * mg_power_of_2(k + SUBNORMAL) * PER_SUBNORMAL;
}""",
    "expm1": """
REAL mg_expm1(REAL x) {
    REAL z = x > OVERFLOW ? OVERFLOW : x;
    z = z < -SATURATED * 2.0 ? -SATURATED * 2.0 : z;
    REAL k = mg_nearest(z, PER_LN_2), half = mg_power_of_2(k - 1.0);
    REAL p = mg_exp_less_1(mg_reduced(z, k));
    return mg_copysign(2.0 * mg_fma(half, p, half - 0.5), x);
}""",
    "tanh": """
REAL mg_tanh(REAL x) {  // e / (e + 1) with e = (e²ᵃ − 1) / 2, or e − e e / (e + 1), which rounds less where e is small
    REAL z = 2.0 * mg_abs(x);
    z = 2.0 * SATURATED < z ? 2.0 * SATURATED : z;
    REAL shifted = mg_fma(z, PER_LN_2, SHIFT + (BIAS - 1.0)), k = shifted - (SHIFT + (BIAS - 1.0));
    REAL half = mg_from_bits(mg_bits(shifted) << MANTISSA), r = mg_reduced(z, k), less = half - 0.5;
    REAL sum = mg_fma(half, r, less), lost = mg_fma(half, r, less - sum);  // e = less + half (eʳ − 1)
    REAL e = sum + mg_fma(half * (r * r), mg_exp_rest(r), lost), ratio = e / (e + 1.0);
    return mg_copysign(e < 1.0 ? mg_fma(-e, ratio, e) : ratio, x);
}""",
    "sigmoid": """
REAL mg_sigmoid(REAL x) {  // 1 / (1 + e^|x|), with e^|x| = 2ᵏ (1 + p); both terms are scaled so as not to overflow
    REAL a = mg_abs(x);
    a = UNDERFLOW < a ? UNDERFLOW : a;
    REAL shifted = mg_fma(a, PER_LN_2, SHIFT + (BIAS - SUBNORMAL)), k = shifted - (SHIFT + (BIAS - SUBNORMAL));
    REAL scale = mg_from_bits(mg_bits(shifted) << MANTISSA), p = mg_exp_less_1(mg_reduced(a, k));
    REAL y = PER_SUBNORMAL / (scale + mg_fma(scale, p, PER_SUBNORMAL));
    return x < 0.0 ? y : 1.0 - y;
}""",
    "softplus": """
REAL mg_softplus(REAL x) {
    return (x > 0.0 ? x : 0.0) + mg_log1p(mg_exp_decay(x));
}""",
    "softplus_slope": """
REAL mg_softplus_slope(REAL x) {
    return mg_sigmoid(x);
}""",
    "log_scaled": """
REAL mg_log_scaled(REAL x, REAL unit, REAL high, REAL low) {  // unit ln x; high + low = unit ln 2
    int small = x < SMALLEST_NORMAL;
    BITS i = mg_bits(small ? x * SUBNORMAL_FACTOR : x);
    BITS j = (i - ROOT_HALF_BITS + ONE_BITS) >> MANTISSA;  // x = 2ᵏ m with √½ ≤ m < √2; j is k + the bias
    REAL k = mg_from_bits(j | WHOLE_BITS) - (WHOLE + BIAS);
    REAL f = mg_from_bits(i - (j << MANTISSA) + ONE_BITS) - 1.0;
    REAL s = f / (2.0 + f), z = s * s, halves = 0.5 * f * f;  // ln m = ln((1 + s) / (1 − s))
    REAL q = POLYNOMIAL_LOG(z);
    REAL y = mg_fma(unit, f, unit * mg_fma(s, mg_fma(z, q, halves), -halves));
    k = small ? k - SUBNORMAL : k;
    y = mg_fma(k, high, mg_fma(k, low, y));
    y = x < INFINITE ? y : x;
    return x > 0.0 ? y : x == 0.0 ? -INFINITE : NOT_A_NUMBER;
}""",
    "log": """
REAL mg_log(REAL x) {
    return mg_log_scaled(x, 1.0, LN_2_HIGH, LN_2_LOW);
}""",
    "log2": """
REAL mg_log2(REAL x) {
    return mg_log_scaled(x, PER_LN_2, 1.0, 0.0);
}""",
    "log10": """
REAL mg_log10(REAL x) {
    return mg_log_scaled(x, PER_LN_10, LOG_2_HIGH, LOG_2_LOW);
}""",
    "log1p": """
REAL mg_log1p(REAL x) {  // ln u, and what rounding took from u = 1 + x
    REAL u = 1.0 + x, lost = (x - (u - 1.0)) / u;
    int inside = (u > 0.0) & (u < INFINITE);
    return mg_copysign(mg_log(u) + (inside ? lost : 0.0), x);
}""",
    "logaddexp": """
REAL mg_logaddexp(REAL a, REAL b) {
    REAL apart = a == b ? 0.0 : a - b;  // of equal infinities too
    return (a > b ? a : b) + mg_log1p(mg_exp_decay(apart));
}""",
    "maximum": """
REAL mg_maximum(REAL a, REAL b) {
    return (a > b) | (a != a) ? a : b;
}""",
    "minimum": """
REAL mg_minimum(REAL a, REAL b) {
    return (a < b) | (a != a) ? a : b;
}""",
    "sign": """
REAL mg_sign(REAL x) {
    return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x + 0.0;
}""",
    "remainder": """
REAL mg_remainder(REAL a, REAL b) {  // a − b ⌊a / b⌋, with the sign of b
    REAL rest = BUILTIN_fmod(a, b);
    if (rest == 0.0) return mg_copysign(0.0, b);
    return (b < 0.0) != (rest < 0.0) ? rest + b : rest;
}""",
    "floor_divide": """
REAL mg_floor_divide(REAL a, REAL b) {
    if (b == 0.0) return a / b;
    REAL rest = BUILTIN_fmod(a, b), ratio = (a - rest) / b;
    if (rest != 0.0 && (b < 0.0) != (rest < 0.0)) ratio -= 1.0;
    if (ratio == 0.0) return mg_copysign(0.0, a / b);
    REAL whole = mg_floor(ratio);
    return ratio - whole > 0.5 ? whole + 1.0 : whole;
}""",
}
TEXT |= {name: f"\nREAL mg_{name}(REAL x) {{\n    return BUILTIN_{builtin}(x);\n}}" for name, builtin in {
    "sqrt": "sqrt", "abs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint", "sin": "sin",
    "cos": "cos"}.items()}
TEXT |= {name: f"\nREAL mg_{name}(REAL a, REAL b) {{\n    return BUILTIN_{builtin}(a, b);\n}}" for name, builtin in {
    "power": "pow", "copysign": "copysign"}.items()}

# Coefficients from the constant on: (eʳ − 1 − r) / r² for |r| ≤ ½ ln 2, and (ln((1 + s) / (1 − s)) / s − 2) / z with
# z = s² for √½ ≤ (1 + s) / (1 − s) ≤ √2.
POLYNOMIALS = {
    "EXP": {"f32": [0.5000000013457727, 0.16666666681614256, 0.04166646500604005, 0.008333310934448869,
                    0.0013933641031986701, 0.00019890980869750327],
            "f64": [0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333326141, 0.0013888888888883752,
                    0.00019841269874800493, 2.4801587325533363e-05, 2.7557255425746435e-06, 2.7557273661348637e-07,
                    2.510520637395701e-08, 2.0914679376583935e-09]},
    "LOG": {"f32": [0.6666666655449709, 0.40000121839806124, 0.28550820815960665, 0.23330467216303835],
            "f64": [0.6666666666666666, 0.4000000000000088, 0.28571428570803614, 0.22222222391713917,
                    0.18181795640132906, 0.15386239702814658, 0.13268773138656886, 0.13086626147840102]},
}

CONSTANTS: dict[str, dict[str, Any]] = {
    "f32": {"REAL": "float", "BITS": "uint32_t", "MANTISSA": 23, "BIAS": 127.0, "SHIFT": "0x1.8p23", "WHOLE": "0x1p23",
            "WHOLE_BITS": "0x4b000000u", "ONE_BITS": "0x3f800000u", "ROOT_HALF_BITS": "0x3f3504f3u",
            "LN_2_HIGH": 0.693115234375, "LN_2_LOW": 3.1946184945309415e-05, "LOG_2_HIGH": 0.301025390625,
            "LOG_2_LOW": 4.605038981195214e-06, "OVERFLOW": 89.0, "UNDERFLOW": 104.0, "SATURATED": 10.0,
            "SMALLEST_NORMAL": "0x1p-126", "SUBNORMAL": 24.0, "SUBNORMAL_FACTOR": "0x1p24", "PER_SUBNORMAL": "0x1p-24",
            "INFINITE": "__builtin_inff()", "NOT_A_NUMBER": '__builtin_nanf("")'},
    "f64": {"REAL": "double", "BITS": "uint64_t", "MANTISSA": 52, "BIAS": 1023.0, "SHIFT": "0x1.8p52",
            "WHOLE": "0x1p52", "WHOLE_BITS": "0x4330000000000000u", "ONE_BITS": "0x3ff0000000000000u",
            "ROOT_HALF_BITS": "0x3fe6a09e667f3bcdu", "LN_2_HIGH": 0.693147180559663, "LN_2_LOW": 2.8235290563031577e-13,
            "LOG_2_HIGH": 0.30102999566383914, "LOG_2_LOW": 1.42050232272661e-13, "OVERFLOW": 710.0,
            "UNDERFLOW": 746.0, "SATURATED": 20.0, "SMALLEST_NORMAL": "0x1p-1022", "SUBNORMAL": 64.0,
            "SUBNORMAL_FACTOR": "0x1p64", "PER_SUBNORMAL": "0x1p-64", "INFINITE": "__builtin_inf()",
            "NOT_A_NUMBER": '__builtin_nan("")'},
}
for constants in CONSTANTS.values():
    constants |= {"PER_LN_2": 1.4426950408889634, "PER_LN_10": 0.4342944819032518}

NAMES = frozenset(f"mg_{name}_{kind}" for name in TEXT for kind in CONSTANTS)


def functions(names: Iterable[str]) -> str:
    """Return the text of these functions and of those that they call, each after what it calls."""
    found: dict[str, str] = {}
    for name in sorted(names):
        add(name, found)
    return "\n\n".join([HEAD, *found.values()]) + "\n"


def add(name: str, found: dict[str, str]) -> None:
    if name not in found:
        text = text_of(name)
        for called in re.findall(r"mg_\w+(?=\()", text.partition("{")[2]):
            add(called, found)
        found[name] = text


def text_of(name: str) -> str:
    """The function `mg_<name>_<kind>` in C."""
    stem, kind = name.removeprefix("mg_").rsplit("_", 1)
    suffix = "f" if kind == "f32" else ""
    text = TEXT[stem].strip()
    text = re.sub(r"(\w+) = POLYNOMIAL_(\w+)\((\w)\);", lambda at: horner(at[1], POLYNOMIALS[at[2]][kind], at[3]), text)
    text = re.sub(r"BUILTIN_(\w+)", rf"__builtin_\1{suffix}", text)
    text = re.sub(r"\b[A-Z][A-Z_0-9]+\b", lambda at: str(CONSTANTS[kind].get(at[0], at[0])), text)
    text = re.sub(r"\bmg_\w+(?=\()", rf"\g<0>_{kind}", text)
    text = re.sub(r"(?<![\w.])(\d+\.\d*(e[-+]?\d+)?|\d+e[-+]?\d+|0x[\d.]+p-?\d+)(?![\w.])", rf"\g<0>{suffix}", text)
    return f"MG_INLINE {text}"


def horner(y: str, coefficients: list[float], x: str) -> str:
    """y = a polynomial in x, a line for each coefficient."""
    steps = [f"{y} = mg_fma({y}, {x}, {c!r});" for c in coefficients[-2::-1]]
    return "\n    ".join([f"{y} = {coefficients[-1]!r};", *steps])
