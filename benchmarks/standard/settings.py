"""Codec settings of the standard, and the bytes a fixed-rate cache must have by its formats."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.standard.shapes import Layer
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec, table_kind
from kakeya_ref.types import Codec

# Page table of one layer and row: first index and length of every page; count, start, step.
TABLE_SLOT, TABLE_ROW = 8, 20


@dataclass(frozen=True)
class Setting:
    """A codec of keys, one of values, and the cache around them."""

    name: str
    k: str
    v: str
    page_tokens: int = 512
    residual: int = 256
    sinks: int = 0

    @property
    def codecs(self) -> tuple[Codec, Codec]:
        """Codecs of keys and values."""
        return parse_codec(self.k), parse_codec(self.v)

    @property
    def fixed_rate(self) -> bool:
        """Whether every byte follows from the number of tokens alone."""
        return not any(table_kind(codec) == "skeleton" for codec in self.codecs)

    def pages(self, tokens: int) -> int:
        """Packed pages of a sequence: no later query may need one of their tokens exactly."""
        return max(0, tokens - self.sinks - self.residual) // self.page_tokens

    def exact(self, tokens: int) -> int:
        """Tokens kept exact, sinks and tail."""
        return tokens - self.pages(tokens) * self.page_tokens

    def options(self) -> dict[str, Any]:
        """Arguments of :func:`kakeya_fast.hf.build_kakeya_cache`."""
        return {name: value for name, value in asdict(self).items() if name != "name"}

    def page_nbytes(self, layer: Layer) -> int:
        """Bodies of one page of all KV heads, both streams; fixed-rate codecs only."""
        k, v = self.codecs
        body = page_layout(k, layer.k_dim, self.page_tokens).nbytes
        return layer.heads * (body + page_layout(v, layer.v_dim, self.page_tokens).nbytes)

    def layer_nbytes(self, layer: Layer, tokens: int, itemsize: int = 2) -> int:
        """Bytes of one layer, page table included; sliding layers stay as they are.

        Rule: rate.bytes.true, rate.sequence.parts
        """
        if layer.kind == "sliding":
            return layer.exact_nbytes(tokens, itemsize)
        pages = self.pages(tokens)
        exact = self.exact(tokens) * layer.heads * (layer.k_dim + layer.v_dim) * itemsize
        return pages * (self.page_nbytes(layer) + TABLE_SLOT) + exact + TABLE_ROW


# One cache policy for all codecs but the last, so that they differ in nothing else.
SETTINGS = (
    Setting("skeleton", "skeleton", "skeleton"),
    Setting("turbo", "turbo:b=3", "turbo:b=2,share=1"),
    Setting("scalar", "scalar:b=4", "scalar:b=4"),
    Setting("e8", "e8:q=4", "e8:q=4"),
    Setting("kakeya", "scalar:b=4", "scalar:b=4", page_tokens=32, residual=0, sinks=4),
)
PRESET = SETTINGS[0]


def setting(name: str) -> Setting:
    """A setting of the standard by its name."""
    return next(s for s in SETTINGS if s.name == name)
