"""Second opinion: the numerics of the spec in exact fractions, rounded once per operation.

Written from the text alone and sharing nothing with ``kakeya_ref``. Vectors of origin ``hand``
are worked with it. Numbers are Python floats that hold an fp32 value exactly.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction

F32 = (24, -149, Fraction(2) ** 128)
F16 = (11, -24, Fraction(2) ** 16)
BF16 = (8, -133, Fraction(2) ** 128)


def near(x: Fraction, form: tuple[int, int, Fraction] = F32, zero: float = 0.0) -> float:
    """``x`` rounded to nearest, ties to even; ``zero`` gives the sign of a zero result."""
    if x == 0:
        return math.copysign(0.0, zero)
    bits, least, top = form
    mag = abs(x)
    exponent = mag.numerator.bit_length() - mag.denominator.bit_length()
    exponent += 1 if mag >= Fraction(2) ** (exponent + 1) else 0
    exponent -= 1 if mag < Fraction(2) ** exponent else 0
    unit = Fraction(2) ** max(exponent - bits + 1, least)
    value = round(mag / unit) * unit  # Fraction.__round__ is half to even
    number = math.inf if value >= top else float(value)
    return math.copysign(number, -1.0 if x < 0 else 1.0)


def add(a: float, b: float) -> float:
    return near(Fraction(a) + Fraction(b), zero=a + b)


def sub(a: float, b: float) -> float:
    return near(Fraction(a) - Fraction(b), zero=a - b)


def mul(a: float, b: float) -> float:
    sign = math.copysign(1.0, a) * math.copysign(1.0, b)
    return near(Fraction(a) * Fraction(b), zero=sign)


def div(a: float, b: float) -> float:
    sign = math.copysign(1.0, a) * math.copysign(1.0, b)
    return near(Fraction(a) / Fraction(b), zero=sign)


def sqrt(a: float) -> float:
    """Nearest fp32 to the root, found with integers."""
    if a == 0:
        return 0.0
    x = Fraction(a)
    shift = 2 * max(0, 80 - x.numerator.bit_length() // 2 + x.denominator.bit_length())
    root = math.isqrt((x.numerator << shift) // x.denominator)
    exact = Fraction(root, 1 << (shift // 2))
    # 80 good bits; a sticky bit below them keeps the rounding right when the root is irrational.
    return near(exact if exact * exact == x else exact + Fraction(1, 1 << (shift // 2 + 1)))


def rint(a: float) -> int:
    """Nearest whole number, ties to even."""
    return round(Fraction(a))


def power(num: int, den: int) -> float:
    """Nearest fp32 to ``2^(num/den)``: exact integer comparison, no logarithm."""
    whole, rest = divmod(num, den)
    n = int(2 ** (23 + rest / den))
    while n**den > 2 ** (23 * den + rest):
        n -= 1
    while (n + 1) ** den <= 2 ** (23 * den + rest):
        n += 1
    up = (2 * n + 1) ** den < 2 ** (24 * den + rest)
    return float(Fraction(n + up) * Fraction(2) ** (whole - 23))


GRID = [0.0] + [power(b - 128, 8) for b in range(1, 256)]
MIDPOINT = [0.0] + [power(2 * b - 257, 16) for b in range(1, 257)]


def splitmix(seed: int, count: int) -> list[int]:
    """Outputs of SplitMix64."""
    mask, out = 2**64 - 1, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def signs(seed: int, d: int) -> list[float]:
    if seed == 0:
        return [1.0] * d
    return [-1.0 if u >> 63 else 1.0 for u in splitmix(seed, d)]


def noise(seed: int, count: int, exponent: int = -15) -> list[float]:
    """Large inputs of vectors: four 16-bit fields of each SplitMix64 output."""
    return [
        (sum(u >> s & 0xFFFF for s in (0, 16, 32, 48)) - 131070) * 2.0**exponent
        for u in splitmix(seed, count)
    ]


def blocks(d: int) -> list[int]:
    return [1 << m for m in range(10, -1, -1) if d >> m & 1]


def hadamard(x: list[float]) -> list[float]:
    out: list[float] = []
    for size in blocks(len(x)):
        block, stride = x[len(out) : len(out) + size], 1
        while stride < size:
            for i in range(size):
                if not i & stride:
                    a, b = block[i], block[i + stride]
                    block[i], block[i + stride] = add(a, b), sub(a, b)
            stride *= 2
        scale = power(-(size.bit_length() - 1), 2)
        out += [mul(v, scale) for v in block]
    return out


def rotate(x: list[float], seed: int) -> list[float]:
    return hadamard([mul(v, s) for v, s in zip(x, signs(seed, len(x)), strict=True)])


def unrotate(y: list[float], seed: int) -> list[float]:
    return [mul(v, s) for v, s in zip(hadamard(list(y)), signs(seed, len(y)), strict=True)]


def halving(values: list[float]) -> float:
    a = list(values)
    while len(a) > 1:
        h = (len(a) + 1) // 2
        a = [add(v, a[i + h]) if i + h < len(a) else v for i, v in enumerate(a[:h])]
    return a[0]


def rms(y: list[float]) -> float:
    return sqrt(div(halving([mul(v, v) for v in y]), float(len(y))))


def gain_byte(g: float) -> int:
    if not g <= MIDPOINT[256]:
        raise OverflowError("scale.byte.range")
    return sum(g > m for m in MIDPOINT[1:256])


def words(values: list[float], code: str = "f") -> bytes:
    return struct.pack(f"<{len(values)}{code}", *values)
