"""Tables and plots of ``benchmarks.lineage`` from its result files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kakeya_fast.quality.columns import (
    DAGGER,
    SUMS,
    SWEEP,
    bits_rows,
    stage_header,
    stage_rows,
    sum_rows,
    sweep_rows,
)
from kakeya_fast.quality.draw import draw_bits, draw_depth, draw_layers, draw_rates, draw_stages
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.table import explicit, interval, lines

RESULTS = Path(__file__).parent / "results" / "lineage"
CODECS = (
    "setting",
    "page bits",
    "layer bits",
    "held bits†",
    "ΔPPL % [95 %]",
    "KL [95 %]",
    "top-1 %",
)
EXACT_BITS = 16


def render(part: str, path: Path) -> None:
    """Markdown and PNG beside a result file."""
    data = json.loads(path.read_text("utf-8"))
    text = {"stages": _stages, "depth": _depth, "layers": _layers, "codecs": _codecs}[part](
        data, path
    )
    path.with_suffix(".md").write_text("\n".join(text), "utf-8")


def _stages(data: dict[str, Any], path: Path) -> list[str]:
    name = data["model"]["name"]
    out = [
        f"# Stages of skeleton and turbo, {name}",
        "",
        f"Captured over {data['ctx']} tokens of {data['text']['name']}, KV head {data['head']}, "
        f"blocks of {data['block']}, pooled. SNR is power over power of the error; *centred* "
        "takes the block's mean out of the vectors first. Bits per element count what a stage and "
        "those before it store; coefficients that are not quantised yet count nothing.",
        "",
    ]
    for row in data["rows"]:
        what = "keys" if row["stream"] == "k" else "values"
        codec = explicit({"k": row["codec"], "v": row["codec"], "page_tokens": data["block"]})
        row["title"] = f"layer {row['layer']}, {what}: {codec.partition(' ')[0]}"
        with_it = f", with error `{row['inject']}` beside" if row["inject"] else ""
        out += [f"## {row['title']}{with_it}", "", f"Ranks {row['ranks']}.", ""]
        out += [lines(stage_header(row), stage_rows(row))]
        if row["inject"]:
            out += ["", lines(("bits", "SNR", "SNR with it"), bits_rows(row))]
    # Keys of one layer are enough for a picture: of the layer that the historic figures are of.
    layers = list(dict.fromkeys(row["layer"] for row in data["rows"]))
    layer = 5 if 5 in layers else layers[0]
    shown = [r for r in data["rows"] if (r["layer"], r["stream"]) == (layer, "k")]
    draw_stages(shown, f"{name}: stages", path.with_suffix(".png"))
    keys = [r for r in shown if r["inject"]]
    title = f"{name}, layer {layer}, keys"
    draw_bits(keys, title, path.with_name(f"{path.stem}-bits.png"))
    return out


def _depth(data: dict[str, Any], path: Path) -> list[str]:
    title = _title(data)
    draw_depth(data, title, path.with_suffix(".png"))
    return [
        f"# Damage against coded layers: {title}",
        "",
        _protocol(data),
        "",
        lines(SWEEP, sweep_rows(data["summary"])),
        "",
        DAGGER + ".",
        "",
    ]


def _layers(data: dict[str, Any], path: Path) -> list[str]:
    title = _title(data)
    draw_layers(data, title, path.with_suffix(".png"))
    return [
        f"# One layer at a time: {title}",
        "",
        _protocol(data),
        "",
        lines(SUMS, sum_rows(data["sums"])),
        "",
        lines(SWEEP, sweep_rows(data["summary"])),
        "",
        DAGGER + ".",
        "",
    ]


def _codecs(data: dict[str, Any], path: Path) -> list[str]:
    title, full = _title(data), packed_layers(data)
    rows = []
    for row in data["summary"]:
        rows.append(row | {"layer_bits": layer_bits(row, full), "label": explicit(row)})
    draw_rates(rows, title, path.with_suffix(".png"))
    return [
        f"# Codecs of the lineage: {title}",
        "",
        _protocol(data),
        "",
        "*Page bits* are of a full page of a coded layer, with its table and what the page table "
        "says of it; *layer bits* are their mean over all packed layers, exact ones at 16 bits. "
        "Tokens before the first whole page are read exactly and count too, with no damage.",
        "",
        lines(CODECS, [_cells(row) for row in rows]),
        "",
        DAGGER + ".",
        "",
    ]


def packed_layers(data: dict[str, Any]) -> int:
    """Layers that a codec can pack; a run that was cut off has not listed them: all, then."""
    return len(data.get("full_layers") or range(data["model"]["layers"]))


def measured_passages(data: dict[str, Any]) -> str:
    """How many passages all settings have, and of how many asked for if those are more."""
    asked, have = data["protocol"]["passages"], [row["passages"] for row in data["summary"]]
    if min(have) == asked:
        return str(asked)
    some = f"{min(have)} to {max(have)}" if min(have) < max(have) else f"{min(have)}"
    return f"{some} of {asked}"


def layer_bits(row: dict[str, Any], full: int) -> float | None:
    """True bits of pages as a mean over packed layers; in bf16, exact ones have 16."""
    kept = len(Setting.parse(row["setting"]).exact)
    bits = row["page_bits"]
    return None if bits is None else (bits * (full - kept) + EXACT_BITS * kept) / full


def _cells(row: dict[str, Any]) -> Sequence[str]:
    return (
        row["label"],
        *("–" if row[b] is None else f"{row[b]:.2f}" for b in ("page_bits", "layer_bits")),
        f"{row['bits_exact_bf16']:.2f}",
        interval(row["dppl_percent"], "{:+.2f}"),
        interval(row["kl"], "{:.2g}"),
        f"{100 * row['top1']['mean']:.1f}",
    )


def _title(data: dict[str, Any]) -> str:
    protocol = data["protocol"]
    return (
        f"{data['model']['name']} on {data['text']['name']}, {measured_passages(data)} passages of "
        f"{protocol['ctx']} tokens"
    )


def _protocol(data: dict[str, Any]) -> str:
    base = data["summary"][0]["base_ppl"]
    calibration = ", ".join(m["name"] for m in data.get("metrics", []))
    queries = f" Queries of a metric are from the text {calibration}." if calibration else ""
    return (
        f"{data['protocol']['description']} Uncompressed PPL {base:.2f}, weights and arithmetic "
        f"{data['model']['dtype']}, {data['protocol']['sinks']} sinks.{queries}"
    )
