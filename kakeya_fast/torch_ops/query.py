"""``query``: the components of a table, bits by band, a trellis where they are few."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.torch_ops.gain import Gain
from kakeya_fast.torch_ops.pages import read_field, write_page
from kakeya_fast.torch_ops.walk import Walk
from kakeya_ref.layout import band_bits
from kakeya_ref.skeletons import Parts, parts
from kakeya_ref.tables import band_savings, lloyd_max
from kakeya_ref.types import PageLayout

BAND, CAP, WALKED = 8, 7, 3
FINE, VALUE, GAIN = 0, 1, 2
FAULTS = {
    VALUE: ("query.value.range", "a component leaves fp32"),
    GAIN: ("scale.byte.range", "the gain of a token is above the grid"),
}


class Query:
    """Pages that are read with one table.

    Rule: query.encode.project, query.gain.active, query.gain.reach, query.code.boundary,
    query.code.trellis, query.row.bits, query.decode.product, query.decode.synthesis,
    num.chain.order

    Parameters
    ----------
    part : Parts
    analysis : (D, D) float32, optional
        What to project on, where it is not the basis.
    """

    def __init__(
        self,
        layout: PageLayout,
        part: Parts,
        analysis: NDArray[np.float32] | None,
        device: torch.device,
    ) -> None:
        self.layout = layout
        self.total = band_bits(layout.codec, layout.head_dim)
        width = widths(part.spread, self.total)
        self.active, self.wide = len(width), sum(b > WALKED for b in width)
        self.mean = torch.tensor(part.mean, device=device)
        self.basis = torch.tensor(part.basis[: self.active], device=device)
        rows = part.basis if analysis is None else analysis
        self.rows = torch.tensor(rows[: self.active].T.copy(), device=device)
        self.gain = Gain(self.active, device)
        spread = np.repeat(part.spread, BAND)[self.wide : self.active]
        self.walk = Walk(width[self.wide :], device, torch.tensor(spread, device=device))
        tables = [lloyd_max(b) for b in width[: self.wide]]
        self.centroids = [torch.tensor(c, device=device) for c, _ in tables]
        self.thresholds = [torch.tensor(t, device=device) for _, t in tables]
        last = [c[-1] for c, _ in tables]
        self.last = torch.tensor(np.array(last, np.float32), device=device)
        # Every bit of a row: of which code, and how far up in it.
        bits = [(i, j) for i, b in enumerate(width) for j in reversed(range(b))]
        self.code, self.shift = torch.tensor(bits, device=device).reshape(-1, 2).unbind(1)
        self.place = torch.tensor([1 << j for j in reversed(range(8))], device=device)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, P, D) float32 -> (n, nbytes) uint8, faults (n,)"""
        shape = x.shape[:2]
        y = chain((x - self.mean).flatten(0, 1), self.rows)
        lost = ~y.isfinite().all(1).reshape(shape).all(1)
        least = (y[:, : self.wide].abs() / self.last).amax(1) if self.wide else None
        byte, large = self.gain.of_rms(y, least)
        z = y * self.gain.reciprocal(byte)[:, None]
        codes = [
            torch.bucketize(z[:, i].contiguous(), t)[:, None] for i, t in enumerate(self.thresholds)
        ]
        if self.wide < self.active:
            codes.append(self.walk.search(z[:, self.wide :]).long())
        codes = torch.where(byte[:, None] == 0, 0, torch.cat(codes, 1))
        bits = codes[:, self.code] >> self.shift & 1
        row = (bits.unflatten(1, (-1, 8)) * self.place).sum(-1).to(torch.uint8)
        fields = {"scales": byte.reshape(shape), "codes": row.reshape(len(x), -1)}
        fault = torch.where(lost, VALUE, torch.where(large.reshape(shape).any(1), GAIN, FINE))
        return write_page(self.layout, fields), fault

    def coefficients(self, pages: Tensor) -> Tensor:
        """(n, nbytes) uint8 -> (n, P, D) float32, +0 in bands without bits"""
        byte = read_field(self.layout, pages, "scales", torch.uint8).reshape(-1, 1)
        row = read_field(self.layout, pages, "codes", torch.uint8).reshape(len(byte), -1).long()
        bits = (row[..., None] & self.place).flatten(1) != 0
        codes = torch.zeros((len(byte), self.active), dtype=torch.long, device=pages.device)
        codes.index_add_(1, self.code, bits.long() << self.shift)
        values = [c[codes[:, i, None]] for i, c in enumerate(self.centroids)]
        if self.wide < self.active:
            values.append(self.walk.values(codes[:, self.wide :]))
        y = torch.cat(values, 1) * self.gain.value(byte)
        out = y.new_zeros(len(byte), self.layout.head_dim)
        out[:, : self.active] = torch.where(byte == 0, 0.0, y)
        return out.unflatten(0, (len(pages), -1))

    def vectors(self, y: Tensor) -> Tensor:
        """(n, P, D) coefficients -> (n, P, D) vectors, float32"""
        # Components without bits are +0 and change no sum.
        flat = y[..., : self.active].flatten(0, 1)
        return (chain(flat, self.basis) + self.mean).reshape(y.shape)


def chain(x: Tensor, columns: Tensor) -> Tensor:
    """Products in index order, a multiply and an add at a time. (M, n), (n, r) -> (M, r)

    Rule: num.chain.order, num.fp32.no-fma
    """
    out = x.new_zeros(len(x), columns.shape[1])
    for i in range(len(columns)):
        out = out + x[:, i, None] * columns[i]
    return out


def widths(spread: NDArray[np.float32], total: int) -> list[int]:
    """Bits of every component that has any, from the spread of the bands.

    Rule: query.bits.greedy
    """
    saved = [*band_savings(), np.float32(0)]
    bits = [0] * len(spread)
    for _ in range(total):
        gain = [s * saved[b] if b < CAP else -1 for s, b in zip(spread, bits, strict=True)]
        bits[gain.index(max(gain))] += 1
    return [b for b in bits if b for _ in range(BAND)]


@lru_cache(maxsize=2048)
def _cached(layout: PageLayout, body: bytes, analysis: bytes | None, device: torch.device) -> Query:
    part = parts(np.frombuffer(body, np.uint8), layout.codec, layout.head_dim)
    rows = None
    if analysis is not None:
        rows = np.frombuffer(analysis, np.float32).reshape(-1, layout.head_dim)
    return Query(layout, part, rows, device)


def query_of(
    layout: PageLayout,
    body: NDArray[np.uint8],
    analysis: NDArray[np.float32] | None,
    device: torch.device,
) -> Query:
    """Pages of one table; what is derived from it is kept.

    Raises
    ------
    Malformed
        As :func:`kakeya_ref.skeletons.parts`.
    """
    rows = None if analysis is None else analysis.tobytes()
    return _cached(layout, body.tobytes(), rows, device)
