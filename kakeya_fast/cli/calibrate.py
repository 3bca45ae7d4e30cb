"""``kakeya calibrate``: tables for keys of ``query``, once per model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kakeya_fast.cli.screen import TEXTS, Json, bar, emit, to_be_written


def calibrate(
    model: Annotated[str, typer.Option(help="smollm2-135m, gemma3-270m or a local folder.")],
    text: Annotated[list[str], typer.Option(help=f"{TEXTS} Repeatable.")],
    out: Annotated[
        Path, typer.Option(callback=to_be_written, help="Where the tables go: a safetensors file.")
    ],
    frame: Annotated[int, typer.Option(help="Tokens of a frame: the f of the codec.")] = 32,
    tokens: Annotated[
        int, typer.Option(help="Tokens to read, in passages over all texts.")
    ] = 16384,
    ctx: Annotated[int, typer.Option(help="Tokens of a passage.")] = 2048,
    context: Annotated[int, typer.Option(help="Longest context that is to be served.")] = 32768,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda.")] = "cpu",
    json: Json = False,
) -> None:
    """Learn tables of calibrated keys from text: moments of keys and queries, layer by layer."""
    from kakeya_fast.quality.calibration import calibrated, passages_of
    from kakeya_fast.quality.models import load_model
    from kakeya_fast.quality.texts import load_text

    loaded = load_model(model, device=device)
    texts = [load_text(name) for name in text]
    with bar() as progress:
        task = progress.add_task(loaded.name, total=len(passages_of(loaded, texts, tokens, ctx)))
        tables = calibrated(
            loaded,
            texts,
            frame=frame,
            tokens=tokens,
            ctx=ctx,
            context=context,
            step=lambda: progress.advance(task),
        )
    tables.save(out)
    share = tables.nbytes / sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    if json:
        about = {"out": str(out), "model": loaded.name, "texts": [t.name for t in texts]}
        counts = {"layers": len(tables.layers), "frame": frame, "nbytes": tables.nbytes}
        emit(about | counts | {"share_of_model": share})
        return
    typer.echo(
        f"{out}: {len(tables.layers)} layers, {tables.nbytes} bytes of tables "
        f"({100 * share:.2f} % of the model)"
    )
