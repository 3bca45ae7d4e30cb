"""What the kernels of a layout are compiled with and read: macros, tables, shape of the launch.

Shared by the device build and the host build; the words of a table are named in kernels/plan.cuh.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.layout import LATTICE_BLOCK
from kakeya_ref.tables import (
    gain_grid,
    gain_midpoints,
    lattice_step,
    lloyd_max,
    signs,
    trellis_values,
)
from kakeya_ref.types import PageLayout

SOURCES = Path(__file__).parent / "kernels"
KINDS = {"float32": 0, "float16": 1, "bfloat16": 2}
STORED = {"f32": 0, "f16": 1, "bf16": 2}
OPTIONS = ("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")
STATUS_CLEAR = 0xFFFFFFFFFFFFFFFF

WARP = 32
WARPS = 8  # of a block
LONG_WALK = 256  # numbers; flags of longer ones fill shared memory, so that a block has 2 warps

_SOURCE = {
    "raw": "raw.cu",
    "fp8": "fp8.cu",
    "int": "int.cu",
    "scalar": "scalar.cu",
    "d4": "lattice.cu",
    "e8": "lattice.cu",
    "trellis": "trellis.cu",
    "query": "query.cu",
}
# Rules of what an encoder may find too large, in the order in which it looks at a page, and of what
# a decoder may refuse.
_REFUSED = {
    "raw": (("raw.range",), "raw.code.finite"),
    "fp8": (("fp8.scale.up",), "fp8.code.nan"),
    "int": (("int.range.f16",), "int.params.finite"),
    "scalar": (("scale.byte.range",), "scale.byte.grid"),
    "d4": (("scale.byte.range",), "d4.index.range"),
    "e8": (("scale.byte.range",), "e8.index.range"),
    "trellis": (("scale.byte.range",), "scale.byte.grid"),
    "query": (("query.value.range", "scale.byte.range"), "query.decode.synthesis"),
}


def refusal(layout: PageLayout) -> str:
    """Why there are no kernels for a layout, or nothing.

    Rule: backend.support.honest
    """
    return "" if layout.codec.id in _SOURCE else f"no CUDA code for codec {layout.codec.id}"


def source(layout: PageLayout) -> str:
    """File of the codec's kernels, in :data:`SOURCES`."""
    return _SOURCE[layout.codec.id]


def refusal_at(codec_id: str, word: int, tokens: int, direction: str) -> tuple[str, int, int]:
    """What the second word of a kernel's status names: the rule, page and token.

    Where an encoder has two rules, faults come by page, then by rule, then by token.
    """
    large, malformed = _REFUSED[codec_id]
    rules = large if direction == "encode" else (malformed,)
    fault, token = divmod(word, tokens)
    page, which = divmod(fault, len(rules))
    return rules[which], page, token


def numbers(layout: PageLayout) -> dict[str, int]:
    """The numbers of a layout that kernels are made for, by their name in ``Plan``."""
    codec = layout.codec
    found = {"D": layout.head_dim, "P": layout.tokens}
    if codec.id == "raw":
        found["STORED"] = STORED[str(codec["dtype"])]
    if codec.id in ("int", "scalar", "trellis"):
        found["B"] = codec.integer("b")
    if codec.id == "trellis":
        found["UNBIASED"] = int(codec["gain"] == "unbiased")
    if codec.id == "int":
        found["G"], found["CHANNEL"] = codec.integer("g"), int(codec["axis"] == "channel")
    if codec.id in LATTICE_BLOCK:
        found["Q"], found["BLOCK"] = codec.integer("q"), LATTICE_BLOCK[codec.id]
    if block_warps(layout) != WARPS:
        found["WARPS"] = block_warps(layout)
    return found


def block_warps(layout: PageLayout) -> int:
    """Warps of a block."""
    walks = layout.codec.id in ("trellis", "query")
    return 2 if walks and layout.head_dim > LONG_WALK else WARPS


def defines(
    layout: PageLayout, kind: int, direction: str, basis: str = "vectors"
) -> tuple[str, ...]:
    """Macros of one module of kernels, as compiler options.

    Parameters
    ----------
    kind : int
        One of :data:`KINDS`: the type of the vectors, read or written.
    direction : str
        ``encode`` or ``decode``: which entries the module has.
    basis : str
        What a decoder writes: ``vectors`` or ``coefficients``.
    """
    found = numbers(layout) | {"KIND": kind, direction.upper(): 1}
    if direction == "decode":
        found["VECTORS"] = int(basis == "vectors")
    return tuple(f"-DKAKEYA_{name}={value}" for name, value in found.items())


def launch(layout: PageLayout, n_pages: int) -> tuple[int, int]:
    """Blocks and threads of a launch.

    An octet is 8 numbers, what a lane holds; the lanes of a vector are a team; a warp has as many
    teams as fit.
    """
    octets = layout.head_dim // 8
    lanes = min(WARP, 1 << (octets - 1).bit_length())
    shares = layout.tokens // 8
    if layout.codec.id == "int" and layout.codec["axis"] == "channel":
        shares = -(-layout.tokens // layout.codec.integer("g"))
    warps, of_block = -(-n_pages * shares // (WARP // lanes)), block_warps(layout)
    return -(-warps // of_block), of_block * WARP


@lru_cache(maxsize=64)
def tables(layout: PageLayout) -> NDArray[np.uint32]:
    """Constants of a layout, as the kernels read them.

    Rule: scale.byte.grid, scale.byte.reciprocal, scale.byte.midpoint, scalar.table.lloyd-max,
    trellis.table.values, signs.splitmix64.top-bit, hadamard.scale.once, d4.step.table,
    e8.step.table, fp8.scale.up

    Returns
    -------
    (n,) uint32
        Floats as bit patterns; one unused word for codecs without constants.
    """
    codec = layout.codec
    if codec.id in ("raw", "int"):
        return _frozen(np.zeros(1, np.uint32))
    grid, past = gain_grid(), np.full(5, np.inf, np.float32)
    mirrored = grid[(256 - np.arange(256)) % 256]
    if codec.id == "fp8":
        return _frozen(np.concatenate([mirrored, grid, grid[1:], past]).view(np.uint32))
    one = np.float32(1)
    step, inverse = (one, one)
    if codec.id in LATTICE_BLOCK:
        step, inverse = lattice_step(codec.id, codec.integer("q"))
    norms = np.array([2.0 ** (-m / 2) for m in range(3, 11)], dtype=np.float32)
    bounds = np.concatenate([gain_midpoints()[1:], past[1:]])
    flips = np.zeros(1024, np.uint8)
    if codec.id != "query":
        flips[: layout.head_dim] = signs(codec.integer("seed"), layout.head_dim) < 0
    words = [
        np.concatenate([mirrored * inverse, grid * step, bounds, norms]).view(np.uint32),
        np.packbits(flips, bitorder="little").view("<u4"),
    ]
    if codec.id == "scalar":
        centroids, thresholds = lloyd_max(codec.integer("b"))
        words += [centroids.view(np.uint32), heap_order(thresholds).view(np.uint32)]
    if codec.id == "trellis":
        words.append(trellis_values(codec.integer("b")).view(np.uint32))
    if codec.id == "query":
        words += [trellis_values(b).view(np.uint32) for b in range(1, 4)]
        words += [lloyd_max(b)[0].view(np.uint32) for b in range(4, 8)]
        words += [heap_order(lloyd_max(b)[1]).view(np.uint32) for b in range(4, 8)]
    return _frozen(np.concatenate(words))


def heap_order(ascending: NDArray[np.float32]) -> NDArray[np.float32]:
    """A sorted table as a search tree: the children of entry ``i`` are ``2i`` and ``2i + 1``.

    Threads of a warp that search together then read neighbours, not numbers a power of two apart,
    which would lie in one bank of shared memory.

    Parameters
    ----------
    ascending : (2**b - 1,) float32

    Returns
    -------
    (2**b,) float32
        Entry 0 is not used.
    """
    count = len(ascending) + 1
    heap = np.zeros(count, np.float32)
    for i in range(1, count):
        level = i.bit_length() - 1
        span = count >> level
        heap[i] = ascending[(i - (1 << level)) * span + span // 2 - 1]
    return heap


def _frozen(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    words = np.ascontiguousarray(words, dtype=np.uint32)
    words.setflags(write=False)
    return words
