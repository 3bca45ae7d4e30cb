"""``kakeya plan``: which codec each layer and stream should have, for a budget of bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kakeya_fast.cli.screen import TEXTS, Json, bar, emit, show, to_be_written

Many = list[str]


def plan(
    bits: Annotated[float, typer.Option(help="Mean bits per element of full pages, K and V.")],
    out: Annotated[Path, typer.Option(callback=to_be_written, help="The plan, a TOML file.")],
    model: Annotated[str, typer.Option(help="smollm2-135m, gemma3-270m or a local folder.")] = (
        "smollm2-135m"
    ),
    text: Annotated[str, typer.Option(help=TEXTS)] = ("workshop"),
    k: Annotated[Many | None, typer.Option("--k", help="Candidate for keys; repeatable.")] = None,
    v: Annotated[Many | None, typer.Option("--v", help="Candidate for values; repeatable.")] = None,
    k_at: Annotated[Many | None, typer.Option(help="Rate at which keys are measured.")] = None,
    v_at: Annotated[Many | None, typer.Option(help="Rate at which values are measured.")] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Calibrated tables: keys are then coded by query.")
    ] = None,
    ctx: Annotated[int, typer.Option(help="Tokens of a passage.")] = 1024,
    passages: Annotated[int, typer.Option(help="Disjoint passages.")] = 2,
    together: Annotated[
        int, typer.Option(help="Neighbouring layers measured at a time: cheaper, coarser.")
    ] = 1,
    measured: Annotated[
        Path | None,
        typer.Option(callback=to_be_written, help="Where measurements are kept, and found again."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes, of one thread and one model each.")] = 1,
    json: Json = False,
) -> None:
    """Measure every layer and stream alone, and spend a budget where it saves most KL."""
    from kakeya_fast.quality.allocate import check_budget, least_bits
    from kakeya_fast.quality.models import load_model
    from kakeya_fast.quality.planning import (
        CANDIDATES,
        RATES,
        VALUE_RATES,
        VALUES,
        describe,
        key_codecs,
        layer_shapes,
        sensitivity,
    )
    from kakeya_fast.quality.protocol import Options
    from kakeya_fast.quality.run import steps
    from kakeya_fast.quality.texts import load_text

    loaded, source, options = load_model(model, device=device), load_text(text), Options()
    keys, keys_at = key_codecs(str(tables)) if tables else (CANDIDATES, RATES)
    rates = {"k": k_at or keys_at, "v": v_at or VALUE_RATES}
    candidates, shapes = {"k": k or keys, "v": v or VALUES}, layer_shapes(loaded)
    check_budget(bits, least_bits(shapes, candidates))  # measuring may take hours
    number = -(-len(shapes) // together) * sum(map(len, rates.values()))
    with bar() as progress:
        task = progress.add_task(loaded.name, total=steps(ctx, passages, number, options))
        found = sensitivity(
            loaded,
            source,
            rates,
            ctx=ctx,
            count=passages,
            together=together,
            tables=str(tables or ""),
            options=options,
            out=measured,
            workers=workers,
            step=lambda: progress.advance(task),
        )
    made, chosen = found.plan(bits, candidates)
    about = describe(chosen, found.shapes)
    out.write_text(made.text({"model": loaded.name, "text": source.name} | about), "utf-8")
    if json:
        emit(about | {"layers": {str(i): pair for i, pair in made.codecs.items()}})
        return
    rows = [(str(i), *pair) for i, pair in made.codecs.items()]
    show(f"{loaded.name}: {about['bits']} bits, expected KL {about['expected_kl']}", HEADER, rows)
    show("", ("", ""), [(name, str(value)) for name, value in about.items()])


HEADER = ("layer", "keys", "values")
