"""What codes of attended pages stand for, as attention kernels read it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.cuda.books import WALKED, WIDEST, widths
from kakeya_ref.layout import band_bits
from kakeya_ref.skeletons import Skeleton, parts
from kakeya_ref.tables import lloyd_max, trellis_values
from kakeya_ref.types import PageLayout

# Where the numbers of a band of so many bits begin among those of bands, and zeros.
FIRST, ZEROS = np.array([0, 0, 16, 48, 112, 144, 176, 240]), 128
# Codes of a group, and a 1 where each group begins in a word.
GROUPS = (4, 0x00010001), (2, 0x01010101), (1, 0x11111111)


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
        elif codec.id == "query":
            patterns, scale = np.zeros(1, np.uint32), 1.0
        else:
            patterns, scale = values(codec.integer("b"), bf16=bool(stream))
        padded = np.resize(patterns, 16)
        words[16 * stream : 16 * stream + 16] = padded
        halves = np.concatenate([padded[:8] & 255, padded[:8] >> 8]).astype(np.uint8)
        words[32 + 4 * stream : 36 + 4 * stream] = halves.view("<u4")
        words[40 + stream] = np.float32(-16 - np.log2(scale)).view(np.uint32)
    found = np.concatenate([words, *(_listed(x, bool(n)) for n, x in enumerate(layouts))])
    found.setflags(write=False)
    return found


def _listed(layout: PageLayout, bf16: bool) -> NDArray[np.uint32]:
    """Numbers of which each has a name, and those of wide codes of keys, two in a word."""
    if layout.codec.id == "query":
        walks = [trellis_values(bits) for bits in range(1, WALKED + 1)]
        others = [lloyd_max(bits)[0] for bits in range(WALKED + 1, WIDEST + 1)]
        exact = np.concatenate([*walks, others[0], np.zeros(16), *others[1:]])
    elif layout.codec.id == "trellis" and layout.codec.integer("b") > 2:
        exact = trellis_values(layout.codec.integer("b"))
    else:
        return np.zeros(0, np.uint32)
    return _patterns(exact.astype(np.float64), bf16).astype("<u2").view("<u4")


def bands(heads: Sequence[Skeleton], layout: PageLayout) -> NDArray[np.uint32]:
    """Words of the bands of each head's keys, (H, D / 8, 4), as kernels/attend_bands.cuh has them.

    Rule: query.bits.greedy, query.spread.descending, codec.table.finite

    Raises
    ------
    Malformed
    """
    made = []
    for known in heads:
        part = parts(known.bodies[0], layout.codec, layout.head_dim)
        bits = widths(part.spread, band_bits(layout.codec, layout.head_dim))
        none, width = bits == 0, np.maximum(bits, 1)
        begin = np.where(none, 0, np.cumsum(bits) - bits)
        first = np.where(none, ZEROS, FIRST[width])
        word = first | width << 9 | begin << 16 | (width > WALKED).astype(np.int64) << 31
        # Groups of 4, 2 and 1 codes of up to 4 bits; wider ones do not come apart at once.
        masks = [((1 << size * np.minimum(width, 4)) - 1) * ones for size, ones in GROUPS]
        made.append(np.stack([word, *masks], 1))
    return np.stack(made).astype(np.uint32)


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
