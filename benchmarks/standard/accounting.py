"""Two ways to count a ``skeleton`` cache: what is kept, and what the first codec was said to keep.

The predecessor stored float32 and int64 fields and printed two sizes for them. *Exact* is the sum
of its tensors. *Projected* is the figure of its headlines: half of the coded part, as if every
field, 8-byte indices included, could be stored in half the bytes. Neither is a format. Both follow
from the ranks alone, so they can be had for any model whose ranks are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.layout import page_layout, table_layout
from kakeya_ref.registry import resolved
from kakeya_ref.types import Codec

F32_BYTES, INDEX_BYTES = 4, 8
# Rank and outliers of a page, in the page table: a decoder cannot place a byte without them.
PAGE_ENTRY = 4
LEAST_RANK = 2


@dataclass(frozen=True)
class Historic:
    """Constants of the first codec; the defaults are its benchmark preset."""

    block: int = 512
    residual: int = 256
    res: int = 8
    k: int = 16
    variance: float = 0.95

    def blocks(self, tokens: int) -> int:
        """Coded blocks of a sequence; the rest is its exact tail."""
        return max(0, tokens - self.residual) // self.block

    def row_nbytes(self, rank: int) -> int:
        """Float32 and int64 bytes of one coded vector: segment, two scalars, sparse residual.

        Examples
        --------
        >>> Historic().row_nbytes(40)
        112
        """
        kept = min(self.res, rank)
        return INDEX_BYTES + 2 * F32_BYTES + kept * (F32_BYTES + INDEX_BYTES)

    def block_nbytes(self, rank: int, rows: int, dim: int) -> int:
        """Bytes of one block: mean, basis, direction and centres in float32, then its rows."""
        skeleton = F32_BYTES * (dim + rank * dim + rank + self.k * rank)
        return skeleton + rows * self.row_nbytes(rank)


PRESET = Historic()


@dataclass(frozen=True)
class Claim:
    """Bytes of a sequence as the predecessor counted them, all layers together.

    ``exact`` with the fields as stored, ``projected`` with the coded part halved; the exact tail
    is in bf16 in both.
    """

    exact: int
    projected: int

    def __add__(self, other: Claim) -> Claim:
        return Claim(self.exact + other.exact, self.projected + other.projected)


def claim(
    ranks: Sequence[int], tokens: int, heads: int, dim: int, preset: Historic = PRESET
) -> Claim:
    """One stream of one layer as the predecessor counted it.

    Parameters
    ----------
    ranks : sequence of int
        Rank of each coded block in order; heads pooled, as it did. Later ones are ignored.
    tokens, heads, dim : int
        Tokens of the sequence, KV heads, head dim.

    Raises
    ------
    ValueError
        Fewer ranks than coded blocks.
    """
    blocks = preset.blocks(tokens)
    if len(ranks) < blocks:
        raise ValueError(f"{blocks} coded blocks want as many ranks, got {len(ranks)}")
    rows = heads * preset.block
    coded = sum(preset.block_nbytes(rank, rows, dim) for rank in ranks[:blocks])
    tail = (tokens - blocks * preset.block) * heads * dim * 2
    return Claim(tail + coded, tail + coded // 2)


def true_page_nbytes(codec: Codec, rank: int, dim: int, tokens: int, tables: bool = True) -> int:
    """Bytes really kept of one page of one KV head and stream: body, table, table entry.

    Parameters
    ----------
    codec : Codec
        ``skeleton`` or ``turbo``, its rank still open.
    tables : bool
        Whether the page has a table of its own, or reads one that is paid for already.

    Rule: rate.bytes.true
    """
    done = resolved(codec, rank=rank)
    body, table = page_layout(done, dim, tokens).nbytes, table_layout(done, dim).nbytes
    return body + (table if tables else 0) + PAGE_ENTRY


def rank_of(x: NDArray[np.floating], variance: float = PRESET.variance) -> int:
    """Rank of rows (R, D) by the predecessor's rule: share of variance, at least 2."""
    rows = np.asarray(x, dtype=np.float64)
    rows = rows - rows.mean(axis=0)
    spectrum = np.linalg.eigvalsh(rows.T @ rows)[::-1].clip(min=0)
    total = spectrum.sum()
    if total == 0:
        return LEAST_RANK
    share = np.cumsum(spectrum) / total
    rank = int(np.searchsorted(share, variance - 1e-12)) + 1
    return min(max(rank, LEAST_RANK), x.shape[1])


def pooled_ranks(x: NDArray[np.floating], preset: Historic = PRESET) -> list[int]:
    """Ranks of the coded blocks of one stream of one layer (H, T, D), all heads in one basis."""
    found = []
    for block in range(preset.blocks(x.shape[1])):
        part = x[:, block * preset.block : (block + 1) * preset.block]
        found.append(rank_of(part.reshape(-1, x.shape[2]), preset.variance))
    return found


def stored_ratio(projected: float, tokens: int, preset: Historic = PRESET) -> float:
    """Ratio of the fields as stored that goes with a *projected* ratio of full layers.

    Undoing the halving needs no rank: the tail is known, and the rest was halved.

    Examples
    --------
    >>> round(stored_ratio(3.74, 8192), 2)
    2.12
    """
    tail = tokens - preset.blocks(tokens) * preset.block
    return tokens / (tail + 2 * (tokens / projected - tail))


def implied_rank(
    ratio: float, tokens: int, heads: int, dim: int, preset: Historic = PRESET
) -> float:
    """Rank, equal in every block, at which the *projected* ratio of full layers is ``ratio``.

    What a published figure says about the ranks behind it, its rounding included: a row costs so
    much that the basis hardly shows.
    """
    blocks = preset.blocks(tokens)
    rows = heads * preset.block
    tail = (tokens - blocks * preset.block) * heads * dim * 2
    coded = 2 * (tokens * heads * dim * 2 / ratio - tail) / blocks
    basis = F32_BYTES * (dim + 1 + preset.k)
    rank = (coded - F32_BYTES * dim - rows * preset.row_nbytes(preset.res)) / basis
    if rank >= preset.res:
        return rank
    # Fewer components than kept residuals: the rows shrink with the rank as well.
    fixed = F32_BYTES * dim + rows * preset.row_nbytes(0)
    return (coded - fixed) / (basis + rows * (F32_BYTES + INDEX_BYTES))
