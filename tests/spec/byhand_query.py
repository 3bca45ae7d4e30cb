"""Second opinion on ``query``: one page and its table, in exact fractions, from the text alone.

The walk keeps whole paths, and every number of a walk may have other bits than the one before.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import byhand as hand
import byhand_skeletons as skeletons
from byhand import GRID, add, div, mul, sub
from byhand_codecs import Page, take

SPEC = Path(__file__).parents[2] / "spec"
TRELLIS = json.loads((SPEC / "trellis.json").read_text("utf-8"))
TABLES = json.loads((SPEC / "tables.json").read_text("utf-8"))
SAVINGS = TABLES["query"]["savings"]
Row = list[float]
Table = dict[str, list[Row]]


def floats(text: str) -> Row:
    return list(struct.unpack(f"<{len(text) // 8}f", bytes.fromhex(text)))


def read(data: bytes, d: int) -> Table:
    """Numbers of a table body."""
    out, at = {}, 0
    for name, rows, row in (("mean", 1, d), ("basis", d, d), ("spread", 1, d // 8)):
        fields, at = take(data, at, rows, row, 16)
        out[name] = [[skeletons.widen(v, "f16") for v in line] for line in fields]
    spread = out["spread"][0]
    if sorted(spread, reverse=True) != spread or spread[-1] < 0:
        raise ValueError("spread.descending")
    return out


def share(spread: Row, total: int) -> list[int]:
    """Bits of every number that has any."""
    bits, savings = [0] * len(spread), floats(SAVINGS)
    for _ in range(total):
        worth = [mul(s, savings[n]) if n < 7 else -1.0 for s, n in zip(spread, bits, strict=True)]
        bits[worth.index(max(worth))] += 1
    return [n for n in bits for _ in range(8) if n]


def label(lows: list[int]) -> int:
    out = 0
    for age, bit in enumerate(reversed(lows[-8:])):
        out ^= TRELLIS["columns"][age] if bit else 0
    return out


def walk(z: Row, bits: list[int], weight: Row) -> list[int]:
    """Codes of least cost; a path is known by its last seven low bits, oldest first."""
    paths: dict[tuple[int, ...], tuple[float, list[int]]] = {(0,) * 7: (0.0, [])}
    for number, n, w in zip(z, bits, weight, strict=True):
        table, nearest = floats(TRELLIS["values"][str(n)]), []
        for name in range(16):
            square = [mul(sub(number, v), sub(number, v)) for v in table[name::16]]
            nearest.append((mul(min(square), w), square.index(min(square))))
        grown: dict[tuple[int, ...], tuple[float, list[int]]] = {}
        for lows in sorted(paths):
            cost, codes = paths[lows]
            for low in (0, 1):
                square_, pick = nearest[label([*lows, low])]
                total, key = add(cost, square_), (*lows[1:], low)
                if key not in grown or total < grown[key][0]:
                    grown[key] = (total, [*codes, 2 * pick + low])
        paths = grown
    least = min(cost for cost, _ in paths.values())
    return next(paths[lows][1] for lows in sorted(paths) if paths[lows][0] == least)


def encoded(z: Row, bits: list[int], weight: Row) -> list[int]:
    """Codes of wide numbers by thresholds, of the others by a walk."""
    wide = sum(n > 3 for n in bits)
    cuts = [lloyd(n, "thresholds") for n in bits[:wide]]
    codes = [sum(v > cut for cut in row) for v, row in zip(z, cuts, strict=False)]
    return codes + walk(z[wide:], bits[wide:], weight[wide:])


def lloyd(n: int, which: str) -> Row:
    return floats(TABLES["lloyd_max"][str(n)][which])


def encode(p: dict[str, Any], x: Page, data: bytes, analysis: list[Row] | None = None) -> bytes:
    """Page body of a page, with the table body ``data``."""
    d = len(x[0])
    t, total = read(data, d), p["b"] * d // 80
    bits, scales, rows = share(t["spread"][0], total), b"", b""
    for vector in x:
        y = skeletons.project(vector, t, analysis)[: len(bits)]
        if not all(math.isfinite(v) for v in y):
            raise OverflowError("value.range")
        reach = [
            div(abs(v), lloyd(n, "centroids")[-1]) for v, n in zip(y, bits, strict=True) if n > 3
        ]
        byte = hand.gain_byte(max([hand.rms(y), *reach]))
        z = [mul(v, GRID[256 - byte]) if byte else 0.0 for v in y]
        weight = [s for s in t["spread"][0] for _ in range(8)][: len(bits)]
        codes = encoded(z, bits, weight) if byte else [0] * len(bits)
        text = "".join(f"{code:0{n}b}" for code, n in zip(codes, bits, strict=True))
        scales += bytes([byte])
        rows += int(text, 2).to_bytes(total, "big")
    return scales + bytes(-len(scales) % 16) + rows + bytes(-len(rows) % 16)


def decode(p: dict[str, Any], page: bytes, data: bytes, tokens: int, d: int) -> tuple[Page, Page]:
    """Coefficients and vectors of a page body."""
    t, total = read(data, d), p["b"] * d // 80
    bits, at = share(t["spread"][0], total), -(-tokens // 16) * 16
    coefficients = []
    for i in range(tokens):
        row = page[at + i * total : at + (i + 1) * total]
        text, lows, out = f"{int.from_bytes(row, 'big'):0{8 * total}b}", [], [0.0] * d
        for j, n in enumerate(bits):
            code, text = int(text[:n], 2), text[n:]
            if n > 3:
                value = lloyd(n, "centroids")[code]
                out[j] = mul(value, GRID[page[i]]) if page[i] else 0.0
                continue
            lows.append(code & 1)
            value = floats(TRELLIS["values"][str(n)])[16 * (code >> 1) + label(lows)]
            out[j] = mul(value, GRID[page[i]]) if page[i] else 0.0
        coefficients.append(out)
    return coefficients, [skeletons.synthesise(c, t) for c in coefficients]
