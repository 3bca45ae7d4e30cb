"""Longer contexts: ``python -m benchmarks.standard.extrapolate REPORT.json``, a measured one.

Fixed-rate codecs: exact, from the formats, once the formats have given every measured context to
the byte. Fitted codecs: pages that were measured are exact; each page after them is taken to cost
the mean of its layer, the band is the least and the most that a page of its layer was seen to
cost, and the walls are what the format allows at the least and the greatest rank. The band is a
habit of the data, the walls are a proof.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.standard.accounting import true_page_nbytes
from benchmarks.standard.bytes import (
    BF16,
    baseline,
    contexts_of,
    full_layers,
    is_shared,
    layer_costs,
    measured,
    setting_of,
)
from benchmarks.standard.settings import TABLE_SLOT, Setting
from benchmarks.standard.shapes import Layer
from kakeya_ref.errors import Malformed, UsageError
from kakeya_ref.registry import parse_codec

TARGETS = tuple(2048 << i for i in range(8))


@dataclass(frozen=True)
class Projection:
    """Bytes of a whole cache at a context, exact tokens in bf16.

    ``low <= mean <= high`` is the band, ``floor`` and ``ceiling`` the walls; all five are one
    number where the context was measured or the rate is fixed.
    """

    tokens: int
    mean: int
    low: int
    high: int
    floor: int
    ceiling: int

    @property
    def exact(self) -> bool:
        """Whether nothing is left open."""
        return self.floor == self.ceiling


def project(data: dict[str, Any], name: str, tokens: int, upto: int | None = None) -> Projection:
    """Bytes of a setting at a context.

    Parameters
    ----------
    data : dict
        A report of :mod:`benchmarks.standard`.
    upto : int, optional
        Use contexts up to this one only, as if no longer one had been measured.

    Raises
    ------
    Malformed
        The formats do not give what was measured (``rate.bytes.true``).
    UsageError
        No measured context (``rate.sequence.parts``).
    """
    known = [n for n in contexts_of(data, name) if upto is None or n <= upto]
    if not known:
        raise UsageError("rate.sequence.parts", f"nothing of {name} was measured")
    for context in known:
        _verify(data, name, context)
    setting = setting_of(data, name)
    sums = [baseline(data, tokens).sliding] * 5
    for index, layer in full_layers(data):
        if setting.fixed_rate:
            parts = [setting.layer_nbytes(layer, tokens)] * 5
        else:
            ranks = data["runs"][name]["ranks"][str(index)]
            parts = _fitted(setting, layer, _first(ranks, setting.pages(known[-1])), tokens)
        sums = [a + b for a, b in zip(sums, parts, strict=True)]
    return Projection(tokens, *sums)


def _fitted(setting: Setting, layer: Layer, ranks: dict[str, Any], tokens: int) -> list[int]:
    """Mean, low, high, floor and ceiling of one layer."""
    once, pages = layer_costs(setting, layer, ranks)
    if not pages:
        raise UsageError("rate.sequence.parts", f"{setting.name}: no page was seen to go on from")
    wanted = setting.pages(tokens)
    exact = setting.exact(tokens) * layer.heads * (layer.k_dim + layer.v_dim) * BF16
    base = exact + once + sum(pages[:wanted])
    more = max(0, wanted - len(pages))
    floor, ceiling = _walls(setting, layer, ranks)
    mean = round(more * sum(pages) / len(pages))
    spread = (mean, *(more * page for page in (min(pages), max(pages), floor, ceiling)))
    return [base + extra for extra in spread]


def _walls(setting: Setting, layer: Layer, ranks: dict[str, Any]) -> tuple[int, int]:
    """Least and most bytes that the format allows a page of all KV heads, both streams."""
    floor = ceiling = TABLE_SLOT
    for stream, codec in zip("kv", setting.codecs, strict=True):
        dim = layer.k_dim if stream == "k" else layer.v_dim
        tables = not is_shared(codec)
        # A shared table settled the rank with the first page.
        open_ranks = range(1, dim + 1) if tables else (ranks[stream][0][0],)
        costs = [_page(str(codec), r, dim, setting.page_tokens, tables) for r in open_ranks]
        floor += layer.heads * min(costs)
        ceiling += layer.heads * max(costs)
    return floor, ceiling


@lru_cache(maxsize=8192)
def _page(codec: str, rank: int, dim: int, tokens: int, tables: bool) -> int:
    return true_page_nbytes(parse_codec(codec), rank, dim, tokens, tables)


def _first(ranks: dict[str, Any], pages: int) -> dict[str, Any]:
    return {stream: ranks[stream][:pages] for stream in "kv"}


def _verify(data: dict[str, Any], name: str, context: int) -> None:
    """Refuse to go on from bytes that the formats do not explain."""
    setting, found = setting_of(data, name), measured(data, name, context).full
    want = 0
    for index, layer in full_layers(data):
        if setting.fixed_rate:
            want += setting.layer_nbytes(layer, context)
        else:
            ranks = _first(data["runs"][name]["ranks"][str(index)], setting.pages(context))
            want += _fitted(setting, layer, ranks, context)[0]
    if want != found:
        raise Malformed(
            "rate.bytes.true",
            f"{name} holds {found} bytes of packed layers at {context} tokens, formats say {want}",
        )


def project_all(
    data: dict[str, Any], targets: Sequence[int] = TARGETS
) -> Iterator[tuple[str, Projection]]:
    """Every setting of a report at every target, in order."""
    for name in data["runs"]:
        for tokens in targets:
            yield name, project(data, name, tokens)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.standard.extrapolate", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("--tokens", type=int, action="append", help="instead of 2k to 256k")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    args = parser.parse_args(argv)
    data = json.loads(args.report.read_text("utf-8"))
    rows = list(project_all(data, args.tokens or TARGETS))
    if args.json:
        print(json.dumps([{"setting": name, **asdict(p)} for name, p in rows], indent=1))
        return
    print(f"{'setting':<10}{'tokens':>8}{'baseline':>15}{'bytes':>15}{'ratio':>8}  band; walls")
    for name, p in rows:
        base = baseline(data, p.tokens).total
        line = f"{name:<10}{p.tokens:>8}{base:>15}{p.mean:>15}{base / p.mean:>8.3f}"
        print(line + ("  exact" if p.exact else "  " + bounds(p, base)))


def bounds(p: Projection, base: int) -> str:
    """Ratios of band and walls, least first."""
    low, high, floor, ceiling = (base / x for x in (p.high, p.low, p.ceiling, p.floor))
    return f"{low:.3f} to {high:.3f}; {floor:.3f} to {ceiling:.3f}"


if __name__ == "__main__":
    main()
