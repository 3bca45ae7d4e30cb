"""Codecs that are not in the format, in torch floats: what other choices would have brought.

A trial changes one choice of ``query``: width of a band, gain, quantiser, metric, shrinkage. Its
bits are counted as its pages would have them. Numbers are not rounded as a format would; the
trial that changes nothing (``trial:``) shows what that costs against the codec itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.damage.forward import SINKS, Damage
from benchmarks.damage.moments import Attended
from kakeya_fast.hf.calibrate import NEAR, Statistics
from kakeya_fast.hf.rope import Spread, turned_moments
from kakeya_fast.torch_ops.walk import Walk
from kakeya_ref.tables import band_savings, lloyd_max

FLOOR, RIDGE, CAP, WALKED, TINY = 1e-9, 1e-2, 7, 3, 1e-30
# Bits from which a component raises its token's gain rather than leave its table.
REACHED = 4
# Decibels above the bound of trellis codes of 1, 2, 3 and more bits.
GAPS = (0.0, 0.6, 0.8, 1.0, 1.1, 1.1, 1.1, 1.1)
FRAME, CONTEXT = 32, 8192


@dataclass(frozen=True)
class Trial:
    """One choice that differs.

    Attributes
    ----------
    b : float
        Bits a number, without the gain.
    band : int
        Components that share bits, a power of two.
    gain : int
        Bits of a token's gain; 0: none.
    steps : int
        Values of the gain an octave; 0: as many as float32 has.
    quantiser : str
        ``mixed``, ``lloyd`` or ``walk`` in every band.
    metric : bool
        Whether errors are weighed by who reads them.
    shrink : float
        Share of the covariance that is replaced by its mean variance in all directions.
    turn : bool
        Whether components of a band are mixed.
    adapt : int
        First tokens of a sequence that give each of its bands a spread of their own, 0: none. Its
        bytes, one a band and sequence, are not counted.
    looked, looking : bool
        Whether tokens count by the attention they get, and queries by what they give.
    even : bool
        Whether numbers of bands of so many bits come back as long, along themselves, as they were:
        a number of each width, which a table of values would hold.
    """

    b: float = 2.0
    band: int = 8
    gain: int = 8
    steps: int = 8
    quantiser: str = "mixed"
    metric: bool = True
    shrink: float = 0.0
    turn: bool = True
    adapt: int = 0
    looked: bool = False
    looking: bool = False
    even: bool = False

    @staticmethod
    def parse(text: str) -> Trial:
        """Of ``trial:band=16,gain=0``."""
        given = dict(x.split("=") for x in text.partition(":")[2].split(",") if x)
        whole = dict.fromkeys(("band", "gain", "steps", "adapt"), int)
        kinds = whole | {"b": float, "quantiser": str, "shrink": float}
        flags = {"metric", "turn", "looked", "looking", "even"}
        return Trial(**{k: v == "yes" if k in flags else kinds[k](v) for k, v in given.items()})

    def bits(self, size: int) -> float:
        """True bits a number."""
        band = min(self.band, size)
        return int(self.b * size / band) * band / size + self.gain / size


class Bands:
    """A trial for the vectors of one head."""

    def __init__(self, trial: Trial, mean: Any, covariance: Any, looks: Any, device: Any) -> None:
        d = len(mean)
        w = min(trial.band, d)
        level = np.trace(covariance) / d
        covariance = (1 - trial.shrink) * covariance + trial.shrink * level * np.eye(d)
        looks = looks * (d / np.trace(looks)) if trial.metric else np.eye(d)
        left = np.linalg.cholesky(looks + RIDGE * np.eye(d))
        variance, axes = np.linalg.eigh(left.T @ covariance @ left)
        order = np.argsort(variance)[::-1]
        variance = np.maximum(variance[order], max(FLOOR * variance.max(), 1e-30))
        bands = variance.reshape(-1, w).mean(1)
        mix = _turn(d, w) if trial.turn else np.eye(d)
        scale = np.sqrt(np.repeat(bands, w) if trial.turn else variance)
        analysis = (
            (mix / scale) @ axes[:, order].T @ left.T
            if trial.turn
            else (axes[:, order].T @ left.T / scale[:, None])
        )
        bits = _bits(bands, int(trial.b * d / w), trial.quantiser)
        self.band, self.width = w, [b for b in bits if b for _ in range(w)]
        n = len(self.width)
        self.trial = trial
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self.rows = torch.tensor(analysis[:n].T.copy(), dtype=torch.float32, device=device)
        basis = np.linalg.inv(analysis).T[:n]
        self.basis = torch.tensor(basis.copy(), dtype=torch.float32, device=device)
        most = {"lloyd": 0, "walk": CAP, "mixed": WALKED}[trial.quantiser]
        self.wide = sum(b > most for b in self.width)
        weight = np.repeat(bands / bands[0], w)[self.wide : n].astype(np.float32)
        self.walk = Walk(self.width[self.wide :], device, torch.tensor(weight, device=device))
        tables = [lloyd_max(b) for b in self.width[: self.wide]]
        self.tables = [tuple(torch.tensor(x, device=device) for x in t) for t in tables]

    def coded(self, x: Tensor) -> Tensor:
        """(M, D) -> what comes back, (M, D)."""
        y = (x - self.mean) @ self.rows
        own = self._own(y)
        y = y / own
        gain = self._gain(y)
        z = y / gain
        back = [
            c[torch.bucketize(z[:, i, None].contiguous(), t)]
            for i, (c, t) in enumerate(self.tables)
        ]
        if self.wide < len(self.width):
            rest = z[:, self.wide :].contiguous()
            parts = rest.split(1 << 14)
            back += [torch.cat([self.walk.values(self.walk.search(p).long()) for p in parts])]
        values = torch.cat(back, 1)
        if self.trial.even:
            for bits in set(self.width):
                some = torch.tensor(self.width, device=z.device) == bits
                kept, coded = z[:, : len(some)][:, some], values[:, some]
                values[:, some] *= kept.square().sum() / (kept * coded).sum().clamp(min=TINY)
        return (values * gain * own) @ self.basis + self.mean

    def _own(self, y: Tensor) -> Tensor:
        """Spread of each component in the first tokens of ``y`` over that of the table, (n,)."""
        if not self.trial.adapt:
            return torch.ones_like(y[0])
        first = y[: self.trial.adapt]
        power = (first / self._gain(first)).square().mean(0).unflatten(0, (-1, self.band))
        return _stepped(power.mean(1).sqrt().clamp(0.25, 4.0), 8).repeat_interleave(self.band)

    def _gain(self, y: Tensor) -> Tensor:
        if not self.trial.gain:
            return torch.ones_like(y[:, :1])
        gain = y.square().mean(1, keepdim=True).sqrt()
        # Rule: query.gain.reach
        tops = [c[-1] for (c, _), b in zip(self.tables, self.width, strict=False) if b >= REACHED]
        if tops:
            reach = y[:, : len(tops)].abs() / torch.stack(tops)
            gain = torch.maximum(gain, reach.amax(1, keepdim=True))
        gain = gain.clamp(min=1e-20)
        if not self.trial.steps:
            return gain
        return _stepped(gain, self.trial.steps)


def _stepped(x: Tensor, steps: int) -> Tensor:
    return torch.exp2((x.log2() * steps).round() / steps)


class Trials(Damage):
    """A trial on one stream, nothing or a codec on the other."""

    def __init__(self, k: str, v: str, tables: Any, known: Known) -> None:
        super().__init__(k, v, tables)
        self.known = known

    def keys(self, layer: int, k: Tensor) -> Tensor:
        if not self.k.startswith("trial"):
            return super().keys(layer, k)
        at = torch.arange(k.shape[2], device=k.device)
        frames = (at - at % FRAME) + SINKS
        rope = self.known.found.ropes[layer]
        framed = self._tried("k", self.k, layer, rope.turned(k, -frames))
        return rope.turned(framed, frames)

    def values(self, v: Tensor) -> Tensor:
        if not self.v.startswith("trial"):
            return super().values(v)
        return self._tried("v", self.v, self.layer, v)

    def _tried(self, stream: str, name: str, layer: int, x: Tensor) -> Tensor:
        trial = Trial.parse(name)
        heads = [self.known.bands(stream, name, layer, h) for h in range(x.shape[1])]
        self.elements[stream] += x.numel()
        self.nbytes[stream] += round(x.numel() * trial.bits(x.shape[3]) / 8)
        return torch.stack([one.coded(x[0, h]) for h, one in enumerate(heads)])[None]


class Evened(Damage):
    """Codecs named ``even:CODEC``: vectors come back as long, along themselves, as they were.

    As by ``gain=unbiased``, in steps of a scale byte; no byte more.
    """

    def keys(self, layer: int, k: Tensor) -> Tensor:
        return self._coded("k", self.k, k, None)

    def _coded(self, stream: str, codec: str, x: Tensor, tables: Any) -> Tensor:
        name = codec.removeprefix("even:")
        out = super()._coded(stream, name, x, tables)
        if name == codec:
            return out
        along = (x * out).sum(-1, keepdim=True).clamp(min=TINY)
        longer = x.square().sum(-1, keepdim=True) / along
        return out * _stepped(longer.clamp(0.5, 2.0), 8)


class Known:
    """Moments of keys, queries and values of a model, and the trials made from them."""

    def __init__(
        self, found: Statistics, attended: dict[int, Attended], readers: dict[int, Any]
    ) -> None:
        self.found, self.attended, self.readers = found, attended, readers
        self.device: Any = "cpu"
        self.bands = cache(self._bands)

    def _bands(self, stream: str, name: str, layer: int, head: int) -> Bands:
        trial, attended = Trial.parse(name), self.attended[layer]
        if stream == "v":
            sums = attended.looked_values if trial.looked else attended.values
            mean, second = sums.of(head)
            looking = self.readers[layer][head]
        else:
            one, rope = self.found.sums[layer], self.found.ropes[layer]
            mean, second = (attended.looked_keys if trial.looked else one.keys).of(head)
            queries = (attended.looking if trial.looking else one.queries).second
            reach = Spread(max(FRAME, NEAR), float(CONTEXT), 0.5)
            _, looking = turned_moments(mean, queries[head], rope, reach)
            mean, second = turned_moments(mean, second, rope, Spread(FRAME))
        return Bands(trial, mean, second - np.outer(mean, mean), looking, self.device)


def _turn(d: int, band: int) -> np.ndarray:
    from scipy.linalg import hadamard

    from kakeya_ref.tables import signs

    block = hadamard(band) / np.sqrt(band)
    return np.kron(np.eye(d // band), block) * signs(1, d)


def _bits(bands: Any, total: int, quantiser: str) -> list[int]:
    saved = [*list(band_savings()), 0]
    if quantiser == "lloyd":
        saved = _lloyd_savings()
    if quantiser == "walk":
        error = [4.0**-b * 10 ** (g / 10) for b, g in enumerate(GAPS)]
        saved = [a - b for a, b in itertools.pairwise(error)] + [0]
    bits = [0] * len(bands)
    for _ in range(total):
        gain = [s * saved[b] if b < CAP else -1 for s, b in zip(bands, bits, strict=True)]
        bits[int(np.argmax(gain))] += 1
    return bits


@cache
def _lloyd_savings() -> list[float]:
    x = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    error = [1.0]
    for b in range(1, CAP + 1):
        centroids, thresholds = lloyd_max(b)
        error.append(float(np.square(x - centroids[np.searchsorted(thresholds, x)]).mean()))
    return [a - b for a, b in itertools.pairwise(error)] + [0]
