"""Where the bytes of a cache are: every part, from the tensors that are really held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.state import UNKNOWN, LayerState

# Parts that add up over layers.
SUMMED = (
    "codes", "scales", "padding", "skeletons", "spare", "sinks", "tail", "tables", "other",
    "dense", "metric",
)  # fmt: skip


@dataclass(frozen=True)
class CacheReport:
    """True bytes of a cache, by part.

    Attributes
    ----------
    codes, scales : int
        Planes of the pages in use; scales are ``scales``, ``lo`` and ``step``.
    planes : dict
        The same bytes by stream and plane name, such as ``k.codes4``.
    padding : int
        Alignment bytes inside pages in use.
    skeletons : int
        Tables of fitted codecs, and what an encoder keeps of those that later pages share.
    spare : int
        Page slots of rows that have fewer pages than the longest one.
    sinks, tail : int
        Exact tokens.
    tables : int
        Page tables, with rank and outliers of fitted pages, and row starts.
    other : int
        Layers that are not packed.
    total : int
        All of the above: every byte that the cache holds.
    tokens : int
        Real tokens held, over all rows, padding not counted.
    dense : int
        Bytes of the same tokens of the packed layers in bf16.
    ratio : float
        ``dense`` over the bytes of the packed layers.
    bits_per_element : float
        Bits of the packed layers over their elements.
    metric : int
        Query metrics and calibrated tables, not in ``total``: they belong to the model, not to a
        sequence.
    kind : str
        Of a single layer: the library's name for it, such as ``full_attention``.
    per_layer : tuple of CacheReport
        The same for every layer; empty in the report of a layer.

    Pages of fitted codecs that rows share, after a row was repeated, are held and counted once.

    Rule: rate.bytes.true, rate.sequence.parts
    """

    codes: int = 0
    scales: int = 0
    padding: int = 0
    skeletons: int = 0
    spare: int = 0
    sinks: int = 0
    tail: int = 0
    tables: int = 0
    other: int = 0
    tokens: int = 0
    dense: int = 0
    planes: dict[str, int] = field(default_factory=dict)
    metric: int = 0
    kind: str = ""
    per_layer: tuple[CacheReport, ...] = ()

    @property
    def packed(self) -> int:
        """Bytes of the packed layers, exact parts and tables included."""
        pages = self.codes + self.scales + self.padding + self.skeletons + self.spare
        return pages + self.sinks + self.tail + self.tables

    @property
    def total(self) -> int:
        """Every byte that the cache holds."""
        return self.packed + self.other

    @property
    def ratio(self) -> float:
        """bf16 bytes of the same tokens over ``packed``; 0 for an empty cache."""
        return self.dense / self.packed if self.packed else 0.0

    @property
    def bits_per_element(self) -> float:
        """Bits per stored number; 0 for an empty cache."""
        return 16 * self.packed / self.dense if self.dense else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All figures but those of single layers, for JSON."""
        derived = ("packed", "total", "ratio", "bits_per_element")
        figures = asdict(replace(self, per_layer=()))
        del figures["per_layer"]
        return figures | {name: getattr(self, name) for name in derived}


def report(layers: list[Any], kinds: Sequence[str]) -> CacheReport:
    """Bytes of the layers of a cache, all together and each for itself."""
    each = tuple(_layer(layer, kind) for layer, kind in zip(layers, kinds, strict=True))
    planes: Counter[str] = Counter()
    for one in each:
        planes.update(one.planes)
    parts = {name: sum(getattr(one, name) for one in each) for name in SUMMED}
    tokens = max((one.tokens for one in each), default=0)
    return CacheReport(**parts, tokens=tokens, planes=dict(planes), per_layer=each)


def _layer(layer: Any, kind: str) -> CacheReport:
    if not isinstance(layer, PackedLayer):
        other = sum(t.untyped_storage().nbytes() for t in tensors(layer))
        return CacheReport(other=other, kind=kind)
    metric = layer.policy.metric
    size = 0 if metric is None else metric.nbytes
    size += 0 if layer.policy.keys is None else layer.policy.keys.nbytes
    if layer.state is None:
        return CacheReport(kind=kind, metric=size)
    return replace(_packed(layer.state), kind=kind, metric=size)


def tensors(root: Any) -> Iterator[torch.Tensor]:
    """Tensors reachable through attributes, lists, tuples and dicts; one per storage."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            if item.untyped_storage().data_ptr() not in seen:
                seen.add(item.untyped_storage().data_ptr())
                yield item
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, dict):
                stack.extend(item.values())
            elif isinstance(item, (list, tuple)):
                stack.extend(item)
            else:
                stack.extend(getattr(item, "__dict__", {}).values())


def _packed(state: LayerState) -> CacheReport:
    pages, planes, kinds = state.pages, Counter(), Counter()
    for stream, name in enumerate("kv"):
        for layout, bodies in pages.held(stream).items():
            for plane in layout.planes:
                planes[f"{name}.{plane.name}"] += bodies * plane.nbytes
                kind = "scales" if plane.name in ("scales", "lo", "step") else "codes"
                kinds[kind] += bodies * plane.nbytes
            kinds["padding"] += bodies * (layout.nbytes - sum(p.nbytes for p in layout.planes))
    tokens = int(np.where(state.starts == UNKNOWN, 0, state.length - state.starts).sum())
    sinks = state.sink_k.nbytes + state.sink_v.nbytes
    elements = tokens * state.heads * sum(layout.head_dim for layout in state.layouts)
    return CacheReport(
        **kinds,
        skeletons=pages.skeletons_nbytes,
        spare=pages.spare_nbytes,
        sinks=sinks,
        tail=sum(x.untyped_storage().nbytes() for x in state.exact) - sinks,
        tables=pages.table_nbytes + state.starts.nbytes + state.step_from.nbytes,
        tokens=tokens,
        dense=2 * elements,
        planes=dict(planes),
    )
