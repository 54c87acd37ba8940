"""Derive the numbers in minigrad/printers/c_math.py, in fractions and decimals of 60 digits.

    python tests/printers/polynomials.py

EXP and LOG interpolate their functions at the Chebyshev nodes of an interval, which is within a small factor of the
best polynomial (Remez).
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, getcontext
from itertools import pairwise
from math import cos, factorial, floor, frexp, ldexp, pi

getcontext().prec = 60
LN_2, LN_10 = Decimal(2).ln(), Decimal(10).ln()


def exp_rest(r: Decimal) -> Decimal:
    """(eʳ − 1 − r) / r²."""
    return sum((r**k / factorial(k + 2) for k in range(40)), Decimal(0))


def log_rest(z: Decimal) -> Decimal:
    """(ln((1 + s) / (1 − s)) / s − 2) / s² with z = s²."""
    return sum((2 * z**k / (2 * k + 3) for k in range(60)), Decimal(0))


def interpolate(f: Callable[[Decimal], Decimal], low: Decimal, high: Decimal, degree: int) -> list[float]:
    """Coefficients, from the constant on, of the polynomial that equals f at degree + 1 Chebyshev nodes."""
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = [middle + half * Decimal(cos(pi * (k + 0.5) / (degree + 1))) for k in range(degree + 1)]
    divided = [f(x) for x in nodes]
    for k in range(1, degree + 1):  # Newton's divided differences
        for i in range(degree, k - 1, -1):
            divided[i] = (divided[i] - divided[i - 1]) / (nodes[i] - nodes[i - k])
    powers = [divided[degree]]
    for x, value in zip(nodes[-2::-1], divided[-2::-1]):  # p ← p (r − x) + value
        powers = [value - x * powers[0], *(a - x * b for a, b in pairwise(powers)), powers[-1]]
    return list(map(float, powers))


def parts(name: str, kind: str) -> tuple[float, float]:
    """A constant as a sum, the first part so short that its product with an exponent is exact."""
    exact = {"LN_2": LN_2, "LOG_2": LN_2 / LN_10}[name]
    mantissa, exponent = frexp(float(exact))
    bits = {"f32": 12, "f64": 41}[kind]
    high = ldexp(floor(mantissa * 2**bits), exponent - bits)
    return high, float(exact - Decimal(high))


# 1 + f lies between √½ and √2, and s = f / (2 + f)
LARGEST = ((Decimal(2).sqrt() - 1) / (Decimal(2).sqrt() + 1)) ** 2


def coefficients(name: str, kind: str) -> list[float]:
    single = kind == "f32"
    if name == "EXP":
        return interpolate(exp_rest, -LN_2 / 2, LN_2 / 2, 5 if single else 10)
    return interpolate(log_rest, Decimal(0), LARGEST, 3 if single else 7)


if __name__ == "__main__":
    for kind in ("f32", "f64"):
        for name in ("EXP", "LOG"):
            print(name, kind, coefficients(name, kind))
        for name in ("LN_2", "LOG_2"):
            print(name, kind, *parts(name, kind))
