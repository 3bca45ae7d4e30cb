"""Rows of text of the three diagnoses: stages, depth and layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kakeya_fast.quality.table import interval

STAGES = ("stage", "SNR", "SNR dB", "SNR centred", "correlation", "bits so far")
INJECTED = ("SNR with it", "dB with it", "corr. with it")
SWEEP = (
    "coded",
    "codec",
    "protocol",
    "page\ntokens",
    "page\nbits",
    "held\nbits†",
    "ΔPPL % [95 %]",
    "KL [95 %]",
    "top-1 %",
)
DAGGER = "† with what is exact counted as bf16, per element of all packed layers"
SUMS = ("codec", "protocol", "sum of single layers, KL", "all together, KL", "together / sum")


def stage_header(staged: dict[str, Any]) -> tuple[str, ...]:
    """Header of :func:`stage_rows`."""
    return STAGES + (INJECTED if staged["inject"] else ())


def stage_rows(staged: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for every stage; with an injected error its figures beside."""
    rows = []
    wrong = {stage["name"]: stage for stage in staged["injected"]}
    for stage in staged["stages"]:
        row = [stage["name"], *_figures(stage)]
        row[3:3] = [f"{stage['centred']:.3g}"]
        row.append(f"{stage['bits']:.2f}")
        if staged["inject"]:
            # The injected error is one of arithmetic; no backend writes such bytes.
            row += _figures(wrong[stage["name"]]) if stage["name"] in wrong else ["–"] * 3
        rows.append(tuple(row))
    return rows


def bits_rows(staged: dict[str, Any]) -> list[tuple[str, ...]]:
    """SNR after the quantiser at every number of bits, without and with the error."""
    return [
        (str(b), f"{snr:.2f}", f"{staged['injected_by_bits'][b]:.2f}")
        for b, snr in staged["by_bits"].items()
    ]


def sweep_rows(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for every summary row of a depth or layers report."""
    return [
        (
            row["name"],
            row["label"],
            row["protocol"],
            str(row["page_tokens"]),
            "–" if row["page_bits"] is None else f"{row['page_bits']:.2f}",
            f"{row['bits_exact_bf16']:.2f}",
            interval(row["dppl_percent"], "{:+.2f}"),
            interval(row["kl"], "{:.2g}"),
            f"{100 * row['top1']['mean']:.1f}",
        )
        for row in rows
    ]


def sum_rows(sums: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for every codec and protocol of a layers report."""
    return [
        (
            row["label"],
            row["protocol"],
            interval(row["singles"]["kl"], "{:.3g}"),
            interval(row["together"]["kl"], "{:.3g}"),
            f"{row['ratio']:.2f}",
        )
        for row in sums
    ]


def _figures(stage: dict[str, Any]) -> list[str]:
    snr = stage["snr"]
    return [f"{snr:.4g}", f"{10 * math.log10(snr):.2f}", f"{stage['corr']:.4f}"]
