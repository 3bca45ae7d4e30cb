"""Markdown across models: measured ones, public shapes, and what published ratios imply."""

from __future__ import annotations

from typing import Any

from benchmarks.standard.accounting import PRESET, implied_rank, stored_ratio
from benchmarks.standard.bytes import baseline
from benchmarks.standard.extrapolate import TARGETS, project
from benchmarks.standard.markdown import k, size, table
from benchmarks.standard.settings import SETTINGS
from benchmarks.standard.shapes import (
    as_printed,
    printed_ratios,
    printed_stored,
    published,
    shapes,
)


def cross_page(results: dict[str, dict[str, Any]]) -> list[str]:
    """Measured models, and public shapes beside them, at 8k and at 128k."""
    names = [s.name for s in SETTINGS]
    row = PRESET.row_nbytes(PRESET.res)
    rows = []
    for model, data in results.items():
        for tokens in (8192, 131072):
            base = baseline(data, tokens).total
            cells = []
            for name in names:
                found = project(data, name, tokens) if name in data["runs"] else None
                tilde = "" if found is None or found.exact else "≈ "
                cells.append("" if found is None else f"{tilde}{base / found.mean:.2f}")
            rows.append([model, k(tokens), size(base), *cells])
    fixed = [s for s in SETTINGS if s.fixed_rate]
    for model, shape in shapes().items():
        for tokens in (8192, 131072):
            base = shape.exact_nbytes(tokens)
            cells = [""] * len(names)
            for s in fixed:
                total = sum(s.layer_nbytes(layer, tokens) for layer in shape.layers)
                cells[names.index(s.name)] = f"{base / total:.2f}"
            rows.append([f"{model} (shape only)", k(tokens), size(base), *cells])
    return [
        "# Across models",
        "",
        "Ratio of the uncompressed bf16 cache to all bytes kept, sliding layers included on both",
        "sides. Measured models read prose; ≈ marks a mean page carried on, see the page of the",
        "model for band and walls. Shapes alone have fixed rates only: a fitted rank cannot be had",
        "without running the model.",
        "",
        *table(["model", "context", "bf16", *names], rows),
        "",
        "## What the predecessor's ratios speak of",
        "",
        "Its projected ratios of full-attention layers came from one repeated paragraph. The rank",
        "that a printed ratio implies, were it the same in every block, follows from its own",
        f"formula: with {PRESET.res} kept residuals a coded row costs {row // 2} bytes after the",
        "halving, whatever the rank, and all heads share one basis. *Row bound* is the ratio with",
        f"rows alone; a rank below {PRESET.res} keeps fewer residuals and may pass it. *Stored* is",
        "the ratio at 8k of the float32 and int64 fields, by the formula and as printed.",
        "",
        *_implied(),
    ]


def shapes_page() -> list[str]:
    """Exact bytes of fixed-rate settings for public shapes, no weights needed."""
    lines = [
        "# Shapes alone",
        "",
        "Bytes of one sequence from the published configs in `benchmarks/standard/shapes.toml`:",
        "no weights, no run, nothing estimated. Uncompressed in bf16; exact tokens of packed",
        "caches in bf16.",
    ]
    for name, shape in shapes().items():
        known = ", ".join(
            f"{size} at {k(tokens)} (here {as_printed(shape.exact_nbytes(tokens), size)})"
            for tokens, size in published(name)
        )
        kinds = f"{shape.count('full')} full layers"
        if shape.count("sliding"):
            kinds += f", {shape.count('sliding')} sliding"
        lines += ["", f"## {name}", ""]
        lines += [f"`{shape.source}`: {kinds}. Predecessor's baseline: {known or 'none'}.", ""]
        rows = []
        for tokens in TARGETS:
            base = shape.exact_nbytes(tokens)
            cells = []
            for s in SETTINGS:
                if s.fixed_rate:
                    total = sum(s.layer_nbytes(layer, tokens) for layer in shape.layers)
                    cells.append(f"{total} ({base / total:.3f})")
            rows.append([k(tokens), str(base), *cells])
        lines += table(["context", "bf16", *(s.name for s in SETTINGS if s.fixed_rate)], rows)
    return lines


def _implied() -> list[str]:
    rows = []
    for name, shape in shapes().items():
        [layer] = {x for x in shape.layers if x.kind == "full"}
        cells = []
        for tokens, ratio in printed_ratios(name)[:7]:
            rank = implied_rank(ratio, tokens, layer.heads, layer.k_dim)
            cells.append(f"{ratio:.2f}: {rank:.1f}")
        if cells:
            bound = 2 * layer.k_dim / (PRESET.row_nbytes(PRESET.res) / 2)
            cells += [""] * (7 - len(cells))
            said = stored_ratio(dict(printed_ratios(name))[8192], 8192)
            told = printed_stored(name)
            stored = f"{said:.2f}" + ("" if told is None else f", printed {told:.2f}")
            rows.append([name, f"{layer.heads} × {layer.k_dim}", f"{bound:.2f}", *cells, stored])
    head = ["model", "heads × dim", "row bound", *map(k, TARGETS[:7]), "stored"]
    return table(head, rows)
