"""What a cache was asked to do: one small frozen object shared by its layers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import kakeya_fast
from kakeya_fast import env, registry
from kakeya_fast.bridge import TensorBridge
from kakeya_fast.hf.blocks import BlockStore
from kakeya_fast.hf.centered import CenteredStore
from kakeya_fast.hf.fits import Fitter, check_metric
from kakeya_fast.hf.framed import FramedStore
from kakeya_fast.hf.keytables import LayerTables
from kakeya_fast.hf.pages import PageStore
from kakeya_fast.hf.rope import Rope
from kakeya_ref.errors import Unsupported, UsageError
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import is_resolved, parse_codec, resolved, table_kind
from kakeya_ref.types import Codec, PageLayout

LOG = logging.getLogger("kakeya")

Attention = Literal["packed", "dense"]

_RAW = {torch.bfloat16: "raw:dtype=bf16", torch.float16: "raw:dtype=f16"}


@dataclass(frozen=True)
class Policy:
    """Codecs and page geometry of a cache.

    Attributes
    ----------
    k, v : Codec
        Codecs of the two streams.
    sinks : int
        Leading real tokens of every row that stay exact.
    page_tokens : int
        ``P``.
    backend : str
        Name given to :func:`kakeya_fast.get_backend`.
    attention : str
        ``packed``: attention reads pages. ``dense``: ``update`` returns decoded tensors.
    residual : int
        Recent tokens of every row that are read exactly, besides those of the newest page.
    window : int, optional
        Of a sliding layer: a query sees itself and the tokens before it, that many in all.
    metric : (H, D, D) float64, optional
        For keys of a fitted codec; see :func:`kakeya_fast.hf.query_metric`.
    keys : LayerTables, optional
        Of ``query``: the tables of the layer.
    center : Rope, optional
        Keys are coded less the mean of their row's first page; the rotation of the layer.
    """

    k: Codec
    v: Codec
    sinks: int = 4
    page_tokens: int = 32
    backend: str = "auto"
    attention: Attention = "packed"
    residual: int = 0
    window: int | None = None
    metric: NDArray[np.float64] | None = field(default=None, compare=False)
    keys: LayerTables | None = field(default=None, compare=False)
    center: Rope | None = None

    def __post_init__(self) -> None:
        for name in ("sinks", "residual"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UsageError("cache.option.range", f"{name}={value!r} is not 0 or more")
        for codec in (self.k, self.v):
            if table_kind(codec) == "skeleton" and is_resolved(codec):
                raise UsageError("codec.fit.resolved", f"{codec}: a cache chooses the rank itself")

    def layouts(
        self, k_dim: int, v_dim: int, dtype: torch.dtype = torch.float32
    ) -> tuple[PageLayout, PageLayout]:
        """Page layouts of the two streams for vectors of these sizes.

        Where a fit chooses the rank of a page, the layout is that of the widest page.

        Raises
        ------
        ShapeError
            A head dim that is not a multiple of 8, a page that is not a multiple of 16.
        """
        return (
            page_layout(_widest(_lossless(self.k, dtype), k_dim), k_dim, self.page_tokens),
            page_layout(_widest(_lossless(self.v, dtype), v_dim), v_dim, self.page_tokens),
        )

    def store(
        self,
        batch: int,
        heads: int,
        layouts: tuple[PageLayout, PageLayout],
        device: torch.device,
    ) -> PageStore | BlockStore:
        """An empty store for pages of these layouts.

        Raises
        ------
        ShapeError
            A metric of another shape than the keys.
        """
        check_metric(self.metric, heads, layouts[0].head_dim)
        if self.keys is not None:
            return FramedStore(batch, heads, layouts, device, self.keys)
        if self.center is not None:
            return CenteredStore(batch, heads, layouts, device, self.center)
        if not table_kind(self.k) and not table_kind(self.v):
            return PageStore(batch, heads, layouts, device)
        k = Fitter(self.k, layouts[0], self.metric)
        return BlockStore(batch, heads, (k, Fitter(self.v, layouts[1])), device)

    def open(self, device: torch.device | str, layouts: tuple[PageLayout, PageLayout]) -> Any:
        """The backend on a device, known to read and write both layouts.

        Raises
        ------
        Unsupported
            No such backend there, or it lacks a layout.
        """
        return _serving(self.backend, str(device), layouts)


def _serving(name: str, device: str, layouts: tuple[PageLayout, PageLayout]) -> Any:
    """The backend of that name; for ``auto`` the first choice, or the next that offers both.

    The last resort away from the CPU is the CPU's backend, through host memory: slow, and said.

    Rule: cache.backend.offers, backend.auto.logged
    """
    backend = _backend(name, device)
    reasons = [_lacks(backend, layouts)]
    if not reasons[0]:
        return backend
    if name == "auto" and not env.backend():
        for info in registry.BACKENDS:
            if info.name == backend.name or info.refusal(device):
                continue
            try:
                other = _backend(info.name, device)
                reasons.append(_lacks(other, layouts))
            except Unsupported as error:
                reasons.append(str(error))
            if not reasons[-1]:
                LOG.info("[backend.auto.logged] %s on %s, after %s", info.name, device, reasons[0])
                return other
        if torch.device(device).type != "cpu":
            other = _through_host(device)
            reasons.append(_lacks(other, layouts))
            if not reasons[-1]:
                return other
    raise Unsupported("cache.backend.offers", "; ".join(reasons))


def _lacks(backend: Any, layouts: tuple[PageLayout, PageLayout]) -> str:
    """Why a backend does not serve these layouts; empty if it does."""
    for layout in layouts:
        support = backend.supports(layout)
        if not support.ok or not {"encode", "decode"} <= support.features:
            return f"{backend.name}, {layout}: {support}"
    return ""


def _widest(codec: Codec, size: int) -> Codec:
    """The codec with the largest page that a fit may choose for it."""
    if table_kind(codec) != "skeleton":
        return codec
    outliers = {"out": 8} if dict(codec.params).get("cut") else {}
    return resolved(codec, rank=min(size, 1024), **outliers)


def _lossless(codec: Codec, dtype: torch.dtype) -> Codec:
    # "raw" promises the model's own numbers back; storing them wider would only cost bytes.
    return parse_codec(_RAW.get(dtype, "raw")) if str(codec) == "raw" else codec


@lru_cache(maxsize=64)
def _through_host(device: str) -> TensorBridge:
    """The CPU's backend for tensors of another device."""
    host = TensorBridge(_backend("auto", "cpu"))
    LOG.warning(
        "[backend.auto.logged] no backend on %s has all codecs asked for: %s, through host memory",
        device,
        host.name,
    )
    return host


@lru_cache(maxsize=64)
def _backend(name: str, device: str) -> Any:
    # Asking again would log the automatic choice again, once per layer.
    return kakeya_fast.get_backend(name, device)
