"""Markdown of stored results: a page per model, one across models, one of shapes alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.standard.accounting import PRESET
from benchmarks.standard.bytes import (
    baseline,
    contexts_of,
    full_layers,
    historic,
    mean_rank,
    measured,
    setting_of,
    shape_of,
    sizes,
    storage,
)
from benchmarks.standard.cross import cross_page, shapes_page
from benchmarks.standard.extrapolate import TARGETS, bounds, project
from benchmarks.standard.markdown import MIB, k, size, table, wrapped
from benchmarks.standard.plot import plot


def write_reports(folder: Path) -> None:
    """All pages and plots from the JSON files of a folder."""
    results = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    models: dict[str, dict[bool, dict[str, Any]]] = {}
    for data in results:
        models.setdefault(data["model"]["name"], {})[bool(data["text"]["period"])] = data
    whole = {name: pair for name, pair in models.items() if False in pair}
    for name, pair in whole.items():
        lines = model_page(pair[False], pair.get(True))
        (folder / f"{name}.md").write_text(wrapped(lines), "utf-8")
        plot(pair[False], pair.get(True), folder / f"{name}.png")
    prose = {name: pair[False] for name, pair in whole.items()}
    (folder / "cross-model.md").write_text(wrapped(cross_page(prose)), "utf-8")
    (folder / "shapes.md").write_text(wrapped(shapes_page()), "utf-8")


def model_page(prose: dict[str, Any], again: dict[str, Any] | None) -> list[str]:
    """The page of one model: measured, projected, and what repetition does."""
    shape, last = shape_of(prose), _contexts(prose)[-1]
    windows = {x.window for x in shape.layers if x.window}
    env = prose["baseline"]["environment"]
    lines = [
        f"# {shape.name}",
        "",
        f"{shape.count('full')} full-attention layers"
        + (f" and {shape.count('sliding')} of window {windows.pop()}" if windows else "")
        + f"; weights and exact tokens of the run in {prose['model']['dtype']} "
        f"(SHA-256 {prose['model']['sha256'][:16]}…). Prose: *{prose['text']['description']}*, "
        f"from token {prose['text']['start']}; {prose['text']['seen_before']} windows of 64 tokens "
        f"occur twice. Chunks of {prose['protocol']['chunk']} tokens. Commit {env['commit']}, "
        f"torch {env['versions']['torch']}, {env['machine']['cpu']}. Method and definitions: "
        "[STANDARD.md](../../STANDARD.md).",
        "",
        "Settings: "
        + "; ".join(_describe(setting_of(prose, name)) for name in prose["runs"])
        + ".",
        "",
        "## Bytes of the whole cache",
        "",
        "Ratio to the uncompressed cache in bf16, exact tokens in bf16 as well. Contexts marked *",
        "are projected: exactly where the codec has a fixed rate, by the mean page where a fit",
        "chooses the rank.",
        "",
        *_ratios(prose, full=False),
    ]
    if shape.count("sliding"):
        lines += ["", "Full-attention layers alone, measured contexts:", ""]
        lines += _ratios(prose, full=True)
    lines += ["", "## How sure the projections are", "", *_bands(prose, last)]
    lines += ["", "## Prose against one paragraph repeated", "", *_repetition(prose, again)]
    lines += ["", "## Two ways to count `skeleton`", "", *_accountings(prose, again)]
    lines += ["", "## Filled and in use", "", *_live(prose)]
    lines += ["", "## Held in memory", "", *_held(prose)]
    return [*lines, "", f"![ratio against context]({shape.name}.png)"]


def _ratios(data: dict[str, Any], *, full: bool) -> list[str]:
    known = _contexts(data)
    targets = known if full else [*known, *(t for t in TARGETS if t > known[-1])]
    rows = []
    for name in data["runs"]:
        cells = []
        for tokens in targets:
            base = baseline(data, tokens)
            if full:
                if tokens in contexts_of(data, name):
                    cells.append(f"{base.full / measured(data, name, tokens).full:.2f}")
                else:
                    cells.append("")
            else:
                cells.append(f"{base.total / project(data, name, tokens).mean:.2f}")
        rows.append([name, *cells])
    base = ["bf16", *(size(baseline(data, t).full if full else baseline(data, t).total)
                      for t in targets)]  # fmt: skip
    head = [k(t) + ("" if t in known else "*") for t in targets]
    return table(["", *head], [base, *rows])


def _bands(data: dict[str, Any], last: int) -> list[str]:
    fitted = [name for name in data["runs"] if not setting_of(data, name).fixed_rate]
    rows = []
    for tokens in (t for t in TARGETS if t > last):
        base = baseline(data, tokens).total
        rows.append([k(tokens), *(bounds(project(data, n, tokens), base) for n in fitted)])
    lines = [
        "Ratio of the whole cache: band of the pages seen, then walls of the format. Settings that",
        "do not stand here are exact.",
        "",
        *table(["context", *fitted], rows),
    ]
    checks = [line for name in data["runs"] for line in _checked(data, name)]
    return [*lines, "", "Against what was measured:", "", *table(
        ["setting", "from", "to", "measured", "projected", "error", "band"], checks)]  # fmt: skip


def _checked(data: dict[str, Any], name: str) -> Iterator[list[str]]:
    """Longer measured contexts as if only the half of them had been measured."""
    known = contexts_of(data, name)
    for short, long in pairwise(known):
        found = measured(data, name, long).total
        p = project(data, name, long, upto=short)
        inside = "exact" if p.exact else ("inside" if p.low <= found <= p.high else "OUTSIDE")
        error = f"{p.mean - found} ({(p.mean - found) / found:+.2%})" if p.mean != found else "0"
        yield [name, k(short), k(long), str(found), str(p.mean), error, inside]


def _repetition(prose: dict[str, Any], again: dict[str, Any] | None) -> list[str]:
    if again is None:
        return ["Not measured."]
    fitted = [n for n in prose["runs"] if n in again["runs"] and _fitted(prose, n)]
    dims = [layer.k_dim for _, layer in full_layers(prose)]
    rows = []
    for name in fitted:
        setting = setting_of(prose, name)
        for tokens in (t for t in contexts_of(prose, name) if t in contexts_of(again, name)):
            cells = []
            for data in (prose, again):
                base = baseline(data, tokens).full
                cells.append(f"{base / measured(data, name, tokens).full:.2f}")
            for stream in "kv":
                for data in (prose, again):
                    ranks = data["runs"][name]["ranks"]
                    cells.append(f"{mean_rank(ranks, stream, setting.pages(tokens)):.1f}")
            rows.append([name, k(tokens), *cells])
    period = again["text"]["period"]
    head = ["setting", "context", "ratio, prose", "ratio, repeated", "K rank, prose",
            "K rank, repeated", "V rank, prose", "V rank, repeated"]  # fmt: skip
    return [
        f"The same run over one paragraph of {period} tokens, over and over. Ratios of the",
        f"full-attention layers; mean ranks over layers, KV heads and pages, of {dims[0]} numbers",
        "a vector. Fixed-rate settings keep the same bytes whatever they read.",
        "",
        *table(head, rows),
    ]


def _accountings(prose: dict[str, Any], again: dict[str, Any] | None) -> list[str]:
    rows = []
    for label, data in (("prose", prose), ("repeated", again)):
        if data is None or "skeleton" not in data["runs"]:
            continue
        for tokens in contexts_of(data, "skeleton"):
            base, said = baseline(data, tokens), historic(data, tokens)
            pages = PRESET.blocks(tokens)
            found = (data["clean_ranks"], data["runs"]["skeleton"]["ranks"])
            ranks = [f"{mean_rank(r, s, pages):.1f}" for s in "kv" for r in found]
            counts = (measured(data, "skeleton", tokens).total, said.exact, said.projected)
            rows.append([label, k(tokens), *(f"{base.total / x:.2f}" for x in counts), *ranks])
    head = ["text", "context", "true bytes", "predecessor, exact", "predecessor, projected",
            "K rank pooled", "K rank by head", "V rank pooled", "V rank by head"]  # fmt: skip
    return [
        "Ratios of the whole cache. *True*: bytes kept. *Exact*: float32 and int64 fields, one",
        "basis for all KV heads of a layer. *Projected*: half of that coded part, the figure of",
        "its headlines. Ranks are those of the uncompressed keys and values at 95 % of the",
        "variance, heads pooled as it did, and head by head as `skeleton` fits them.",
        "",
        *table(head, rows),
    ]


def _live(data: dict[str, Any]) -> list[str]:
    rows = []
    for name, run in data["runs"].items():
        if "live" in run:
            tokens = run["live"]["tokens"]
            used = sizes(data, run["live"]["layers"]).total
            found = measured(data, name, tokens).total
            rows.append([name, k(tokens), str(found), str(used), f"{(used - found) / found:+.2%}"])
    return [
        "All caches of a run are filled from one uncompressed prefill. In a cache that the model",
        "reads, fits see keys and values that earlier layers' damage went into; fixed rates cannot",
        "differ, fitted ones were measured once more in use:",
        "",
        *table(["setting", "context", "filled", "in use", "difference"], rows),
    ]


def _held(data: dict[str, Any]) -> list[str]:
    itemsize = data["model"]["itemsize"]
    rows = []
    for tokens in _contexts(data):
        base = baseline(data, tokens, itemsize).total / MIB
        more = storage(data, tokens) / MIB
        held = [
            f"{measured(data, name, tokens, held=True).total / MIB:.2f}"
            if tokens in contexts_of(data, name)
            else ""
            for name in data["runs"]
        ]
        rows.append([k(tokens), f"{base:.2f}", f"{more:.2f}", *held])
    return [
        f"MiB as held, exact tokens in {data['model']['dtype']}; *storage* counts the views of",
        "larger tensors that the library's sliding layers keep.",
        "",
        *table(["context", "uncompressed", "storage", *data["runs"]], rows),
    ]


def _describe(s: Any) -> str:
    codecs = s.k if s.k == s.v else f"{s.k} / {s.v}"
    return (
        f"**{s.name}** `{codecs}`, pages of {s.page_tokens}, residual {s.residual}, sinks {s.sinks}"
    )


def _fitted(data: dict[str, Any], name: str) -> bool:
    return not setting_of(data, name).fixed_rate


def _contexts(data: dict[str, Any]) -> list[int]:
    return sorted(map(int, data["baseline"]["contexts"]))
