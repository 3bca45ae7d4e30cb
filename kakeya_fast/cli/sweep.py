"""``kakeya depth`` and ``kakeya layers``: damage by layers, under both protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kakeya_fast.cli.screen import TEXTS, bar, console, emit, show, to_be_written
from kakeya_ref.errors import UsageError

Many = list[str]
Model = Annotated[str, typer.Option(help="smollm2-135m, gemma3-270m or a local folder.")]
Codecs = Annotated[Many | None, typer.Option(help="Codec of both streams; repeatable.")]
Settings = Annotated[
    Many | None,
    typer.Option(help="key-codec/value-codec@page=512,residual=0,metric=TEXT; repeatable."),
]
How = Annotated[str, typer.Option(help="inforward, snapshot or both.")]
TextOption = Annotated[str, typer.Option(help=TEXTS)]
Ctx = Annotated[int, typer.Option(help="Tokens of a passage.")]
Passages = Annotated[int, typer.Option(help="Disjoint passages.")]
Backend = Annotated[str, typer.Option(help="auto, or a backend's name.")]
JsonOption = Annotated[
    str | None,
    typer.Option(
        callback=to_be_written, help="Write here after every unit of work, and go on; - is stdout."
    ),
]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda.")]
Workers = Annotated[int, typer.Option(help="Processes, of one thread and one model each.")]
Plot = Annotated[Path | None, typer.Option(callback=to_be_written, help="Write a PNG here.")]
KEPT = ("exact", "protocol")


def depth(
    model: Model = "smollm2-135m",
    codec: Codecs = None,
    setting: Settings = None,
    layers_list: Annotated[
        str, typer.Option(help="Numbers of coded layers, such as 1,4,8; default 1, 2, 4, … all.")
    ] = "",
    protocol: How = "both",
    text: TextOption = "manual",
    ctx: Ctx = 2048,
    passages: Passages = 4,
    backend: Backend = "auto",
    device: Device = "cpu",
    workers: Workers = 1,
    json: JsonOption = None,
    plot: Plot = None,
) -> None:
    """KL and ΔPPL when the first 1, 2, 4, … layers are coded and the rest is exact."""
    from kakeya_fast.quality.capture import full_layers
    from kakeya_fast.quality.columns import SWEEP, sweep_rows
    from kakeya_fast.quality.depth import depth as measure
    from kakeya_fast.quality.depth import depth_arms, doubling
    from kakeya_fast.quality.draw import draw_depth
    from kakeya_fast.quality.models import load_model
    from kakeya_fast.quality.protocol import Options
    from kakeya_fast.quality.run import steps
    from kakeya_fast.quality.texts import load_text

    settings, counts = _settings(codec or [], setting or []), _counts(layers_list)
    options, source = Options(backend=backend), load_text(text)
    loaded = load_model(model, device=device)
    counts = counts or doubling(len(full_layers(loaded.model)))
    arms = depth_arms(settings, full_layers(loaded.model), counts, protocol)
    with bar() as progress:
        count = len({arm.setting for arm in arms})
        task = progress.add_task(loaded.name, total=steps(ctx, passages, count, options))
        data = measure(
            loaded,
            source,
            settings,
            counts=counts,
            protocol=protocol,
            ctx=ctx,
            passages=passages,
            options=options,
            out=_path(json),
            workers=workers,
            step=lambda: progress.advance(task),
        )
    title = f"{loaded.name} on {source.name}: {passages} passages of {ctx}"
    if plot:
        draw_depth(data, title, plot)
    if json == "-":
        emit(data)
        return
    show(title, SWEEP, sweep_rows(data["summary"]))
    _tell(data, plot)


def layers(
    model: Model = "smollm2-135m",
    codec: Codecs = None,
    setting: Settings = None,
    exact: Annotated[int, typer.Option(help="Exact layers to advise; 0 for no advice.")] = 1,
    protocol: How = "inforward",
    text: TextOption = "manual",
    ctx: Ctx = 2048,
    passages: Passages = 4,
    backend: Backend = "auto",
    device: Device = "cpu",
    workers: Workers = 1,
    json: JsonOption = None,
    plot: Plot = None,
) -> None:
    """KL of every layer coded alone, their sum against all together, which to keep exact."""
    from kakeya_fast.quality.capture import full_layers
    from kakeya_fast.quality.columns import SUMS, SWEEP, sum_rows, sweep_rows
    from kakeya_fast.quality.draw import draw_layers
    from kakeya_fast.quality.layers import layers as measure
    from kakeya_fast.quality.layers import most_steps
    from kakeya_fast.quality.models import load_model
    from kakeya_fast.quality.protocol import Options
    from kakeya_fast.quality.texts import load_text

    settings = _settings(codec or [], setting or [])
    options, source = Options(backend=backend), load_text(text)
    loaded = load_model(model, device=device)
    full = len(full_layers(loaded.model))
    total = most_steps(len(settings), full, protocol, exact, ctx, passages, options)
    with bar() as progress:
        task = progress.add_task(loaded.name, total=total)
        data = measure(
            loaded,
            source,
            settings,
            exact=exact,
            protocol=protocol,
            ctx=ctx,
            passages=passages,
            options=options,
            out=_path(json),
            workers=workers,
            step=lambda: progress.advance(task),
        )
    title = f"{loaded.name} on {source.name}: {passages} passages of {ctx}"
    if plot:
        draw_layers(data, title, plot)
    if json == "-":
        emit(data)
        return
    show(title, SWEEP, sweep_rows(data["summary"]))
    show("Sum of the single layers against all together", SUMS, sum_rows(data["sums"]))
    _tell(data, plot)


def _settings(codecs: Many, settings: Many) -> list[Any]:
    from kakeya_fast.quality.setting import Setting

    found = [Setting.parse(t) for t in [*codecs, *settings] or ["turbo:b=3"]]
    for each in found:
        if each.exact or each.protocol != "inforward":
            raise UsageError("cli.sweep.setting", f"{each}: {KEPT} are what is swept here")
    return list(dict.fromkeys(found))


def _counts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError:
        raise UsageError("depth.count.range", f"{text!r}: numbers such as 1,4,8") from None


def _path(json: str | None) -> Path | None:
    return Path(json) if json and json != "-" else None


def _tell(data: dict[str, Any], plot: Path | None) -> None:
    from kakeya_fast.quality.columns import DAGGER

    lines = [DAGGER, data["protocol"]["description"], *([f"Written: {plot}"] if plot else [])]
    for line in lines:
        console().print(line, style="dim", highlight=False)
