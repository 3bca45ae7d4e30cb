"""What a cache was asked to do: one small frozen object shared by its layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch

import kakeya_fast
from kakeya_ref.errors import Unsupported, UsageError
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec
from kakeya_ref.types import Codec, PageLayout

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
    """

    k: Codec
    v: Codec
    sinks: int = 4
    page_tokens: int = 32
    backend: str = "auto"
    attention: Attention = "packed"

    def __post_init__(self) -> None:
        if isinstance(self.sinks, bool) or not isinstance(self.sinks, int) or self.sinks < 0:
            raise UsageError("cache.option.range", f"sinks={self.sinks!r} is not 0 or more")

    def layouts(
        self, k_dim: int, v_dim: int, dtype: torch.dtype = torch.float32
    ) -> tuple[PageLayout, PageLayout]:
        """Page layouts of the two streams for vectors of these sizes.

        Raises
        ------
        ShapeError
            A head dim that is not a multiple of 8, a page that is not a multiple of 16.
        """
        return (
            page_layout(_lossless(self.k, dtype), k_dim, self.page_tokens),
            page_layout(_lossless(self.v, dtype), v_dim, self.page_tokens),
        )

    def open(self, device: torch.device | str, layouts: tuple[PageLayout, PageLayout]) -> Any:
        """The backend on a device, known to read and write both layouts.

        Raises
        ------
        Unsupported
            No such backend there, or it lacks a layout.
        """
        backend = _backend(self.backend, str(device))
        for layout in layouts:
            support = backend.supports(layout)
            if not support.ok or not {"encode", "decode"} <= support.features:
                raise Unsupported("cache.backend.offers", f"{backend.name}, {layout}: {support}")
        return backend


def _lossless(codec: Codec, dtype: torch.dtype) -> Codec:
    # "raw" promises the model's own numbers back; storing them wider would only cost bytes.
    return parse_codec(_RAW.get(dtype, "raw")) if str(codec) == "raw" else codec


@lru_cache(maxsize=64)
def _backend(name: str, device: str) -> Any:
    # Asking again would log the automatic choice again, once per layer.
    return kakeya_fast.get_backend(name, device)
