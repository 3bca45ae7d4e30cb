"""Second opinion on the trellis: whole paths instead of back pointers, in exact fractions.

Written from spec/codecs/trellis.md alone.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import byhand as hand

TRELLIS = json.loads((Path(__file__).parents[2] / "spec" / "trellis.json").read_text("utf-8"))


def numbers(bits: int) -> list[float]:
    text = TRELLIS["values"][str(bits)]
    return list(struct.unpack(f"<{len(text) // 8}f", bytes.fromhex(text)))


def label(lows: list[int]) -> int:
    """Label after these low bits, oldest first; what is missing before them is 0."""
    out = 0
    for age, bit in enumerate(reversed(lows[-8:])):
        out ^= TRELLIS["columns"][age] if bit else 0
    return out


def values(codes: list[int], bits: int) -> list[float]:
    lows = [code & 1 for code in codes]
    return [numbers(bits)[16 * (code >> 1) + label(lows[: i + 1])] for i, code in enumerate(codes)]


def search(z: list[float], bits: int) -> list[int]:
    """Codes of least cost. A path is known by its last seven low bits, oldest first."""
    table = numbers(bits)
    paths: dict[tuple[int, ...], tuple[float, list[int]]] = {(0,) * 7: (0.0, [])}
    for number in z:
        nearest = []
        for name in range(16):
            off = [hand.sub(number, v) for v in table[name::16]]
            square = [hand.mul(v, v) for v in off]
            nearest.append((min(square), square.index(min(square))))
        grown: dict[tuple[int, ...], tuple[float, list[int]]] = {}
        # Ascending by the number that the seven bits spell, so that of equals the lower one stays.
        for lows in sorted(paths):
            cost, codes = paths[lows]
            for low in (0, 1):
                square, pick = nearest[label([*lows, low])]
                total, key = hand.add(cost, square), (*lows[1:], low)
                if key not in grown or total < grown[key][0]:
                    grown[key] = (total, [*codes, 2 * pick + low])
        paths = grown
    least = min(cost for cost, _ in paths.values())
    return next(paths[lows][1] for lows in sorted(paths) if paths[lows][0] == least)


def unbiased(byte: int, z: list[float], values: list[float]) -> int:
    """The byte of what the size along itself asks for, when byte ``byte`` made the vector ``z``."""
    along = hand.halving([hand.mul(a, v) for a, v in zip(z, values, strict=True)])
    if not along > 0:
        return byte
    size = hand.halving([hand.mul(a, a) for a in z])
    gain = hand.mul(hand.GRID[byte], hand.div(size, along))
    return max(min(hand.gain_byte(min(gain, hand.GRID[255])), byte + 8, 255), 1)
