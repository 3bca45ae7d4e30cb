"""What a model's cache holds, from its config or from ``shapes.toml``, and what that costs."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kakeya_ref.errors import Unsupported, UsageError

SHAPES = Path(__file__).parent / "shapes.toml"
Kind = Literal["full", "sliding"]
UNITS = {"MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Layer:
    """One layer that keeps keys and values; ``window`` is None where it keeps all tokens."""

    kind: Kind
    heads: int
    k_dim: int
    v_dim: int
    window: int | None = None

    def kept(self, tokens: int) -> int:
        """Tokens held after ``tokens`` of them: a window keeps one less than it sees."""
        return tokens if self.window is None else min(tokens, self.window - 1)

    def exact_nbytes(self, tokens: int, itemsize: int = 2) -> int:
        """Bytes of the uncompressed layer at ``itemsize`` bytes a number (bf16: 2)."""
        return self.kept(tokens) * self.heads * (self.k_dim + self.v_dim) * itemsize


@dataclass(frozen=True)
class Shape:
    """A model as its cache sees it."""

    name: str
    source: str
    layers: tuple[Layer, ...]

    def exact_nbytes(self, tokens: int, itemsize: int = 2, kind: Kind | None = None) -> int:
        """Bytes of the uncompressed cache of one sequence, of one kind of layers or of all."""
        chosen = (x for x in self.layers if kind in (None, x.kind))
        return sum(layer.exact_nbytes(tokens, itemsize) for layer in chosen)

    def count(self, kind: Kind) -> int:
        """Number of layers of a kind."""
        return sum(layer.kind == kind for layer in self.layers)


def from_config(config: Any, name: str = "", source: str = "") -> Shape:
    """Shape of a transformers decoder config, with the library's own reading of layer types.

    Raises
    ------
    Unsupported
        A layer that keeps something else than keys and values (``cache.model.kv``).
    """
    from transformers.cache_utils import get_layer_types_and_kwargs

    text = config.get_text_config(decoder=True)
    types, options = get_layer_types_and_kwargs(text)
    layers = []
    for index, (kind, kwargs) in enumerate(zip(types, options, strict=True)):
        if kind == "dummy":
            continue
        if kind not in ("full_attention", "sliding_attention", "chunked_attention"):
            raise Unsupported("cache.model.kv", f"layer {index} of {name or 'the model'} is {kind}")
        own = text.per_layer_config[index]
        heads = getattr(own, "num_key_value_heads", None) or own.num_attention_heads
        dim = getattr(own, "head_dim", None) or own.hidden_size // own.num_attention_heads
        window = kwargs.get("sliding_window")
        layers.append(Layer("full" if window is None else "sliding", heads, dim, dim, window))
    return Shape(name, source, tuple(layers))


def shapes(path: Path = SHAPES) -> dict[str, Shape]:
    """Shapes of ``shapes.toml``, by name."""
    return {name: _shape(name, entry) for name, entry in _models(path).items()}


def published(name: str, path: Path = SHAPES) -> list[tuple[int, str]]:
    """(tokens, size with its unit) of baselines that the predecessor printed for a model."""
    return [(row["tokens"], row["size"]) for row in _models(path)[name]["published"]]


def printed_ratios(name: str, path: Path = SHAPES) -> list[tuple[int, float]]:
    """(tokens, ratio) of full-attention layers as the predecessor printed them; often none."""
    return [(2048 << i, ratio) for i, ratio in enumerate(_models(path)[name].get("ratios", []))]


def printed_stored(name: str, path: Path = SHAPES) -> float | None:
    """Its ratio of what it really stored at 8k, where it printed one."""
    found: float | None = _models(path)[name].get("stored")
    return found


def as_printed(nbytes: int, like: str) -> str:
    """A number of bytes in the unit and with the decimals of another size.

    Examples
    --------
    >>> as_printed(15032385536, "14.00 GiB")
    '14.00 GiB'
    """
    number, unit = like.split()
    decimals = len(number.partition(".")[2])
    return f"{nbytes / UNITS[unit]:.{decimals}f} {unit}"


def _models(path: Path) -> dict[str, Any]:
    models: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))["models"]
    return models


def _shape(name: str, entry: dict[str, Any]) -> Shape:
    layers: list[Layer] = []
    for group in entry["groups"]:
        window = group.get("window")
        if (group["kind"] == "sliding") != (window is not None):
            raise UsageError("model.shape.window", f"{name}: a window goes with sliding layers")
        dim = group["dim"]
        layers += [Layer(group["kind"], group["heads"], dim, dim, window)] * group["layers"]
    return Shape(name, entry["source"], tuple(layers))
