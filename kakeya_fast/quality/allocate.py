"""Rate allocation: what a bit is worth in each layer and stream, and how a budget is spent on it.

Each layer and stream is coded alone, all else exact, at one rate or more; KL falls about
exponentially with bits, so a few points give the curve of all candidates. Damages of layers add
up nearly, so that the plan of least summed KL is found greedily: the step that saves most KL per
bit comes first, along the lower convex hull of each curve.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from kakeya_fast.quality.setting import Setting
from kakeya_ref.errors import UsageError
from kakeya_ref.layout import page_layout

# Noise can make a KL nothing or less.
LEAST = 1e-9
# Beyond what was measured: a bit more is a quarter of the error.
NATS_PER_BIT = -2 * math.log(2)


class Part(NamedTuple):
    """One stream of one layer."""

    layer: int
    stream: str  # k or v


class Step(NamedTuple):
    """A candidate of a part: its codec, true bits per element of a full page, expected KL."""

    codec: str
    bits: float
    kl: float


@dataclass(frozen=True)
class Shape:
    """What of a layer the allocation needs to know."""

    k_dim: int
    v_dim: int
    heads: int
    page_tokens: int = 32

    def bits(self, codec: str, stream: str) -> float:
        """True bits per element of a full page."""
        dim = self.k_dim if stream == "k" else self.v_dim
        return page_layout(codec, dim, self.page_tokens).bits_per_element

    def weight(self, stream: str) -> int:
        """Elements of a token."""
        return self.heads * (self.k_dim if stream == "k" else self.v_dim)


def probe(
    coded: Sequence[int], stream: str, codec: str, layers: Sequence[int], tables: str = ""
) -> Setting:
    """The setting that codes one stream of some layers and keeps all else exact.

    ``tables`` is the file of calibrated tables that keys of ``query`` need.

    Examples
    --------
    >>> str(probe([1], "v", "trellis", [0, 1, 2, 3]))
    'raw/trellis@exact=0+2..3'
    """
    pair = f"{codec}/raw" if stream == "k" else f"raw/{codec}"
    others = tuple(i for i in layers if i not in coded)
    return replace(Setting.parse(pair), exact=others, tables=tables if stream == "k" else "")


def probes(
    layers: Sequence[int],
    rates: Mapping[str, Sequence[str]],
    together: int = 1,
    tables: str = "",
) -> dict[tuple[Part, str], Setting]:
    """All settings to measure, by every part they say something of.

    Parameters
    ----------
    rates : mapping of stream to codecs
        What to try of each stream.
    together : int
        Neighbouring layers coded in one setting, which share its KL: cheaper and coarser.
    """
    found = {}
    for first in range(0, len(layers), together):
        group = layers[first : first + together]
        for stream in ("k", "v"):
            for codec in rates[stream]:
                setting = probe(group, stream, codec, layers, tables)
                found |= {(Part(layer, stream), codec): setting for layer in group}
    return found


def level(kl: Sequence[float]) -> float:
    """The KL of a part over passages: their geometric mean.

    A few tokens can make up most of a passage's KL in one layer; a plain mean would spend bits on
    them for every text.

    Examples
    --------
    >>> round(level([0.01, 0.0001]), 6)
    0.001
    """
    return math.exp(sum(math.log(max(x, LEAST)) for x in kl) / len(kl))


def steadied(kl: Mapping[Part, Mapping[str, float]]) -> dict[Part, dict[str, float]]:
    """The same, with what a further rate changes half each part's own and half its stream's.

    Few passages tell a part's level well and the ratio of two small numbers badly, and an
    allocation picks what errs in its favour. The stream's ratio is the median over its parts, to
    the first rate of each.

    Examples
    --------
    >>> one, two = Part(0, "v"), Part(1, "v")
    >>> round(steadied({one: {"a": 1.0, "b": 0.25}, two: {"a": 4.0, "b": 0.25}})[two]["b"], 4)
    0.3536
    """
    ratios: dict[tuple[str, str], list[float]] = {}
    for part, found in kl.items():
        first, *others = found
        for codec in others:
            ratios.setdefault((part.stream, codec), []).append(_ratio(found, codec, first))
    out = {}
    for part, found in kl.items():
        first, *others = found
        shared = {c: median(ratios[part.stream, c]) for c in others}
        out[part] = {first: found[first]} | {
            c: found[first] * math.exp((_ratio(found, c, first) + shared[c]) / 2) for c in others
        }
    return out


def _ratio(found: Mapping[str, float], codec: str, first: str) -> float:
    return math.log(max(found[codec], LEAST) / max(found[first], LEAST))


def curve(
    candidates: Sequence[str], measured: Mapping[str, float], shape: Shape, stream: str
) -> list[Step]:
    """Candidates of one part by bits, their KL measured or on the line through what was.

    Parameters
    ----------
    measured : mapping of codec to KL
        One or more; a KL of 0 or less, which noise can give, counts as very small.
    """
    known = sorted((shape.bits(c, stream), math.log(max(kl, LEAST))) for c, kl in measured.items())
    steps = []
    for codec in candidates:
        bits = shape.bits(codec, stream)
        steps.append(Step(codec, bits, math.exp(_along(known, bits))))
    return hull(steps)


def _along(known: Sequence[tuple[float, float]], bits: float) -> float:
    """Log KL at a rate: on the line between two measured, or as theory has it beyond them."""
    below = [point for point in known if point[0] <= bits]
    above = [point for point in known if point[0] >= bits]
    if below and above and above[0][0] > below[-1][0]:
        share = (bits - below[-1][0]) / (above[0][0] - below[-1][0])
        return below[-1][1] + share * (above[0][1] - below[-1][1])
    near = (below or above)[-1 if below else 0]
    return near[1] + NATS_PER_BIT * (bits - near[0])


def hull(steps: Sequence[Step]) -> list[Step]:
    """Steps on the lower convex hull, by bits: what lies above it is never the best use of them."""
    kept: list[Step] = []
    for step in sorted(steps, key=lambda s: (s.bits, s.kl)):
        if kept and step.kl >= kept[-1].kl:
            continue
        while len(kept) > 1 and _slope(kept[-2], step) <= _slope(kept[-2], kept[-1]):
            kept.pop()
        kept.append(step)
    return kept


def _slope(a: Step, b: Step) -> float:
    return (b.kl - a.kl) / (b.bits - a.bits) if b.bits > a.bits else -math.inf


def spend(
    curves: Mapping[Part, Sequence[Step]], shapes: Mapping[int, Shape], budget: float
) -> dict[Part, Step]:
    """The step of every part, of least summed KL within a mean of ``budget`` bits per element.

    Raises
    ------
    UsageError
        A budget below the cheapest candidates.
    """
    weight = {part: shapes[part.layer].weight(part.stream) for part in curves}
    total = sum(weight.values())
    at = dict.fromkeys(curves, 0)
    spent = sum(weight[p] * curves[p][0].bits for p in curves)
    check_budget(budget, spent / total)
    moves = sorted(
        (
            (_slope(a, b) / weight[part], part, i + 1)
            for part, steps in curves.items()
            for i, (a, b) in enumerate(itertools.pairwise(steps))
        ),
        key=lambda move: (move[0], move[1], move[2]),
    )
    for _, part, i in moves:
        cost = weight[part] * (curves[part][i].bits - curves[part][i - 1].bits)
        # Hulls are convex, so the steps of a part come in order; one that does not fit ends it.
        if at[part] == i - 1 and spent + cost <= budget * total * (1 + 1e-9):
            at[part], spent = i, spent + cost
    return {part: curves[part][i] for part, i in at.items()}


def check_budget(budget: float, least: float) -> None:
    """Refuse a budget below what the cheapest candidates take.

    Rule: plan.budget.least

    Raises
    ------
    UsageError
    """
    if not least <= budget * (1 + 1e-9) < math.inf:
        raise UsageError(
            "plan.budget.least", f"{budget} bits; the cheapest candidates take {least:.3f}"
        )


def least_bits(shapes: Mapping[int, Shape], candidates: Mapping[str, Sequence[str]]) -> float:
    """Mean bits per element where every part has the cheapest of its candidates."""
    parts = [(shape, stream) for shape in shapes.values() for stream in ("k", "v")]
    spent = sum(
        shape.weight(stream) * min(shape.bits(c, stream) for c in candidates[stream])
        for shape, stream in parts
    )
    return spent / sum(shape.weight(stream) for shape, stream in parts)


def mean_bits(
    chosen: Mapping[Part, Step], shapes: Mapping[int, Shape], streams: str = "kv"
) -> float:
    """Mean bits per element of what was chosen."""
    pairs = [(shapes[p.layer].weight(p.stream), s.bits) for p, s in chosen.items()]
    if streams != "kv":
        pairs = [
            (shapes[p.layer].weight(p.stream), s.bits)
            for p, s in chosen.items()
            if p.stream in streams
        ]
    return sum(w * bits for w, bits in pairs) / sum(w for w, _ in pairs)
