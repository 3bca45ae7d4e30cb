"""The snapshot protocol: codecs judged on what a clean forward stored.

Pass 1 runs uncompressed, and its cache holds every layer's keys and values as they came, after the
rotary embedding. Pass 2 runs the same tokens with a packed cache whose coded layers take those
clean keys and values in place of the live ones; the queries are live. Stored errors therefore do
not pile up from layer to layer in what is stored, only in what the queries ask. In-forward is the
other protocol, and what a served model feels: every layer packs what the damaged forward made.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache

from kakeya_fast.hf import KakeyaCache


class SnapshotCache(KakeyaCache):
    """A packed cache whose coded layers store what a clean cache stored.

    Parameters
    ----------
    packed : KakeyaCache
        Fresh, and given up to this one.
    clean : DynamicCache
        Fed the same tokens, one forward ahead of this cache.
    coded : set of int
        Layers that take the clean keys and values.
    """

    def __init__(self, packed: KakeyaCache, clean: DynamicCache, coded: set[int]) -> None:
        super().__init__(packed.layers, packed.attention, kinds=packed.kinds)
        self.clean = clean
        self.coded = coded

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """As the packed cache, with the clean tokens at these places in coded layers."""
        if layer_idx in self.coded:
            begin = self.layers[layer_idx].get_seq_length()
            here = slice(begin, begin + key_states.shape[2])
            layer = self.clean.layers[layer_idx]
            key_states, value_states = layer.keys[:, :, here], layer.values[:, :, here]
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)
