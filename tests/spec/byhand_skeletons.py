"""Second opinion on ``skeleton`` and ``turbo``: one page and its table, in exact fractions.

Written from the text alone. Overflow anywhere raises ``OverflowError``, bytes
that no encoder writes ``ValueError``. The coded basis is the
vector itself, so ``decode`` gives one thing.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from itertools import pairwise
from typing import Any

import byhand as hand
from byhand import GRID, add, mul, near, sub
from byhand_codecs import Page, lay, table, take, unhalf

Row = list[float]
Params = dict[str, Any]
Table = dict[str, list[Row]]


def chain(x: Row, r: Row) -> float:
    total = 0.0
    for a, b in zip(x, r, strict=True):
        total = add(total, mul(a, b))
    return total


def store(v: float, kind: str) -> int:
    """Bits of a number in the type ``kind``."""
    value = near(Fraction(v), hand.F16 if kind == "f16" else hand.BF16, v)
    if math.isinf(value):
        raise OverflowError("value.range")
    if kind == "f16":
        return int.from_bytes(struct.pack("<e", value), "little")
    return int.from_bytes(struct.pack("<f", value)[2:], "little")


def widen(bits: int, kind: str) -> float:
    if kind == "f16":
        value = unhalf(bits)
    else:
        value = float(struct.unpack("<f", (bits << 16).to_bytes(4, "little"))[0])
    if not math.isfinite(value):
        raise ValueError("value.finite")
    return value


def shapes(codec: str, p: Params, d: int) -> list[tuple[str, int, int]]:
    """(name, rows, row) of the planes of a table."""
    out = [("mean", 1, d), ("basis", p["rank"], d), ("centres", p["k"], p["rank"])]
    if codec == "skeleton" and p["time"] == "trend":
        out.append(("trend", 1, p["rank"]))
    if codec == "turbo" and p["levels"] == "own":
        out.append(("levels", 1, 2 ** p["b"]))
    return out


def body(codec: str, p: Params, numbers: Table) -> bytes:
    """Table body of numbers by plane."""
    d, out = len(numbers["mean"][0]), b""
    for name, rows, row in shapes(codec, p, d):
        assert (len(numbers[name]), len(numbers[name][0])) == (rows, row), name
        out += lay([[store(v, p["store"]) for v in line] for line in numbers[name]], 16)
    return out


def read(codec: str, p: Params, data: bytes, d: int) -> Table:
    """Numbers of a table body."""
    out, at = {}, 0
    for name, rows, row in shapes(codec, p, d):
        fields, at = take(data, at, rows, row, 16)
        out[name] = [[widen(v, p["store"]) for v in line] for line in fields]
    levels = out.get("levels", [[]])[0]
    if levels != sorted(levels):
        raise ValueError("levels.ascending")
    return out


def bits_of(n: int) -> int:
    """Width of a field with ``n`` values."""
    return (n - 1).bit_length()


def segment(c: Row, t: Table, p: Params) -> tuple[int, int, Row]:
    """Centre, stored projection, residual."""
    dots = [chain(c, centre) for centre in t["centres"]]
    seg = max(range(len(dots)), key=lambda j: (abs(dots[j]), -j))
    proj = store(dots[seg], p["store"])
    length = widen(proj, p["store"])
    rest = [sub(v, mul(length, h)) for v, h in zip(c, t["centres"][seg], strict=True)]
    return seg, proj, rest


def largest(values: Row, n: int) -> list[int]:
    return sorted(sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:n])


def project(x: Row, t: Table, analysis: list[Row] | None) -> Row:
    centred = [sub(v, m) for v, m in zip(x, t["mean"][0], strict=True)]
    return [chain(centred, row) for row in (analysis or t["basis"])]


def synthesise(c: Row, t: Table) -> Row:
    out = []
    for j, mean in enumerate(t["mean"][0]):
        value = add(chain(c, [row[j] for row in t["basis"]]), mean)
        if math.isinf(value):
            raise ValueError("value.finite")
        out.append(value)
    return out


def encode(codec: str, p: Params, x: Page, data: bytes, analysis: list[Row] | None = None) -> bytes:
    """Page body of a page, read with the table body ``data``."""
    t = read(codec, p, data, len(x[0]))
    cs = [project(row, t, analysis) for row in x]
    return _skeleton(p, t, cs) if codec == "skeleton" else _turbo(p, t, cs)


def _skeleton(p: Params, t: Table, cs: Page) -> bytes:
    m = min(p["res"], p["rank"])
    segs, alongs, projs, values, places = [], [], [], [], []
    for c in cs:
        if p["time"] == "trend":
            alongs.append(store(chain(c, t["trend"][0]), p["store"]))
            length = widen(alongs[-1], p["store"])
            c = [sub(v, mul(length, h)) for v, h in zip(c, t["trend"][0], strict=True)]
        seg, proj, rest = segment(c, t, p)
        at = largest(rest, m)
        segs.append(seg)
        projs.append(proj)
        values.append([store(rest[i], p["store"]) for i in at])
        places += at
    out = lay([segs], bits_of(p["k"]))
    out += lay([alongs], 16) if alongs else b""
    out += lay([projs], 16) + lay(values, 16)
    return out + (lay([places], bits_of(p["rank"])) if m < p["rank"] else b"")


def quantiser(p: Params, t: Table) -> tuple[Row, Row]:
    """Levels and thresholds."""
    if p["levels"] == "normal":
        pair = (table("lloyd_max", str(p["b"]), n) for n in ("centroids", "thresholds"))
        return next(pair), next(pair)
    own = t["levels"][0]
    sums = [add(a, z) for a, z in pairwise(own)]
    return own, [v if math.isinf(v) else mul(v, 0.5) for v in sums]


def _turbo(p: Params, t: Table, cs: Page) -> bytes:
    w = (p["rank"] + 7) // 8 * 8
    _, cuts = quantiser(p, t)
    scales, segs, projs, codes, zs = [], [], [], [], []
    for c in cs:
        seg, proj, rest = segment(c, t, p)
        y = hand.rotate(rest + [0.0] * (w - len(rest)), p["seed"])
        byte = hand.gain_byte(hand.rms(y))
        r = GRID[256 - byte] if byte else 0.0
        z = [mul(v, r) for v in y]
        scales.append(byte)
        segs.append(seg)
        projs.append(proj)
        codes.append([sum(v > cut for cut in cuts) if byte else 0 for v in z])
        zs += z
    out = lay([scales], 8) + lay([segs], bits_of(p["k"])) + lay([projs], 16) + lay(codes, p["b"])
    if p["out"]:
        at = largest(zs, p["out"])
        out += lay([[store(zs[i], p["store"]) for i in at]], 16)
        out += lay([at], bits_of(len(zs)))
    return out


def decode(codec: str, p: Params, page: bytes, data: bytes, tokens: int, d: int) -> Page:
    """Vectors of a page body, read with the table body ``data``."""
    t, at, kind = read(codec, p, data, d), 0, p["store"]
    if codec == "turbo":
        (scales,), at = take(page, at, 1, tokens, 8)
    (segs,), at = take(page, at, 1, tokens, bits_of(p["k"]))
    if max(segs) >= p["k"]:
        raise ValueError("seg.range")
    alongs = [0] * tokens
    if codec == "skeleton" and p["time"] == "trend":
        (alongs,), at = take(page, at, 1, tokens, 16)
    (projs,), at = take(page, at, 1, tokens, 16)
    parts = [
        [mul(widen(proj, kind), h) for h in t["centres"][seg]]
        for seg, proj in zip(segs, projs, strict=True)
    ]
    if codec == "skeleton":
        rests = _residuals(p, page, at, tokens)
        if p["time"] == "trend":
            parts = [
                [add(mul(widen(length, kind), h), v) for h, v in zip(t["trend"][0], c, strict=True)]
                for length, c in zip(alongs, parts, strict=True)
            ]
    else:
        rests = _rotated(p, t, page, at, scales)
    sums = [
        [add(v, r) for v, r in zip(c, rest[: p["rank"]], strict=True)]
        for c, rest in zip(parts, rests, strict=True)
    ]
    return [synthesise(c, t) for c in sums]


def _ascend(places: list[int], count: int) -> None:
    if places != sorted(set(places)) or places[-1] >= count:
        raise ValueError("ascending")


def _residuals(p: Params, page: bytes, at: int, tokens: int) -> Page:
    m, rank = min(p["res"], p["rank"]), p["rank"]
    values, at = take(page, at, tokens, m, 16)
    flat = list(range(m)) * tokens
    if m < rank:
        (flat,), at = take(page, at, 1, tokens * m, bits_of(rank))
    out = []
    for token, row in enumerate(values):
        places = flat[token * m : (token + 1) * m]
        _ascend(places, rank)
        rest = [0.0] * rank
        for i, v in zip(places, row, strict=True):
            rest[i] = widen(v, p["store"])
        out.append(rest)
    return out


def _rotated(p: Params, t: Table, page: bytes, at: int, scales: list[int]) -> Page:
    w, tokens = (p["rank"] + 7) // 8 * 8, len(scales)
    levels, _ = quantiser(p, t)
    codes, at = take(page, at, tokens, w, p["b"])
    z = [levels[c] for row in codes for c in row]
    if p["out"]:
        (values,), at = take(page, at, 1, p["out"], 16)
        (places,), at = take(page, at, 1, p["out"], bits_of(tokens * w))
        _ascend(places, tokens * w)
        for i, v in zip(places, values, strict=True):
            z[i] = widen(v, p["store"])
    rows = [z[i * w : (i + 1) * w] for i in range(tokens)]
    scaled = [
        [mul(v, GRID[b]) if b else 0.0 for v in row] for row, b in zip(rows, scales, strict=True)
    ]
    return [hand.unrotate(row, p["seed"]) for row in scaled]
