"""``kakeya demo``: a real model generating from packed caches, next to the uncompressed one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.panel import Panel

from kakeya_fast.cli.screen import TEXTS, Json, bar, console, emit, show
from kakeya_fast.quality.table import cells, explicit

SETTINGS = (
    "raw:dtype=bf16",
    "fp8",
    "e8:q=10",
    "int:b=4",
    "scalar:b=4",
    "scalar:b=3",
)
# Keys of these need tables, which the demo makes first.
CALIBRATED = ("query:b=3/trellis:b=3,gain=unbiased", "query:b=2/trellis:b=2,gain=unbiased")
SHOWN = "scalar:b=3", CALIBRATED[0]
CHUNK = 512
# Tokens of a passage that tables are made from.
CALIBRATION = 2048
HEADER = (
    "cache",
    "true\nMB",
    "vs\nbf16",
    "bits per\nelement",
    "ΔPPL %\n[95 %]",
    "KL\nnats",
    "top-1\n%",
    "prefill\ntok/s",
    "decode\ntok/s",
    "same\ntokens",
)


def demo(
    model: Annotated[str, typer.Option(help="smollm2-135m, gemma3-270m or a local folder.")] = (
        "smollm2-135m"
    ),
    out: Annotated[Path, typer.Option(help="Folder for demo.json and demo.png.")] = Path(
        "demo-out"
    ),
    ctx: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 2048,
    tokens: Annotated[int, typer.Option(help="Tokens to generate.")] = 32,
    passages: Annotated[int, typer.Option(help="Passages for the quality columns.")] = 3,
    passage_tokens: Annotated[int, typer.Option(help="Tokens of a passage.")] = 1024,
    text: Annotated[str, typer.Option(help=TEXTS)] = "manual",
    calibrate_on: Annotated[
        str, typer.Option(help="Another text, for the tables of calibrated keys.")
    ] = "code",
    calibration: Annotated[int, typer.Option(help="Tokens of it.")] = 8192,
    as_json: Json = False,
) -> None:
    """Generate from packed caches; true bytes, damage and speed on one screen."""
    from kakeya_fast.quality.calibration import calibrated
    from kakeya_fast.quality.models import load_model
    from kakeya_fast.quality.plot import plot
    from kakeya_fast.quality.protocol import DEFAULTS, Setting
    from kakeya_fast.quality.report import write_json
    from kakeya_fast.quality.run import run, steps
    from kakeya_fast.quality.texts import load_text

    source, other = load_text(text), load_text(calibrate_on)
    loaded = load_model(model)
    out.mkdir(parents=True, exist_ok=True)
    tables = out / "tables.safetensors"
    names = [*SETTINGS, *(f"{name}@tables={tables}" for name in CALIBRATED)]
    settings = [Setting.parse(name) for name in names]
    with bar() as progress:
        window = min(CALIBRATION, calibration)
        task = progress.add_task("calibrating", total=calibration // window)
        calibrated(
            loaded, [other], frame=32, tokens=calibration, ctx=window, context=4 * ctx,
            step=lambda: progress.advance(task),
        ).save(tables)  # fmt: skip
        total = (1 + len(settings)) * (-(-ctx // CHUNK) + tokens - 1)
        task = progress.add_task("generating", total=total)
        result = _generate(loaded, source, settings, ctx, tokens, lambda: progress.advance(task))
        total = steps(passage_tokens, passages, len(settings), DEFAULTS)
        measuring = progress.add_task("measuring", total=total)
        report = run(
            loaded,
            source,
            settings,
            ctx=passage_tokens,
            count=passages,
            step=lambda: progress.advance(measuring),
        )
    result["quality"] = report.as_dict()
    title = f"{loaded.name}, {source.name}, {passages} passages of {passage_tokens} tokens"
    plot(report.summary(), title, out / "demo.png")
    write_json(result, out / "demo.json")
    if as_json:
        emit(result)
    else:
        _show(result, report.summary(), out)


def _generate(
    loaded: Any, source: Any, settings: list[Any], ctx: int, tokens: int, step: Any
) -> dict[str, Any]:
    from transformers import DynamicCache

    from kakeya_fast.hf import build_kakeya_cache
    from kakeya_fast.quality.generate import generate
    from kakeya_fast.quality.protocol import sizes
    from kakeya_fast.quality.texts import passages

    (passage,) = passages(loaded.tokens(source.text), loaded.prefix, ctx, 1)
    rows = []
    for setting in [None, *settings]:
        if setting is None:
            cache = DynamicCache(config=loaded.model.config)
        else:
            tables = setting.tables or None
            cache = build_kakeya_cache(loaded.model, k=setting.k, v=setting.v, tables=tables)
        made = generate(loaded.model, passage.ids, cache, tokens, chunk=CHUNK, step=step)
        rows.append(
            {
                "setting": "uncompressed" if setting is None else setting.codecs,
                "text": loaded.tokenizer.decode(made.tokens),
                "tokens": list(made.tokens),
                "same_tokens": _same(made.tokens, rows[0]["tokens"] if rows else made.tokens),
                "prefill_tokens_per_s": made.prefill_rate,
                "decode_tokens_per_s": made.decode_rate,
                "sizes": _dense_sizes(cache) if setting is None else sizes(cache),
            }
        )
    return {
        "model": loaded.name,
        "text": source.name,
        "prompt_tokens": ctx,
        "prompt_end": loaded.tokenizer.decode(passage.ids[-40:]),
        "runs": rows,
    }


def _dense_sizes(cache: Any) -> dict[str, float]:
    """Bytes of the layers that would be packed, as the uncompressed cache holds them."""
    held = [x for la in cache.layers if not la.is_sliding for x in (la.keys, la.values)]
    true, bf16 = sum(x.nbytes for x in held), sum(2 * x.numel() for x in held)
    return {
        "true_bytes": true,
        "bf16_bytes": bf16,
        "ratio_vs_bf16": bf16 / true,
        "bits_per_element": 16 * true / bf16,
    }


def _same(a: tuple[int, ...], b: Any) -> int:
    """Tokens before the first difference."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def _show(result: dict[str, Any], summary: list[dict[str, Any]], out: Path) -> None:
    from kakeya_fast.quality.protocol import Setting

    base, *packed = result["runs"]
    rows = [_row("uncompressed", base, ("", "", ""))]
    for run, row in zip(packed, summary, strict=True):
        dppl, kl, top1 = cells(row)[-3:]
        name = explicit(row | {"setting": ""})
        rows.append(_row(name, run, (dppl, kl.partition(" ")[0], top1)))
    screen = console()
    shown = {
        name: next(r for r in packed if r["setting"] == Setting.parse(name).codecs)
        for name in SHOWN
    }
    screen.print(Panel("…" + result["prompt_end"], title="end of the prompt", title_align="left"))
    for name, run in {"uncompressed": base, **shown}.items():
        screen.print(Panel(run["text"], title=f"{name} goes on", title_align="left"))
    show(f"{result['model']}: {result['prompt_tokens']} tokens of real text", HEADER, rows)
    screen.print(f"Written: {out / 'demo.json'}, {out / 'demo.png'}")


def _row(name: str, run: dict[str, Any], damage: tuple[str, str, str]) -> tuple[str, ...]:
    size = run["sizes"]
    return (
        name,
        f"{size['true_bytes'] / 1e6:.2f}",
        f"{size['ratio_vs_bf16']:.2f}x",
        f"{size['bits_per_element']:.2f}",
        *damage,
        f"{run['prefill_tokens_per_s']:.0f}",
        f"{run['decode_tokens_per_s']:.1f}",
        f"{run['same_tokens']}/{len(run['tokens'])}",
    )
