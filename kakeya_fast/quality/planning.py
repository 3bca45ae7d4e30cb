"""Measuring the layers of a model and making its plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kakeya_fast.hf.plan import Plan
from kakeya_fast.quality.allocate import (
    Part,
    Shape,
    Step,
    curve,
    level,
    mean_bits,
    probes,
    spend,
    steadied,
)
from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.protocol import DEFAULTS, Options
from kakeya_fast.quality.run import run
from kakeya_fast.quality.texts import Text

CANDIDATES = tuple(f"trellis:b={b}" for b in range(1, 7))
RATES = ("trellis", "trellis:b=4")
# Of values, whose errors fade in a mean over tokens if they are not all of one sign.
VALUES, VALUE_RATES = (
    tuple(f"{c},gain=unbiased" for c in cs) for cs in (CANDIDATES, ("trellis:b=1", "trellis:b=3"))
)
# Bits of keys with calibrated tables: a table spends its first bits where they bring most, so the
# damage does not fall alike from bit to bit. Up to 4 bits in steps of about a quarter.
KEY_BITS = (*(f"{n}{part}" for n in (1, 2, 3) for part in ("", ".3", ".5", ".8")), "4", "5")
KEY_RATES = ("1", "3")


@dataclass(frozen=True)
class Sensitivity:
    """Measured KL of every part at every rate tried, and the shapes of the layers."""

    kl: Mapping[Part, Mapping[str, float]]
    shapes: Mapping[int, Shape]

    def plan(
        self, budget: float, candidates: Mapping[str, Sequence[str]]
    ) -> tuple[Plan, dict[Part, Step]]:
        """The plan of a budget in mean bits per element of full pages, and what it expects."""
        curves = {part: self._curve(part, candidates[part.stream]) for part in self.kl}
        chosen = spend(curves, self.shapes, budget)
        codecs = {
            layer: (chosen[Part(layer, "k")].codec, chosen[Part(layer, "v")].codec)
            for layer in sorted(self.shapes)
        }
        return Plan(codecs), chosen

    def expected(self, part: Part, codec: str) -> float:
        """KL that a part alone is expected to lose at any rate."""
        return self._curve(part, [codec])[0].kl

    def _curve(self, part: Part, candidates: Sequence[str]) -> list[Step]:
        return curve(candidates, self._steady[part], self.shapes[part.layer], part.stream)

    @cached_property
    def _steady(self) -> dict[Part, dict[str, float]]:
        return steadied(self.kl)


def key_codecs(tables: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Candidates and measured rates of keys that a file of calibrated tables serves."""
    from kakeya_fast.hf import load_tables

    frame = load_tables(tables).frame
    every = [tuple(f"query:b={b},f={frame}" for b in bits) for bits in (KEY_BITS, KEY_RATES)]
    return every[0], every[1]


def sensitivity(
    loaded: Loaded,
    text: Text,
    rates: Mapping[str, Sequence[str]],
    *,
    ctx: int,
    count: int,
    together: int = 1,
    tables: str = "",
    options: Options = DEFAULTS,
    out: Path | None = None,
    workers: int = 1,
    step: Callable[[], None] = lambda: None,
) -> Sensitivity:
    """KL of each packed layer and stream coded alone; resumable by ``out``, as any report.

    With ``together`` above 1 that many neighbouring layers are coded at a time and share the KL;
    ``tables`` is the file of calibrated tables for rates of ``query``.
    """
    shapes = layer_shapes(loaded, options)
    wanted = probes(sorted(shapes), rates, together, tables)
    report = run(
        loaded,
        text,
        list(dict.fromkeys(wanted.values())),
        ctx=ctx,
        count=count,
        options=options,
        out=out,
        any_commit=True,
        workers=workers,
        step=step,
    )
    passages: dict[str, list[float]] = {}
    for score in report.scores:
        passages.setdefault(score.setting, []).append(score.kl / score.tokens)
    found: dict[Part, dict[str, float]] = {}
    for (part, codec), setting in wanted.items():
        sharing = sum(other is setting for other in wanted.values())
        found.setdefault(part, {})[codec] = level(passages[str(setting)]) / sharing
    return Sensitivity(found, shapes)


def layer_shapes(loaded: Loaded, options: Options = DEFAULTS) -> dict[int, Shape]:
    """Shapes of the packed layers: what a cache of this model holds after one short forward."""
    import torch

    from kakeya_fast.hf import PackedLayer, build_kakeya_cache

    cache = build_kakeya_cache(loaded.model, k="raw", v="raw", sinks=0, page_tokens=16)
    ids = torch.tensor([loaded.tokens("The cat sat on the mat.")[:4]], device=loaded.model.device)
    with torch.inference_mode():
        loaded.model(ids, past_key_values=cache)
    found = {}
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, PackedLayer) and layer.state is not None:
            k, v = layer.state.layouts
            found[index] = Shape(k.head_dim, v.head_dim, layer.state.heads, options.page_tokens)
    return found


def describe(chosen: Mapping[Part, Step], shapes: Mapping[int, Shape]) -> dict[str, float | str]:
    """Figures of a plan: bits in all and by stream, expected KL, what boundary layers get."""
    ends = {min(shapes), max(shapes)}
    edge = {p: s for p, s in chosen.items() if p.layer in ends}
    return {
        "bits": round(mean_bits(chosen, shapes), 4),
        "bits_k": round(mean_bits(chosen, shapes, "k"), 4),
        "bits_v": round(mean_bits(chosen, shapes, "v"), 4),
        "bits_first_and_last_layer": round(mean_bits(edge, shapes), 4),
        "expected_kl": round(sum(s.kl for s in chosen.values()), 6),
    }
