"""Totals of a stored result: full and sliding layers apart, as held and as bf16 would hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.standard.accounting import Claim, Historic, claim, true_page_nbytes
from benchmarks.standard.run import COLUMNS
from benchmarks.standard.settings import TABLE_ROW, TABLE_SLOT, Setting
from benchmarks.standard.shapes import Layer, Shape
from kakeya_ref.layout import table_layout
from kakeya_ref.registry import resolved
from kakeya_ref.types import Codec

BF16 = 2
EXACT = (COLUMNS.index("sinks"), COLUMNS.index("tail"))


@dataclass(frozen=True)
class Sizes:
    """Bytes of one cache: ``full`` layers, ``sliding`` layers, and both."""

    full: int
    sliding: int

    @property
    def total(self) -> int:
        """Every byte."""
        return self.full + self.sliding


def shape_of(data: dict[str, Any]) -> Shape:
    """Shape of the model of a result."""
    model = data["model"]
    return Shape(model["name"], "", tuple(Layer(*row) for row in model["shape"]))


def setting_of(data: dict[str, Any], name: str) -> Setting:
    """A setting as a result was measured with it."""
    return Setting(name=name, **data["settings"][name])


def contexts_of(data: dict[str, Any], name: str) -> list[int]:
    """Contexts at which a setting was measured."""
    return sorted(map(int, data["runs"][name]["contexts"]))


def baseline(data: dict[str, Any], tokens: int, itemsize: int = BF16) -> Sizes:
    """The uncompressed cache, by the shape; the result says that it was measured equal."""
    shape = shape_of(data)
    return Sizes(*(shape.exact_nbytes(tokens, itemsize, kind) for kind in ("full", "sliding")))


def measured(data: dict[str, Any], name: str, tokens: int, *, held: bool = False) -> Sizes:
    """The cache of a setting at a measured context.

    Parameters
    ----------
    held : bool
        Exact tokens in the dtype of the run. Otherwise in bf16, two bytes a number, as the
        baseline; coded bytes are the same in both.
    """
    return sizes(data, data["runs"][name]["contexts"][str(tokens)]["layers"], held=held)


def sizes(data: dict[str, Any], rows: list[list[int]], *, held: bool = False) -> Sizes:
    """Bytes of a cache from the rows of its layers; see :func:`measured`."""
    itemsize = data["model"]["itemsize"]
    full = sliding = 0
    for layer, row in zip(shape_of(data).layers, rows, strict=True):
        if layer.kind == "sliding":
            sliding += row[0] if held else row[0] * BF16 // itemsize
        else:
            exact = sum(row[i] for i in EXACT)
            full += sum(row[1:]) - (0 if held else exact - exact * BF16 // itemsize)
    return Sizes(full, sliding)


def storage(data: dict[str, Any], tokens: int) -> int:
    """Bytes that the uncompressed cache really occupied, views of larger tensors included."""
    rows = data["baseline"]["contexts"][str(tokens)]["layers"]
    return sum(row[1] for row in rows)


def full_layers(data: dict[str, Any]) -> Iterator[tuple[int, Layer]]:
    """Places of the full-attention layers among the layers that keep something."""
    for index, layer in enumerate(shape_of(data).layers):
        if layer.kind == "full":
            yield index, layer


def historic(data: dict[str, Any], tokens: int) -> Claim:
    """The cache as the predecessor would have counted it, from the ranks of its own blocks.

    Heads pooled, as it did; ranks of the uncompressed keys and values; sliding layers in bf16.
    """
    preset = Historic(**data["protocol"]["historic"])
    sliding = baseline(data, tokens).sliding
    total = Claim(sliding, sliding)
    for index, layer in full_layers(data):
        found = data["clean_ranks"][str(index)]
        for stream, dim in (("k", layer.k_dim), ("v", layer.v_dim)):
            total += claim(found[stream], tokens, layer.heads, dim, preset)
    return total


def mean_rank(ranks: dict[str, dict[str, Any]], stream: str, pages: int) -> float:
    """Mean rank of the first pages of a stream, over all layers; NaN where there is no page.

    Parameters
    ----------
    ranks : by layer, then by stream: (pages,) or (pages, H) ints
    """
    entries = [entry for found in ranks.values() for entry in found[stream][:pages]]
    return float(np.mean(np.concatenate([np.atleast_1d(e) for e in entries] or [[np.nan]])))


def is_shared(codec: Codec) -> bool:
    """Whether one table serves a layer's stream: all KV heads, all pages."""
    return codec.id == "turbo" and bool(codec.integer("share"))


def layer_costs(
    setting: Setting, layer: Layer, ranks: dict[str, list[list[int]]]
) -> tuple[int, list[int]]:
    """Bytes a fitted layer keeps by its formats: once, and for each page of all KV heads.

    Parameters
    ----------
    ranks : ``{"k": (pages, H) ints, "v": …}``

    Rule: rate.bytes.true
    """
    once = TABLE_ROW
    pages = [TABLE_SLOT] * len(ranks["k"])
    for stream, codec in zip("kv", setting.codecs, strict=True):
        dim = layer.k_dim if stream == "k" else layer.v_dim
        shared = is_shared(codec)
        for slot, heads in enumerate(ranks[stream]):
            for rank in heads:
                pages[slot] += true_page_nbytes(codec, rank, dim, setting.page_tokens, not shared)
        if shared and ranks[stream]:
            once += table_layout(resolved(codec, rank=ranks[stream][0][0]), dim).nbytes
    return once, pages
