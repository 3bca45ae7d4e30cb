"""The lineage measured again: ``python -m benchmarks.lineage stages|depth|layers|codecs``.

Each part writes ``results/lineage/<part>-<model>.json`` after every unit of work (a second call
goes on where the first stopped), then a Markdown table and plots beside it. ``--render`` makes
these anew from the files and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import lineage_render
from kakeya_fast.quality.capture import capture, full_layers
from kakeya_fast.quality.depth import depth, depth_arms
from kakeya_fast.quality.layers import layers, most_steps
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.protocol import Options
from kakeya_fast.quality.report import describe_model, describe_text, environment, write_json
from kakeya_fast.quality.run import run, steps
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.stages import stages_of
from kakeya_fast.quality.texts import load_text, passages

MODELS = ("smollm2-135m", "gemma3-270m")
TEXT, CALIBRATION = "manual", "workshop"

# One page size for all, so that all keep the same recent tokens exact and only codecs differ.
PAGE = 512
PLAIN = ("scalar:b=2", "scalar:b=3", "scalar:b=4", "e8:q=2", "e8:q=4", "e8:q=8")
# The first codec's preset keeps 256 recent tokens exact; what that alone is worth stands beside.
RESIDUAL = ("skeleton@residual=256", f"scalar:b=4@page={PAGE},residual=256")
TABLED = (
    "turbo:b=2",
    "turbo:b=3",
    "turbo:b=4",
    "turbo:b=3,cut=20",
    "turbo:b=3,levels=own",
    f"turbo:b=3@metric={CALIBRATION}",
    "turbo:b=3/turbo:b=2,share=1",
    "skeleton",
    "skeleton:time=none",
)
# Where only a CPU was at hand.
FEW = ("scalar:b=2", "scalar:b=3", "scalar:b=4", "e8:q=4")
# Codecs that are also measured with their boundary layers exact.
BOUNDED = (f"scalar:b=3@page={PAGE}", "turbo:b=3")


@dataclass(frozen=True)
class Scale:
    """How much is measured on a model."""

    codecs_ctx: int
    codecs_passages: int
    few: bool
    boundary: int
    depth_passages: int
    counts: tuple[int, ...]
    layers_passages: int
    exact: int
    stage_layers: tuple[int, ...]


SCALES = {
    "smollm2-135m": Scale(1024, 3, True, 2, 4, (1, 4, 8, 16, 30), 3, 4, (0, 5, 15, 29)),
    "gemma3-270m": Scale(2048, 4, False, 1, 4, (1, 2, 3), 4, 1, (5, 11, 17)),
}
CTX, STAGES_CTX = 2048, 2048
# Counted from the first query that reads a page: before it, all settings are the same.
OPTIONS = Options(warmup=Options().sinks + PAGE)
DEPTH = ("turbo:b=2", f"scalar:b=2@page={PAGE}")
LAYERS = ("turbo:b=2",)
STAGED = (("turbo:b=3", "scale"), ("turbo:b=3", "norm"), ("skeleton", ""))


def codecs(loaded: Loaded, args: Any) -> dict[str, Any]:
    """Quality of all codecs of the lineage, at one page size."""
    scale = SCALES[loaded.name]
    plain, more = (FEW, ()) if scale.few else (PLAIN, RESIDUAL)
    settings = [Setting.parse(f"{codec}@page={PAGE}") for codec in plain]
    settings += [Setting.parse(text) for text in (*TABLED, *more)]
    full = full_layers(loaded.model)
    ends = (*full[: scale.boundary], *full[len(full) - scale.boundary :])
    settings += [replace(Setting.parse(text), exact=ends) for text in BOUNDED]
    settings = list(dict.fromkeys(settings))
    count, out = args.passages or scale.codecs_passages, path("codecs", loaded.name)
    total = steps(scale.codecs_ctx, count, len(settings), OPTIONS)
    report = run(
        loaded,
        load_text(TEXT),
        settings,
        ctx=scale.codecs_ctx,
        count=count,
        options=OPTIONS,
        out=out,
        any_commit=args.any_commit,
        workers=args.workers,
        step=counter(out.stem, total),
    )
    data = report.as_dict()
    data["full_layers"] = full
    return data


def depths(loaded: Loaded, args: Any) -> dict[str, Any]:
    """Damage against the number of coded layers, both protocols."""
    scale, settings = SCALES[loaded.name], [Setting.parse(t) for t in DEPTH]
    count, out = args.passages or scale.depth_passages, path("depth", loaded.name)
    arms = depth_arms(settings, full_layers(loaded.model), scale.counts, "both")
    total = steps(CTX, count, len({arm.setting for arm in arms}), OPTIONS)
    return depth(
        loaded,
        load_text(TEXT),
        settings,
        counts=scale.counts,
        protocol="both",
        ctx=CTX,
        passages=count,
        options=OPTIONS,
        out=out,
        any_commit=args.any_commit,
        workers=args.workers,
        step=counter(out.stem, total),
    )


def sensitivity(loaded: Loaded, args: Any) -> dict[str, Any]:
    """Every layer alone, all together, and choices of exact layers."""
    scale, settings = SCALES[loaded.name], [Setting.parse(t) for t in LAYERS]
    count, out = args.passages or scale.layers_passages, path("layers", loaded.name)
    full = len(full_layers(loaded.model))
    total = most_steps(len(settings), full, "both", scale.exact, CTX, count, OPTIONS)
    return layers(
        loaded,
        load_text(TEXT),
        settings,
        exact=scale.exact,
        protocol="both",
        ctx=CTX,
        passages=count,
        options=OPTIONS,
        out=out,
        any_commit=args.any_commit,
        workers=args.workers,
        step=counter(out.stem, total),
    )


def staged(loaded: Loaded, args: Any) -> dict[str, Any]:
    """Stages of both codecs and both injected errors, keys and values of several layers."""
    text, chosen = load_text(TEXT), SCALES[loaded.name].stage_layers
    (passage,) = passages(loaded.tokens(text.text), loaded.prefix, STAGES_CTX, 1)
    found = capture(loaded.model, passage.ids, chosen)
    rows = []
    for layer in chosen:
        for stream in ("k", "v"):
            for codec, inject in STAGED:
                x = found[layer].stream(stream)
                item = stages_of(x, 0, codec, block=PAGE, inject=inject)
                rows.append({"layer": layer, "stream": stream, **item.as_dict()})
    return {
        "format": "kakeya-lineage-stages/1",
        "model": describe_model(loaded),
        "text": describe_text(text),
        "ctx": STAGES_CTX,
        "block": PAGE,
        "head": 0,
        "environment": environment(),
        "rows": rows,
    }


PARTS: dict[str, Callable[[Loaded, Any], dict[str, Any]]] = {
    "stages": staged,
    "depth": depths,
    "layers": sensitivity,
    "codecs": codecs,
}


def path(part: str, model: str) -> Path:
    """Result file of a part."""
    return lineage_render.RESULTS / f"{part}-{model}.json"


def counter(name: str, total: int) -> Callable[[], None]:
    """A step function that says on stderr how far a part is."""
    began, done = time.monotonic(), 0

    def step() -> None:
        nonlocal done
        done += 1
        if done % 32 == 0 or done == total:
            spent = time.monotonic() - began
            print(f"{name}: {done}/{total} after {spent:.0f} s", file=sys.stderr, flush=True)

    return step


def main() -> None:
    """Measure the parts asked for, resuming what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--model", choices=MODELS, help="only this model")
    parser.add_argument("--passages", type=int, help="instead of the number of this file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where the model runs")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument(
        "--any-commit", action="store_true", help="go on with a part measured at another commit"
    )
    parser.add_argument("--render", action="store_true", help="tables and plots only")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for model in MODELS:
        if args.model in (None, model):
            loaded = None if args.render else load_model(model, device=args.device)
            for part in args.part or PARTS:
                out = path(part, model)
                if loaded is not None:
                    # Forward passes in float32 have no more digits.
                    write_json(PARTS[part](loaded, args), out, digits=8)
                if out.exists():
                    lineage_render.render(part, out)


if __name__ == "__main__":
    main()
