"""Where the bytes of a cache are: every part, from the tensors that are really held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.state import UNKNOWN


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
    spare : int
        Page slots of rows that have fewer pages than the longest one.
    sinks, tail : int
        Exact tokens.
    tables : int
        Page tables and row starts.
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

    Rule: rate.bytes.true, rate.sequence.parts
    """

    codes: int = 0
    scales: int = 0
    padding: int = 0
    spare: int = 0
    sinks: int = 0
    tail: int = 0
    tables: int = 0
    other: int = 0
    tokens: int = 0
    dense: int = 0
    planes: dict[str, int] = field(default_factory=dict)

    @property
    def packed(self) -> int:
        """Bytes of the packed layers, exact parts and tables included."""
        exact = self.sinks + self.tail
        return self.codes + self.scales + self.padding + self.spare + exact + self.tables

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
        """All figures, for JSON."""
        derived = ("packed", "total", "ratio", "bits_per_element")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def report(layers: list[Any]) -> CacheReport:
    """Bytes of the layers of a cache."""
    parts: dict[str, int] = {}
    planes: dict[str, int] = {}
    tokens = 0
    for layer in layers:
        if not isinstance(layer, PackedLayer):
            _add(parts, "other", sum(t.untyped_storage().nbytes() for t in tensors(layer)))
        elif layer.state is not None:
            _packed(layer, parts, planes)
            tokens = max(tokens, _tokens(layer))
    return CacheReport(**parts, planes=planes, tokens=tokens)


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


def _packed(layer: PackedLayer, parts: dict[str, int], planes: dict[str, int]) -> None:
    state, pages = layer.state, layer.state.pages
    bodies = int(pages.count.sum()) * state.heads
    for stream, layout in zip("kv", state.layouts, strict=True):
        for plane in layout.planes:
            _add(planes, f"{stream}.{plane.name}", bodies * plane.nbytes)
            kind = "scales" if plane.name in ("scales", "lo", "step") else "codes"
            _add(parts, kind, bodies * plane.nbytes)
        _add(parts, "padding", bodies * (layout.nbytes - sum(p.nbytes for p in layout.planes)))
    _add(parts, "spare", _held(pages.bodies) - bodies * pages.bodies.shape[-1])
    _add(parts, "sinks", _held(state.sink_k) + _held(state.sink_v))
    _add(parts, "tail", _held(state.tail_k) + _held(state.tail_v))
    tables = (pages.first, pages.length, pages.count, state.starts, state.step_from)
    _add(parts, "tables", sum(np.asarray(t).nbytes for t in tables))
    elements = _tokens(layer) * state.heads * sum(layout.head_dim for layout in state.layouts)
    _add(parts, "dense", 2 * elements)


def _tokens(layer: PackedLayer) -> int:
    state = layer.state
    return int(np.where(state.starts == UNKNOWN, 0, state.length - state.starts).sum())


def _held(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _add(parts: dict[str, int], name: str, nbytes: int) -> None:
    parts[name] = parts.get(name, 0) + nbytes
