"""The pooled figures as rows of text, for the screen and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kakeya_ref.registry import parse_codec

HEADER = (
    "setting",
    "page bits",
    "held bits",
    "true MB",
    "vs bf16",
    "ΔPPL % [95 %]",
    "KL [95 %]",
    "top-1 %",
)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row of the table, in the order of ``HEADER``."""
    dppl, kl = row["dppl_percent"], row["kl"]
    return (
        explicit(row),
        f"{row['page_bits']:.2f}",
        f"{row['bits_per_element']:.2f}",
        f"{row['true_bytes'] / 1e6:.2f}",
        f"{row['ratio_vs_bf16']:.2f}x",
        f"{dppl['mean']:+.2f}" + _range(dppl["low"], dppl["high"], "{:+.2f}"),
        f"{kl['mean']:.2g}" + _range(kl["low"], kl["high"], "{:.2g}"),
        f"{100 * row['top1']['mean']:.1f}",
    )


def explicit(row: dict[str, Any]) -> str:
    """The setting with its defaults written out, so that a reader need not know them.

    Examples
    --------
    >>> explicit({"k": "scalar", "v": "e8:q=3"})
    'scalar:b=4/e8:q=3'
    """
    k, v = (_explicit(row[stream]) for stream in ("k", "v"))
    return k if k == v else f"{k}/{v}"


def _explicit(text: str) -> str:
    codec = parse_codec(text)
    shown = [f"{n}={v}" for n, v in codec.params if f"{n}={v}" not in ("seed=1", "axis=token")]
    return ":".join(filter(None, (codec.id, ",".join(shown))))


def markdown(summary: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown, ending with a newline."""
    lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *(cells(r) for r in summary)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _range(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return ""
    return f" [{form.format(low)}, {form.format(high)}]"
