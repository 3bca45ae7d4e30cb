"""What attention kernels are compiled with and read: numbers, tables, shared memory, the grid.

Shared by the device build and the host build; kernels/attend_plan.cuh has the same numbers.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from kakeya_ref.layout import band_bits
from kakeya_ref.types import PageLayout

HEAD_DIMS = (64, 128, 256)
BITS = {"scalar": (2, 3, 4), "trellis": (2, 3, 4)}
CALIBRATED = "query"  # of keys alone
LOOKED_UP, WALKED, BANDS = 1, 2, 3
# Numbers of bands, and of those the ones that a byte names: codes of up to 4 bits, and zeros.
BAND_NUMBERS, NAMED_NUMBERS = 368, 144
# Sums of a lane: 64 registers at most, so that unpacking has room beside them.
SUMS = 256
ENTRY, TURN = "kakeya_attend", "kakeya_turn_queries"
MOST_SPLITS = 127
FIELDS = (
    *("D", "DV", "P", "T", "KIND", "KB", "VB", "KC", "VC", "KR", "NT", "WARPS", "STAGES"),
    *("SOFTCAP", "WINDOW", "BIAS", "FRAMED"),
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
    kr: int
    nt: int
    warps: int
    stages: int
    softcap: int = 0
    window: int = 0
    bias: int = 0
    framed: int = 0

    @property
    def rows(self) -> int:
        """Query rows of a block."""
        return 8 * self.nt

    @property
    def stage(self) -> int:
        """Bytes of one tile in shared memory."""
        codes = self.t * (self.kr + self.dv * self.vb // 8)
        return 16 + 2 * self.t + codes + (self.queries if self.framed else 0)

    @property
    def queries(self) -> int:
        """Bytes of the queries of a block: fragments, factors and biases."""
        return self.rows * (2 * self.d + 8)

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        tiles = max(self.warps * self.stages * self.stage, self.warps * self.dv * self.rows * 4)
        rest = self.queries + self.rows * (4 + 8 * (self.warps + 1)) + 16
        codes = (self.kb, self.kc), (self.vb, self.vc)
        if self.kc == BANDS:
            rest += 2 * BAND_NUMBERS + 2 * self.d
        return tiles + rest + 256 * max(_named(*c) for c in codes)

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
    if layouts[0].tokens != layouts[1].tokens:
        return "pages of K and V differ in tokens"
    return next(filter(None, (refusal_of(x, bool(n)) for n, x in enumerate(layouts))), "")


def refusal_of(layout: PageLayout, values: bool = False) -> str:
    """The same of one stream."""
    if not bits_of(layout) and (values or layout.codec.id != CALIBRATED):
        return f"no attention kernel for {layout.codec}: bits {BITS}, and keys of {CALIBRATED}"
    if layout.head_dim not in HEAD_DIMS:
        return f"no attention kernel for head dim {layout.head_dim}, only for {HEAD_DIMS}"
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


def tuning(
    layouts: tuple[PageLayout, PageLayout],
    rows: int,
    shared: int = 227 << 10,
    *,
    framed: bool = False,
) -> Tuning:
    """What was fastest on an H200, within ``shared`` bytes of a block.

    Measured for head dim 128; benchmarks/GPU_ATTENTION.md.
    """
    d = max(layout.head_dim for layout in layouts)
    # Registers: 128 of a lane suffice for one product of 8 rows and 128 numbers.
    eights = _eights(layouts, rows)
    wide = d * eights > 128 or (framed and eights > 1)
    # Values of 3 bits come out of registers: shared memory is busy with the keys.
    tuned = Tuning(8 if wide else 16, 2, 1, 1, int(bits_of(layouts[1]) != 3))
    while tuned.warps > 1 and numbers(layouts, 0, rows, tuned, framed=framed).shared > shared:
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
    framed: bool = False,
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
        bits_of(k),
        bits_of(v),
        _way(k, tuned.keys),
        _way(v, tuned.values),
        bits_of(k) * k.head_dim // 8 or band_bits(k.codec, k.head_dim),
        nt,
        tuned.warps,
        tuned.stages,
        int(softcap),
        int(window),
        int(bias),
        int(framed),
    )


def bits_of(layout: PageLayout) -> int:
    """Bits of a code; 0 if they differ, or there is no kernel."""
    offered = BITS.get(layout.codec.id, ())
    return layout.codec.integer("b") if offered and layout.codec.integer("b") in offered else 0


def _way(layout: PageLayout, looked_up: int) -> int:
    if layout.codec.id == CALIBRATED:
        return BANDS
    if layout.codec.id == "trellis":
        return WALKED
    return LOOKED_UP if looked_up or bits_of(layout) == 4 else 0


def _named(bits: int, way: int) -> int:
    if way == BANDS or (way == WALKED and bits > 2):
        return NAMED_NUMBERS if way == BANDS else 8 << bits
    return 0 if not way else 120 if bits == 3 else 256


def _eights(layouts: tuple[PageLayout, PageLayout], rows: int) -> int:
    most = SUMS // max(layout.head_dim for layout in layouts)
    return min(most, 1 << (-(-rows // 8) - 1).bit_length())
