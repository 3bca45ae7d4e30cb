"""``skeleton`` and ``turbo`` stage by stage: fidelity and bits after each, pooled over blocks.

The stages are those of :mod:`kakeya_fast.quality.trace`; the last one is what a backend really
decodes from the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.dispatch import get_backend
from kakeya_fast.quality.trace import trace
from kakeya_ref.errors import UsageError
from kakeya_ref.fitting import fit, for_page
from kakeya_ref.layout import page_layout, table_layout
from kakeya_ref.registry import is_resolved, parse_codec, table_kind
from kakeya_ref.types import Codec

F32, F64 = NDArray[np.float32], NDArray[np.float64]

INJECTIONS = ("scale", "norm")
# Bytes of rank and number of outliers, kept for every page.
ENTRY = 4
# Planes of page and table that a stage is the first to need; what is left is alignment.
NEEDS = {
    "principal components": ("mean", "basis"),
    "trend": ("trend", "along"),
    "centres": ("centres", "seg", "proj"),
    "sparse residual": ("value", "place"),
    "quantiser": ("levels", "scales", "codes"),
    "outliers": ("outvalue", "outplace"),
}


@dataclass(frozen=True)
class Stage:
    """Fidelity after one stage.

    Attributes
    ----------
    name : str
    snr : float
        Power of the vectors over power of the error.
    centred : float
        The same with each coordinate's mean over a block taken out of the vectors.
    corr : float
        Correlation of all numbers with the reconstructed ones.
    bits : float
        Stored bits per element that this stage and those before need.
    """

    name: str
    snr: float
    centred: float
    corr: float
    bits: float


@dataclass(frozen=True)
class Staged:
    """Stages of one KV head and stream, pooled over its whole blocks.

    ``by_bits`` has the SNR after the quantiser at 1 to 4 bits, ``injected`` and
    ``injected_by_bits`` the same with the error; all empty where they mean nothing.
    """

    codec: str
    blocks: int
    block: int
    ranks: list[int]
    captured: float
    stages: list[Stage]
    inject: str = ""
    injected: list[Stage] = field(default_factory=list)
    by_bits: dict[int, float] = field(default_factory=dict)
    injected_by_bits: dict[int, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check(codec: str | Codec, inject: str) -> Codec:
    """The codec, if it has stages and knows this error.

    Raises
    ------
    UsageError
        ``stages.codec.tabled``, ``stages.inject.known``
    """
    asked = parse_codec(codec)
    if table_kind(asked) != "skeleton" or is_resolved(asked):
        raise UsageError("stages.codec.tabled", f"{asked}: skeleton or turbo, without a rank")
    if inject and (inject not in INJECTIONS or asked.id != "turbo"):
        raise UsageError("stages.inject.known", f"{inject!r} into {asked}: scale or norm, turbo")
    return asked


def stages_of(
    x: F32,
    head: int,
    codec: str | Codec,
    *,
    block: int = 512,
    backend: str = "auto",
    inject: str = "",
    metric: F64 | None = None,
) -> Staged:
    """Fidelity after each stage.

    Parameters
    ----------
    x : (H, T, D) float32
        One stream of one layer; tokens after the last whole block are left out.
    head : int
        KV head that is looked at; the others matter to a shared table only.
    codec : str or Codec
        ``skeleton`` or ``turbo``, without a rank.
    inject : str
        Empty, ``scale`` or ``norm``.
    metric : (H, D, D) float64, optional
        See :func:`kakeya_ref.fitting.fit`.

    Raises
    ------
    UsageError
        See :func:`check`; another head (``stages.head.range``), or less than a block
        (``stages.block.whole``).
    """
    asked = check(codec, inject)
    if not 0 <= head < len(x):
        raise UsageError("stages.head.range", f"head {head} of {len(x)}")
    if x.shape[1] < block:
        raise UsageError("stages.block.whole", f"{x.shape[1]} tokens are no block of {block}")
    run = _Run(x, head, asked, block, metric)
    plain = run.stages("")
    plain.append(run.decoded(backend))
    found = Staged(
        str(asked),
        len(run.pages),
        block,
        [codec.integer("rank") for codec in run.codecs],
        float(np.mean([f.captured for f in run.fits])),
        plain,
    )
    if not inject:
        return found
    sweep = [_Run(x, head, _with_bits(asked, b), block, metric) for b in range(1, 5)]
    return replace(
        found,
        inject=inject,
        injected=run.stages(inject),
        by_bits={b: _quantised(r.stages("")) for b, r in enumerate(sweep, 1)},
        injected_by_bits={b: _quantised(r.stages(inject)) for b, r in enumerate(sweep, 1)},
    )


class _Run:
    """Fits and pages of one head under one codec."""

    def __init__(self, x: F32, head: int, codec: Codec, block: int, metric: F64 | None) -> None:
        count = x.shape[1] // block
        self.pages = [x[head, i * block : (i + 1) * block] for i in range(count)]
        own = None if metric is None else metric[head]
        self.shared = codec.id == "turbo" and codec.integer("share") == 1
        if self.shared:
            # One metric for heads of different queries: their mean.
            both = None if metric is None else _mean_factor(metric)
            self.fits = [fit(x[:, :block].reshape(-1, x.shape[2]), codec, metric=both)] * count
        else:
            self.fits = [fit(page, codec, metric=own) for page in self.pages]
        cut = codec.integer("cut") if codec.id == "turbo" else 0
        self.codecs = [for_page(f, p, cut) for f, p in zip(self.fits, self.pages, strict=True)]
        # A table that all heads and blocks read costs each of them its share only.
        self.readers = count * len(x) if self.shared else 1

    def stages(self, inject: str) -> list[Stage]:
        """All stages but the bytes."""
        traced = [
            list(trace(page, f, codec, inject))
            for page, f, codec in zip(self.pages, self.fits, self.codecs, strict=True)
        ]
        names = [name for name, _ in max(traced, key=len)]
        found = []
        for name in names:
            # A page without outliers is at that stage what it was before.
            parts_of = [dict(t).get(name, t[-1][1]) for t in traced]
            found.append(self._score(name, parts_of, names[: names.index(name) + 1]))
        return found

    def decoded(self, backend: str) -> Stage:
        """What a backend decodes from the bytes, at all the bits that are kept."""
        engine = get_backend(backend)
        out = []
        for page, f, codec in zip(self.pages, self.fits, self.codecs, strict=True):
            layout = page_layout(codec, page.shape[1], len(page))
            body = engine.encode(page[None], layout, tables=f.tables)
            out.append(engine.decode(body, layout, tables=f.tables)[0].astype(np.float64))
        return self._score("bytes", out, None)

    def _score(self, name: str, out: Sequence[F64], upto: Sequence[str] | None) -> Stage:
        x = np.stack(self.pages).astype(np.float64)
        y = np.stack(out)
        error = float(((x - y) ** 2).sum()) or np.finfo(np.float64).tiny
        centred = x - x.mean(axis=1, keepdims=True)
        bits = sum(self._bits(codec, upto) for codec in self.codecs) / x.size
        return Stage(
            name,
            float((x**2).sum()) / error,
            float((centred**2).sum()) / error,
            _correlation(x, y),
            bits,
        )

    def _bits(self, codec: Codec, upto: Sequence[str] | None) -> float:
        page = page_layout(codec, self.pages[0].shape[1], len(self.pages[0]))
        table = table_layout(codec, page.head_dim)
        if upto is None:
            return 8 * (page.nbytes + ENTRY + table.nbytes / self.readers)
        needed = tuple(plane for name in upto for plane in NEEDS.get(name, ()))
        held = [
            sum(p.nbytes for p in layout.planes if p.name.rstrip("0123456789") in needed)
            for layout in (page, table)
        ]
        return 8 * (held[0] + held[1] / self.readers)


def _with_bits(codec: Codec, b: int) -> Codec:
    kept = dict(codec.params) | {"b": b}
    return parse_codec(f"{codec.id}:" + ",".join(f"{n}={v}" for n, v in kept.items()))


def _quantised(found: Sequence[Stage]) -> float:
    return next(s.snr for s in found if s.name == "quantiser")


def _mean_factor(metric: F64) -> F64:
    moment = (metric @ metric.transpose(0, 2, 1)).mean(axis=0)
    found: F64 = np.linalg.cholesky(moment)
    return found


def _correlation(x: F64, y: F64) -> float:
    a, b = x.ravel() - x.mean(), y.ravel() - y.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0
