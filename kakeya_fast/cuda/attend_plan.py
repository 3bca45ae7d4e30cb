"""What attention kernels are compiled with and read: numbers, tables, shared memory, the grid.

Shared by the device build and the host build; kernels/attend_plan.cuh has the same numbers.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.tables import lloyd_max, trellis_values
from kakeya_ref.types import PageLayout

HEAD_DIMS = (64, 128, 256)
BITS = {"scalar": (2, 3, 4), "trellis": (2,)}
WALKED = 2
# Sums of a lane: 64 registers at most, so that unpacking has room beside them.
SUMS = 256
ENTRY = "kakeya_attend"
MOST_SPLITS = 127
FIELDS = (
    *("D", "DV", "P", "T", "KIND", "KB", "VB", "KC", "VC", "NT", "WARPS", "STAGES"),
    *("SOFTCAP", "WINDOW", "BIAS"),
)


class Numbers(NamedTuple):
    """The numbers of ``Attend`` in kernels/attend_plan.cuh, in its order."""

    d: int
    dv: int
    p: int
    t: int
    kind: int
    kb: int
    vb: int
    kc: int
    vc: int
    nt: int
    warps: int
    stages: int
    softcap: int = 0
    window: int = 0
    bias: int = 0

    @property
    def rows(self) -> int:
        """Query rows of a block."""
        return 8 * self.nt

    @property
    def stage(self) -> int:
        """Bytes of one tile in shared memory."""
        return 16 + 2 * self.t + self.t * (self.d * self.kb + self.dv * self.vb) // 8

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        tiles = max(self.warps * self.stages * self.stage, self.warps * self.dv * self.rows * 4)
        rest = self.rows * (2 * self.d + 12 + 8 * (self.warps + 1)) + 16
        named = max(_named(self.kb, self.kc), _named(self.vb, self.vc))
        return tiles + rest + 256 * named

    @property
    def partial(self) -> int:
        """Floats of a partial result in the work space."""
        return (self.dv + 2) * self.rows

    def defines(self, resident: int) -> tuple[str, ...]:
        """Macros, as compiler options; ``resident``: blocks that shall fit a multiprocessor."""
        found = dict(zip(FIELDS, self, strict=True))
        found |= {"SHARED": self.shared, "RESIDENT": resident}
        return tuple(f"-DKAKEYA_{name}={value}" for name, value in found.items())


def refusal(layouts: tuple[PageLayout, PageLayout]) -> str:
    """Why no kernel attends over pages of these layouts of K and V, or nothing.

    Rule: attend.operand.fits
    """
    for layout in layouts:
        bits = BITS.get(layout.codec.id, ())
        if not bits or layout.codec.integer("b") not in bits:
            return f"no attention kernel for {layout.codec}, only for bits {BITS}"
        if layout.head_dim not in HEAD_DIMS:
            return f"no attention kernel for head dim {layout.head_dim}, only for {HEAD_DIMS}"
    if layouts[0].tokens != layouts[1].tokens:
        return "pages of K and V differ in tokens"
    return ""


class Tuning(NamedTuple):
    """What may be chosen freely.

    Warps of a block, tiles in flight for each, blocks of a multiprocessor; and whether codes of K
    and of V are looked up in shared memory, as those of 4 bits always are, or permuted.
    """

    warps: int = 16
    stages: int = 3
    resident: int = 1
    keys: int = 0
    values: int = 0


def tuning(layouts: tuple[PageLayout, PageLayout], rows: int, shared: int = 227 << 10) -> Tuning:
    """What was fastest on an H200, within ``shared`` bytes of a block.

    Measured for head dim 128; benchmarks/GPU_ATTENTION.md.
    """
    d = max(layout.head_dim for layout in layouts)
    # Registers: 128 of a lane suffice for one product of 8 rows and 128 numbers.
    wide = d * _eights(layouts, rows) > 128
    # Values of 3 bits come out of registers: shared memory is busy with the keys.
    tuned = Tuning(8 if wide else 16, 2, 1, 1, int(layouts[1].codec.integer("b") != 3))
    while tuned.warps > 1 and numbers(layouts, 0, rows, tuned).shared > shared:
        tuned = tuned._replace(warps=tuned.warps // 2)
    return tuned


def splits(n: Numbers, blocks: int, pages: int, room: int) -> int:
    """How many blocks shall share the pages of a KV head, where ``room`` blocks run at once.

    The time is that of the rounds times the tiles of a warp and what a block costs beside them,
    about three tiles.
    """
    tiles = max(1, pages * n.p // n.t)

    def cost(count: int) -> int:
        of_warp = ceil(ceil(tiles / count) / n.warps)
        return ceil(blocks * count / room) * (of_warp + 3)

    return min(range(1, min(MOST_SPLITS, -(-tiles // n.warps)) + 1), key=cost)


def numbers(
    layouts: tuple[PageLayout, PageLayout],
    kind: int,
    rows: int,
    tuned: Tuning,
    *,
    softcap: bool = False,
    window: bool = False,
    bias: bool = False,
) -> Numbers:
    """Numbers of a call with ``rows`` query rows for each KV head."""
    k, v = layouts
    nt = _eights(layouts, rows)
    return Numbers(
        k.head_dim,
        v.head_dim,
        k.tokens,
        16 if k.tokens % 32 else 32,
        kind,
        k.codec.integer("b"),
        v.codec.integer("b"),
        _way(k, tuned.keys),
        _way(v, tuned.values),
        nt,
        tuned.warps,
        tuned.stages,
        int(softcap),
        int(window),
        int(bias),
    )


def _way(layout: PageLayout, looked_up: int) -> int:
    if layout.codec.id == "trellis":
        return WALKED
    return int(looked_up or layout.codec.integer("b") == 4)


def _named(bits: int, way: int) -> int:
    return 0 if not way else 120 if bits == 3 else 256


def _eights(layouts: tuple[PageLayout, PageLayout], rows: int) -> int:
    most = SUMS // max(layout.head_dim for layout in layouts)
    return min(most, 1 << (-(-rows // 8) - 1).bit_length())


@lru_cache(maxsize=64)
def tables(*layouts: PageLayout) -> NDArray[np.uint32]:
    """Values of the codes of both streams, as kernels/attend_plan.cuh names them.

    Values are kept times a constant, and gains over it, that makes the values round well.

    Rule: scalar.decode.product, trellis.decode.product, scale.byte.grid
    """
    words = np.zeros(42, np.uint32)
    for stream, layout in enumerate(layouts):
        codec = layout.codec
        if codec.id == "trellis":  # these numbers are exact
            lower = trellis_values(codec.integer("b"))[:16].astype(np.float64)
            patterns, scale = _patterns(lower, bool(stream)), 1.0
        else:
            patterns, scale = values(codec.integer("b"), bf16=bool(stream))
        padded = np.resize(patterns, 16)
        words[16 * stream : 16 * stream + 16] = padded
        halves = np.concatenate([padded[:8] & 255, padded[:8] >> 8]).astype(np.uint8)
        words[32 + 4 * stream : 36 + 4 * stream] = halves.view("<u4")
        words[40 + stream] = np.float32(-16 - np.log2(scale)).view(np.uint32)
    words.setflags(write=False)
    return words


@lru_cache(maxsize=16)
def values(bits: int, *, bf16: bool) -> tuple[NDArray[np.uint32], float]:
    """Centroids as 16-bit patterns, and the constant that they are kept times.

    The constant is the one between 1 and 2 under which the patterns err least, in the mean over
    the codes of normal numbers.
    """
    exact, thresholds = (x.astype(np.float64) for x in lloyd_max(bits))
    edges = np.concatenate([[-np.inf], thresholds, [np.inf]])
    share = np.exp(-(exact**2) / 2) * np.diff(np.clip(edges, -4, 4))
    best = (np.inf, 1.0)
    for scale in 1 + np.arange(1024) / 1024:
        rounded = _widen(_patterns(exact * scale, bf16), bf16) / scale
        best = min(best, (float((share * (rounded - exact) ** 2).sum()), float(scale)))
    return _patterns(exact * best[1], bf16), best[1]


def _patterns(x: NDArray[np.float64], bf16: bool) -> NDArray[np.uint32]:
    if not bf16:
        return x.astype(np.float16).view(np.uint16).astype(np.uint32)
    wide = x.astype(np.float32).view(np.uint32)
    return (wide + 0x7FFF + (wide >> 16 & 1)) >> 16


def _widen(patterns: NDArray[np.uint32], bf16: bool) -> NDArray[np.float64]:
    if not bf16:
        return patterns.astype(np.uint16).view(np.float16).astype(np.float64)
    return (patterns << 16).astype(np.uint32).view(np.float32).astype(np.float64)
