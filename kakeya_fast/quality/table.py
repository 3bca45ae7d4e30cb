"""The pooled figures as rows of text, for the screen and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kakeya_ref.registry import parse_codec, table_kind

# Defaults that would hide what matters.
_TABLED = ("k=16", "store=f16", "rank=0", "vr=95")
QUIET = {
    "skeleton": (*_TABLED, "time=trend"),
    "turbo": (*_TABLED, "levels=normal", "seed=1", "out=0", "pca=exact", "cut=0", "share=0"),
}
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
        "–" if row["page_bits"] is None else f"{row['page_bits']:.2f}",
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
    >>> explicit({"k": "turbo", "v": "turbo", "setting": "turbo@page=512", "page_tokens": 512})
    'turbo:b=3 page=512'
    """
    k, v = (_explicit(row[stream]) for stream in ("k", "v"))
    tail = row.get("setting", "").partition("@")[2].replace(",", " ")
    if "page=" not in tail and any(table_kind(parse_codec(row[s])) for s in ("k", "v")):
        tail = f"page={row['page_tokens']} {tail}".strip()
    return (k if k == v else f"{k}/{v}") + (f" {tail}" if tail else "")


def _explicit(text: str) -> str:
    codec = parse_codec(text)
    quiet = QUIET.get(codec.id, ("seed=1", "axis=token"))
    shown = [f"{n}={v}" for n, v in codec.params if f"{n}={v}" not in quiet]
    return ":".join(filter(None, (codec.id, ",".join(shown))))


def markdown(summary: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown, ending with a newline."""
    lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *(cells(r) for r in summary)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _range(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return ""
    return f" [{form.format(low)}, {form.format(high)}]"
