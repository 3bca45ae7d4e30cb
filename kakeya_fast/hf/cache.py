"""The container that goes where the library expects ``past_key_values``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.report import CacheReport, report
from kakeya_fast.hf.step import Borrowed, Step


class KakeyaCache(Cache):
    """A ``Cache`` whose full-attention layers hold packed pages.

    Made by :func:`kakeya_fast.hf.build_kakeya_cache`. Everything that a ``DynamicCache`` does
    works; iterating yields what a ``DynamicCache`` yields, decoded on the way out.

    Parameters
    ----------
    layers : list
        One cache layer per model layer.
    attention : str
        ``packed`` or ``dense``: how the packed layers are read.
    offloading, offload_only_non_sliding : bool
        As in the library.
    kinds : sequence of str
        The library's name for the kind of each layer, for the report.
    """

    def __init__(
        self,
        layers: list[Any],
        attention: str = "packed",
        offloading: bool = False,
        offload_only_non_sliding: bool = False,
        kinds: Sequence[str] = (),
    ) -> None:
        super().__init__(
            layers=layers, offloading=offloading, offload_only_non_sliding=offload_only_non_sliding
        )
        self.attention = attention
        self.kinds = tuple(kinds) or ("",) * len(layers)
        packed = [i for i, layer in enumerate(layers) if isinstance(layer, PackedLayer)]
        self.step = Step(max(packed, default=-1))
        for index in packed:
            layers[index].index, layers[index].step = index, self.step

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Give new keys and values (B, H, q, D) to a layer; see :class:`PackedLayer`.

        Rule: cache.step.whole

        Raises
        ------
        KakeyaError
            The tokens of this forward are gone again, from every layer.
        """
        layer = self.layers[layer_idx]
        if not isinstance(layer, PackedLayer) and layer_idx < self.step.last:
            self.step.enter(layer_idx, Borrowed(layer))
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove tokens from the end of every layer, or of none.

        Rule: cache.crop.negative, cache.crop.window
        """
        for layer in self.layers:
            if isinstance(layer, PackedLayer):
                layer.check_crop(tokens_to_remove)
        super().crop(tokens_to_remove)

    def __iter__(self) -> Iterator[tuple[Tensor | None, Tensor | None, Tensor | None]]:
        for layer in self.layers:
            if isinstance(layer, PackedLayer):
                yield *layer.dense(), None
            else:
                sliding = getattr(layer, "_sliding_window_tensor", None)
                yield getattr(layer, "keys", None), getattr(layer, "values", None), sliding

    def report(self) -> CacheReport:
        """True bytes held, by part.

        Rule: rate.bytes.true
        """
        return report(self.layers, self.kinds)
