"""Derive the coefficients of the polynomials in minigrad/printers/c_math.py, in decimals of 60 digits.

    python tests/printers/polynomials.py

Each polynomial interpolates its function at the Chebyshev nodes of an interval, which is within a small factor of the
best one (Remez). The functions are power series, so no library is needed but `decimal`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, getcontext
from math import cos, factorial, pi

getcontext().prec = 60
LN2 = Decimal(2).ln()


def exp_rest(r: Decimal) -> Decimal:
    """(eʳ − 1 − r) / r²."""
    return sum((r**k / factorial(k + 2) for k in range(40)), Decimal(0))


def log_rest(z: Decimal) -> Decimal:
    """(ln((1 + s) / (1 − s)) / s − 2) / s² with z = s²."""
    return sum((2 * z**k / (2 * k + 3) for k in range(60)), Decimal(0))


def interpolate(f: Callable[[Decimal], Decimal], low: Decimal, high: Decimal, degree: int) -> list[Decimal]:
    """Coefficients, from the constant on, of the polynomial that equals f at degree + 1 Chebyshev nodes."""
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = [middle + half * Decimal(cos(pi * (k + 0.5) / (degree + 1))) for k in range(degree + 1)]
    divided = [f(x) for x in nodes]
    for k in range(1, degree + 1):  # Newton's divided differences
        for i in range(degree, k - 1, -1):
            divided[i] = (divided[i] - divided[i - 1]) / (nodes[i] - nodes[i - k])
    powers = [divided[degree]]
    for x, value in zip(nodes[-2::-1], divided[-2::-1]):  # p ← p (r − x) + value
        powers = [value - x * powers[0], *(a - x * b for a, b in zip(powers, powers[1:])), powers[-1]]
    return powers


# z = s² with s = f / (2 + f), for 1 + f between √½ and √2
LARGEST = ((Decimal(2).sqrt() - 1) / (Decimal(2).sqrt() + 1)) ** 2

POLYNOMIALS = {  # {name in c_math.py: (function, interval, degree for float32, degree for float64)}
    "EXP": (exp_rest, (-LN2 / 2, LN2 / 2), 5, 10),
    "LOG": (log_rest, (Decimal(0), LARGEST), 3, 7),
}


def coefficients(name: str, dtype: str) -> list[float]:
    f, (low, high), *degrees = POLYNOMIALS[name]
    return [float(c) for c in interpolate(f, low, high, degrees[dtype == "float64"])]


if __name__ == "__main__":
    for name in POLYNOMIALS:
        for dtype in ("float32", "float64"):
            print(name, dtype, coefficients(name, dtype))
