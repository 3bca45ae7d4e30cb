"""Second opinion on the codecs: one page of one stream, token by token, in exact fractions.

Written from the text alone. ``encode`` gives the page body, ``decode`` the coefficients and
vectors; both take a codec id with its parameters as a plain dict.
"""

from __future__ import annotations

import json
import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import byhand as hand
import byhand_trellis as trellis
from byhand import GRID, add, div, mul, near, sub, words

Page = list[list[float]]
TABLES = Path(__file__).parents[2] / "spec" / "tables.json"
E4M3 = [
    (m / 8 * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7))
    for e in range(16)
    for m in range(8)
][:127]


def table(*keys: str | int) -> list[float]:
    """A table of spec/tables.json, decoded from hex."""
    node: Any = json.loads(TABLES.read_text("utf-8"))
    for key in keys:
        node = node[key]
    return list(struct.unpack(f"<{len(node) // 8}f", bytes.fromhex(node)))


def planes(name: str, bits: int) -> list[tuple[str, int, int]]:
    """(name, width, shift) of the planes of one field."""
    out, shift = [], 0
    for width in (32, 16, 8, 4, 2, 1):
        if bits & width or (width == 32 and bits >= 64):
            out.append((f"{name}{width}", width, shift))
            shift += width
    return out


def lay(fields: list[list[int]], bits: int) -> bytes:
    """Rows of integer fields as the plane bytes of their split, each plane padded to 16."""
    out = b""
    for _, width, shift in planes("", bits):
        plane = b""
        for row in fields:
            part = [f >> shift & (1 << width) - 1 for f in row]
            if width >= 8:
                plane += b"".join(f.to_bytes(width // 8, "little") for f in part)
            else:
                size, per = len(row) * width // 8, 8 // width
                plane += bytes(
                    sum(part[j + m * size] << (m * width) for m in range(per)) for j in range(size)
                )
        out += plane + bytes(-len(plane) % 16)
    return out


def take(page: bytes, at: int, rows: int, row: int, bits: int) -> tuple[list[list[int]], int]:
    """Inverse of :func:`lay`, and where the next plane starts."""
    fields = [[0] * row for _ in range(rows)]
    for _, width, shift in planes("", bits):
        for r in range(rows):
            for i in range(row):
                if width >= 8:
                    k = at + (r * row + i) * width // 8
                    value = int.from_bytes(page[k : k + width // 8], "little")
                else:
                    size = row * width // 8
                    m, j = divmod(i, size)
                    value = page[at + r * size + j] >> (m * width) & (1 << width) - 1
                fields[r][i] |= value << shift
        at += -(-rows * row * width // 8 // 16) * 16
    return fields, at


def half(x: float) -> int:
    """Bits of the nearest fp16."""
    value = near(Fraction(x), hand.F16, x)
    if math.isinf(value):
        raise OverflowError("int.range.f16")
    return int.from_bytes(struct.pack("<e", value), "little")


def unhalf(bits: int) -> float:
    return float(struct.unpack("<e", bits.to_bytes(2, "little"))[0])


def e4m3(x: float) -> int:
    mag = min(abs(x), 448.0)
    best = min(range(127), key=lambda c: (abs(Fraction(E4M3[c]) - Fraction(mag)), c & 1))
    return best | (0x80 if math.copysign(1, x) < 0 else 0)


def rotated(x: list[float], seed: int) -> tuple[int, list[float]]:
    """Scale byte and coefficients times the reciprocal gain."""
    y = hand.rotate(x, seed)
    byte = hand.gain_byte(hand.rms(y))
    return byte, [mul(v, GRID[256 - byte]) for v in y] if byte else y


def lattice_count(n: int, q: int) -> int:
    return ((2 * q + 1) ** n + 1) // 2 + (q * (2 * q) ** 7 if n == 8 else 0)


def nearest_even(w: list[float], lo: int, hi: int) -> tuple[list[int], float]:
    c = [min(max(hand.rint(v), lo), hi) for v in w]
    if sum(c) % 2:
        moves = []
        for i, v in enumerate(w):
            e = sub(v, float(c[i]))
            d = 1 if e >= 0 else -1
            d = d if lo <= c[i] + d <= hi else -d
            moves.append((-d * e, i, d))
        _, i, d = min(moves)
        c[i] += d
    errors = [sub(v, float(k)) for v, k in zip(w, c, strict=True)]
    return c, hand.halving([mul(e, e) for e in errors])


def index(z: list[float], q: int) -> int:
    """Index of the nearest point of D4 (four numbers) or E8 (eight) in the cube."""
    n = len(z)
    c, cost = nearest_even(z, -q, q)
    value = 0
    if n == 8:
        h, cost_half = nearest_even([sub(v, 0.5) for v in z], -q, q - 1)
        if cost_half < cost:
            for k in h[:7]:
                value = value * 2 * q + k + q
            return ((2 * q + 1) ** 8 + 1) // 2 + value * q + (h[7] + q) // 2
    for k in c:
        value = value * (2 * q + 1) + k + q
    return value // 2


def point(idx: int, n: int, q: int) -> list[float]:
    """Lattice point of an index."""
    if idx >= lattice_count(n, q):
        raise ValueError("index.range")
    whole = ((2 * q + 1) ** n + 1) // 2
    if idx < whole:
        value = 2 * idx
        return [float(value // (2 * q + 1) ** (n - 1 - i) % (2 * q + 1) - q) for i in range(n)]
    value, last = divmod(idx - whole, q)
    digits = [value // (2 * q) ** (6 - i) % (2 * q) for i in range(7)]
    digits.append(2 * last + sum(digits) % 2)
    return [d - q + 0.5 for d in digits]


def encode(codec: str, p: dict[str, Any], x: Page) -> bytes:
    d = len(x[0])
    if codec == "raw":
        form = {"f32": hand.F32, "f16": hand.F16, "bf16": hand.BF16}[p["dtype"]]
        out = [near(Fraction(v), form, v) for row in x for v in row]
        if any(map(math.isinf, out)):
            raise OverflowError("raw.range")
        if p["dtype"] == "bf16":
            return b"".join(words([v])[2:] for v in out)
        return words(out, "f" if p["dtype"] == "f32" else "e")
    if codec == "fp8":
        bytes_, codes = [], []
        for row in x:
            amax = max(map(abs, row))
            g = mul(amax, near(Fraction(1, 448)))
            if g > GRID[255]:
                raise OverflowError("fp8.scale.up")
            b = min(b for b in range(1, 256) if GRID[b] >= g) if amax else 0
            bytes_.append(b)
            codes.append([e4m3(mul(v, GRID[256 - b])) if b else 0 for v in row])
        return lay([bytes_], 8) + lay(codes, 8)
    if codec == "int":
        return _encode_int(p, x)
    tokens = [rotated(row, p["seed"]) for row in x]
    if codec == "scalar":
        cuts = table("lloyd_max", str(p["b"]), "thresholds")
        codes = [[sum(v > t for t in cuts) if b else 0 for v in z] for b, z in tokens]
        return lay([[b for b, _ in tokens]], 8) + lay(codes, p["b"])
    if codec == "trellis":
        codes = [trellis.search(z, p["b"]) if b else [0] * d for b, z in tokens]
        bytes_ = [b for b, _ in tokens]
        if p["gain"] == "unbiased":
            bytes_ = [
                trellis.unbiased(b, z, trellis.values(row, p["b"])) if b else 0
                for (b, z), row in zip(tokens, codes, strict=True)
            ]
        return lay([bytes_], 8) + lay(codes, p["b"])
    n, q = (4 if codec == "d4" else 8), p["q"]
    _, kinv = table("lattice_step", codec, q - 1)
    row: list[int] = []
    for b, y in ((hand_byte, x_) for (hand_byte, _), x_ in zip(tokens, x, strict=True)):
        r = mul(GRID[256 - b], kinv) if b else 0.0
        z = [mul(v, r) for v in hand.rotate(y, p["seed"])] if b else []
        row += [index(z[i : i + n], q) if b else 0 for i in range(0, d, n)]
    bits = (lattice_count(n, q) - 1).bit_length()
    return lay([[b for b, _ in tokens]], 8) + lay([row], bits)


def _groups(p: dict[str, Any], tokens: int, d: int) -> list[list[list[tuple[int, int]]]]:
    """Cells (token, channel) of every group, in rows as the parameter planes hold them."""
    g = p["g"]
    if p["axis"] == "token":
        return [
            [[(t, c) for c in range(at, min(at + g, d))] for at in range(0, d, g)]
            for t in range(tokens)
        ]
    return [
        [[(t, c) for t in range(at, min(at + g, tokens))] for c in range(d)]
        for at in range(0, tokens, g)
    ]


def _encode_int(p: dict[str, Any], x: Page) -> bytes:
    top = 2 ** p["b"] - 1
    codes = [[0] * len(x[0]) for _ in x]
    los, steps = [], []
    for row in _groups(p, len(x), len(x[0])):
        los.append([half(min(x[t][c] for t, c in cells)) for cells in row])
        los[-1] = [0 if bits == 0x8000 else bits for bits in los[-1]]  # int.lo.positive-zero
        steps.append([])
        for cells, lo_bits in zip(row, los[-1], strict=True):
            values = [x[t][c] for t, c in cells]
            step_bits = half(div(sub(max(values), min(values)), float(top)))
            steps[-1].append(step_bits)
            lo, step = unhalf(lo_bits), unhalf(step_bits)
            for (t, c), v in zip(cells, values, strict=True):
                k = hand.rint(div(sub(v, lo), step)) if step else 0
                codes[t][c] = min(max(k, 0), top)
    return lay(los, 16) + lay(steps, 16) + lay(codes, p["b"])


def decode(codec: str, p: dict[str, Any], page: bytes, tokens: int, d: int) -> tuple[Page, Page]:
    """Coefficients and vectors of a page body."""
    if codec == "raw":
        width = 32 if p["dtype"] == "f32" else 16
        fields, _ = take(page, 0, tokens, d, width)
        to = {"f32": lambda v: v, "f16": None, "bf16": lambda v: v << 16}[p["dtype"]]
        if to is None:
            out = [[unhalf(v) for v in row] for row in fields]
        else:
            out = [[struct.unpack("<f", to(v).to_bytes(4, "little"))[0] for v in r] for r in fields]
        return out, out
    if codec == "int":
        return _decode_int(p, page, tokens, d)
    (scale,), at = take(page, 0, 1, tokens, 8)
    gains = [GRID[b] for b in scale]
    if codec == "fp8":
        fields, _ = take(page, at, tokens, d, 8)
        if any(v & 127 == 127 for row in fields for v in row):
            raise ValueError("fp8.code.nan")
        signed = [[-E4M3[v - 128] if v & 128 else E4M3[v] for v in row] for row in fields]
        out = [[mul(v, g) if g else 0.0 for v in r] for r, g in zip(signed, gains, strict=True)]
        return out, out
    if codec in ("scalar", "trellis"):
        fields, _ = take(page, at, tokens, d, p["b"])
        if codec == "scalar":
            values = table("lloyd_max", str(p["b"]), "centroids")
            rows = [[values[v] for v in row] for row in fields]
        else:
            rows = [trellis.values(row, p["b"]) for row in fields]
        coef = [[mul(v, g) if g else 0.0 for v in r] for r, g in zip(rows, gains, strict=True)]
    else:
        n, q = (4 if codec == "d4" else 8), p["q"]
        bits = (lattice_count(n, q) - 1).bit_length()
        (row,), _ = take(page, at, 1, tokens * d // n, bits)
        kappa, _ = table("lattice_step", codec, q - 1)
        points = [point(v, n, q) for v in row]
        coef = []
        for t, g in enumerate(gains):
            st, per = mul(g, kappa), d // n
            flat = [v for cell in points[t * per : (t + 1) * per] for v in cell]
            coef.append([mul(v, st) if g else 0.0 for v in flat])
    return coef, [hand.unrotate(row, p["seed"]) for row in coef]


def _decode_int(p: dict[str, Any], page: bytes, tokens: int, d: int) -> tuple[Page, Page]:
    groups = _groups(p, tokens, d)
    los, at = take(page, 0, len(groups), len(groups[0]), 16)
    steps, at = take(page, at, len(groups), len(groups[0]), 16)
    codes, _ = take(page, at, tokens, d, p["b"])
    out = [[0.0] * d for _ in range(tokens)]
    for row, lo_row, step_row in zip(groups, los, steps, strict=True):
        for cells, lo_bits, step_bits in zip(row, lo_row, step_row, strict=True):
            if lo_bits & 0x7C00 == 0x7C00 or step_bits >= 0x7C00:
                raise ValueError("int.params.finite")
            lo, step = unhalf(lo_bits), unhalf(step_bits)
            for t, c in cells:
                out[t][c] = add(lo, mul(float(codes[t][c]), step))
    return out, out
