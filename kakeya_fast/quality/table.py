"""The pooled figures as rows of text, for the screen and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kakeya_ref.registry import parse_codec, registry, spelled, table_kind

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
    return (
        explicit(row),
        "–" if row["page_bits"] is None else f"{row['page_bits']:.2f}",
        f"{row['bits_per_element']:.2f}",
        f"{row['true_bytes'] / 1e6:.2f}",
        f"{row['ratio_vs_bf16']:.2f}x",
        interval(row["dppl_percent"], "{:+.2f}"),
        interval(row["kl"], "{:.2g}"),
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
    >>> explicit({"k": "query:b=2.5", "v": "trellis:b=2"})
    'query:b=2.5,f=32/trellis:b=2'
    """
    k, v = (_explicit(row[stream]) for stream in ("k", "v"))
    tail = row.get("setting", "").partition("@")[2].replace(",", " ")
    if "page=" not in tail and any(
        table_kind(parse_codec(row[s])) == "skeleton" for s in ("k", "v")
    ):
        tail = f"page={row['page_tokens']} {tail}".strip()
    return (k if k == v else f"{k}/{v}") + (f" {tail}" if tail else "")


def _explicit(text: str) -> str:
    codec = parse_codec(text)
    quiet = QUIET.get(codec.id, ("seed=1", "axis=token", "gain=rms"))
    rules = registry()["codecs"][codec.id].get("params", {})
    values = [f"{n}={spelled(rules[n], v)}" for n, v in codec.params]
    shown = [value for value in values if value not in quiet]
    return ":".join(filter(None, (codec.id, ",".join(shown))))


def markdown(summary: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown, ending with a newline."""
    return lines(HEADER, [cells(row) for row in summary])


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Any table in Markdown; the first column is text, the others are figures."""
    names = [name.replace("\n", " ") for name in header]
    every = [names, ("---", *["---:"] * (len(header) - 1)), *rows]
    return "".join("| " + " | ".join(row) + " |\n" for row in every)


def interval(estimate: dict[str, float | None], form: str) -> str:
    """A mean, and its interval where there is one.

    Examples
    --------
    >>> interval({"mean": 1.0, "low": 0.5, "high": 2.0}, "{:.1f}")
    '1.0 [0.5, 2.0]'
    """
    mean, low, high = (estimate[name] for name in ("mean", "low", "high"))
    if low is None or high is None:
        return form.format(mean)
    return f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"
