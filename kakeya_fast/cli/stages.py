"""``kakeya stages``: where in the codec the fidelity goes, on keys or values of a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kakeya_fast.cli.screen import TEXTS, console, emit, show, to_be_written
from kakeya_ref.errors import UsageError


def stages(
    model: Annotated[str, typer.Option(help="smollm2-135m, gemma3-270m or a local folder.")] = (
        "smollm2-135m"
    ),
    codec: Annotated[str, typer.Option(help="skeleton or turbo, with parameters.")] = "turbo:b=3",
    layer: Annotated[int, typer.Option(help="Model layer.")] = 5,
    head: Annotated[int, typer.Option(help="KV head.")] = 0,
    stream: Annotated[str, typer.Option(help="k for keys, v for values.")] = "k",
    text: Annotated[str, typer.Option(help=TEXTS)] = "manual",
    ctx: Annotated[int, typer.Option(help="Tokens of the passage.")] = 2048,
    block: Annotated[int, typer.Option(help="Tokens of a block.")] = 512,
    metric: Annotated[str, typer.Option(help="Whiten by the queries of this text.")] = "",
    inject: Annotated[
        str, typer.Option(help="Historic error to repeat: scale or norm (turbo only).")
    ] = "",
    backend: Annotated[str, typer.Option(help="Who encodes and decodes the bytes.")] = "auto",
    json: Annotated[
        str | None, typer.Option(callback=to_be_written, help="Write JSON here; - is stdout.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(callback=to_be_written, help="Write a PNG here.")
    ] = None,
) -> None:
    """SNR, correlation and bits after each stage of skeleton or turbo."""
    from kakeya_fast.quality.capture import capture
    from kakeya_fast.quality.columns import bits_rows, stage_header, stage_rows
    from kakeya_fast.quality.draw import draw_stages
    from kakeya_fast.quality.metric import query_metric
    from kakeya_fast.quality.models import load_model
    from kakeya_fast.quality.report import describe_model, describe_text, environment, write_json
    from kakeya_fast.quality.stages import check, stages_of
    from kakeya_fast.quality.table import explicit
    from kakeya_fast.quality.texts import load_text, passages

    if stream not in ("k", "v"):
        raise UsageError("cli.stages.stream", f"{stream!r}: k or v")
    check(codec, inject)
    source, calibration = load_text(text), load_text(metric) if metric else None
    if calibration and calibration.sha256 == source.sha256:
        raise UsageError("quality.metric.leak", f"{metric} cannot be its own calibration")
    loaded = load_model(model)
    (passage,) = passages(loaded.tokens(source.text), loaded.prefix, ctx, 1)
    x = capture(loaded.model, passage.ids, [layer])[layer].stream(stream)
    factors = query_metric(loaded, calibration).get(layer) if calibration else None
    if calibration and factors is None:
        raise UsageError("cli.stages.metric", f"layer {layer} is not packed and has no metric")
    found = stages_of(x, head, codec, block=block, backend=backend, inject=inject, metric=factors)
    title = f"{loaded.name}, layer {layer}, head {head}, {'keys' if stream == 'k' else 'values'}"
    data: dict[str, Any] = {
        "format": "kakeya-stages/1",
        "model": describe_model(loaded),
        "text": describe_text(source),
        "ctx": ctx,
        "layer": layer,
        "head": head,
        "stream": stream,
        "environment": environment(),
        **found.as_dict(),
    }
    if plot:
        draw_stages([data], f"{title}, {found.codec}", plot)
    if json == "-":
        emit(data)
        return
    if json:
        write_json(data, Path(json))
    what = f", with error {inject!r} beside" if inject else ""
    name = explicit({"k": found.codec, "v": found.codec, "page_tokens": block}).partition(" ")[0]
    about = f"{title}: {name}, {found.blocks} blocks of {block}, ranks {found.ranks}{what}"
    show(about, stage_header(data), stage_rows(data))
    if inject:
        header = ("bits", "SNR", "SNR with it")
        show("SNR after the quantiser, by bits of a residual number", header, bits_rows(data))
    if plot:
        console().print(f"Written: {plot}")
