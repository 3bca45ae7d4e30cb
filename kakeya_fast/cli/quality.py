"""``kakeya quality``: what codecs do to a model, by the in-forward protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kakeya_fast.cli.screen import TEXTS, bar, emit, show, to_be_written
from kakeya_fast.quality.table import HEADER, cells
from kakeya_ref.errors import UsageError

Many = list[str]


def quality(
    model: Annotated[str, typer.Option(help="smollm2-135m, gemma3-270m or a local folder.")] = (
        "smollm2-135m"
    ),
    k: Annotated[Many | None, typer.Option("--k", help="Codec of keys; repeatable.")] = None,
    v: Annotated[Many | None, typer.Option("--v", help="Codec of values, one per --k.")] = None,
    setting: Annotated[
        Many | None,
        typer.Option(
            help="key-codec/value-codec@page=512,residual=0,exact=0..1,tables=FILE,plan=FILE,"
            "sliding=pack; repeatable."
        ),
    ] = None,
    text: Annotated[str, typer.Option(help=TEXTS)] = "manual",
    ctx: Annotated[int, typer.Option(help="Tokens of a passage.")] = 1024,
    passages: Annotated[int, typer.Option(help="Disjoint passages.")] = 8,
    chunk: Annotated[int, typer.Option(help="Tokens of a forward pass.")] = 512,
    warmup: Annotated[int, typer.Option(help="First tokens not counted.")] = 64,
    sinks: Annotated[int, typer.Option(help="First tokens kept exact.")] = 4,
    page_tokens: Annotated[
        int, typer.Option(help="Tokens of a page, where a setting says none; 512 with tables.")
    ] = 32,
    residual: Annotated[
        int, typer.Option(help="Recent tokens read exactly, where a setting says none.")
    ] = 0,
    exact_layers: Annotated[
        str, typer.Option(help="Layers kept exact where a setting says none, as 0,1,-2,-1.")
    ] = "",
    metric: Annotated[
        str, typer.Option(help="Text whose queries whiten the keys of tabled codecs.")
    ] = "",
    backend: Annotated[str, typer.Option(help="auto, numba or torch.")] = "auto",
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes, of one thread and one model each.")] = 1,
    json: Annotated[
        str | None,
        typer.Option(
            callback=to_be_written, help="Write the report here after every passage; - is stdout."
        ),
    ] = None,
) -> None:
    """Measure KL, ΔPPL and top-1 agreement of packed caches at true bytes."""
    from kakeya_fast.quality.models import load_model
    from kakeya_fast.quality.protocol import Options
    from kakeya_fast.quality.run import run, steps
    from kakeya_fast.quality.texts import load_text

    usual = {"residual": residual, "exact": _layers(exact_layers), "metric": metric}
    settings = _settings(k or [], v or [], setting or [], usual)
    options = Options(chunk, warmup, sinks, page_tokens, backend)
    source = load_text(text)
    loaded = load_model(model, device=device)
    out = Path(json) if json and json != "-" else None
    with bar() as progress:
        task = progress.add_task(loaded.name, total=steps(ctx, passages, len(settings), options))
        report = run(
            loaded,
            source,
            settings,
            ctx=ctx,
            count=passages,
            options=options,
            out=out,
            workers=workers,
            step=lambda: progress.advance(task),
        )
    if json == "-":
        emit(report.as_dict())
        return
    summary = report.summary()
    title = f"{loaded.name} on {source.name}: {passages} passages of {ctx}, {_base(summary)}"
    show(title, HEADER, [cells(row) for row in summary])


def _settings(keys: Many, values: Many, pairs: Many, usual: dict[str, Any]) -> list[Any]:
    from kakeya_fast.quality.setting import Setting

    if values and len(values) != len(keys):
        raise UsageError(
            "cli.quality.pairs", f"{len(keys)} --k and {len(values)} --v do not make pairs"
        )
    texts = [f"{a}/{b}" for a, b in zip(keys, values or keys, strict=True)] + pairs
    found = [Setting.parse(t) for t in texts or ["scalar:b=4"]]
    filled = [replace(s, **{k: v for k, v in usual.items() if not getattr(s, k)}) for s in found]
    return list(dict.fromkeys(filled))


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",") if part}))
    except ValueError:
        raise UsageError("quality.setting.known", f"layers {text!r}: as 0,1,-2,-1") from None


def _base(summary: list[dict[str, Any]]) -> str:
    return f"uncompressed PPL {summary[0]['base_ppl']:.2f}"
