"""Quality of every codec at many rates: ``python -m benchmarks.quality [--model M] [--text T]``.

Without options: the runs whose results are committed. Writes
``results/quality/<model>-<text>.json`` after every passage (a second call goes on where the first
stopped), then the Markdown table and the plot beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from kakeya_fast.env import cache_dir
from kakeya_fast.quality.calibration import calibrated
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.plot import plot
from kakeya_fast.quality.protocol import Options, Setting
from kakeya_fast.quality.run import run, steps
from kakeya_fast.quality.table import markdown
from kakeya_fast.quality.texts import load_text

RESULTS = Path(__file__).parent / "results" / "quality"
# Keys and values by the same codec; the last is KIVI's layout at 2 bits.
SETTINGS = (
    "raw",
    "fp8",
    "int:b=4",
    "int:b=3",
    "int:b=2",
    "scalar:b=5",
    "scalar:b=4",
    "scalar:b=3",
    "scalar:b=2",
    "d4:q=15",
    "d4:q=7",
    "d4:q=3",
    "e8:q=15",
    "e8:q=10",
    "e8:q=7",
    "e8:q=5",
    "e8:q=4",
    "e8:q=3",
    "e8:q=2",
    "int:b=2,g=32,axis=channel/int:b=2,g=32",
    "trellis:b=1",
    "trellis:b=2",
    "trellis:b=3",
    "trellis:b=4",
)
# Keys of these are calibrated on source code, which neither text is.
CALIBRATED = (
    "query:b=2/trellis:b=2,gain=unbiased",
    "query:b=2.5/trellis:b=2,gain=unbiased",
    "query:b=3/trellis:b=3,gain=unbiased",
    "query:b=4/trellis:b=4,gain=unbiased",
)
CALIBRATION, TOKENS, WINDOW, CONTEXT = "code", 16384, 2048, 8192
# Model, text, passages: as many as two cores can do in an evening.
RUNS = (
    ("smollm2-135m", "manual", 8),
    ("gemma3-270m", "manual", 6),
    ("smollm2-135m", "workshop", 4),
    ("gemma3-270m", "workshop", 3),
)
CTX = 1024


def main() -> None:
    """Run, resuming what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--text", help="only this text")
    parser.add_argument("--passages", type=int, help="instead of the number of this file")
    parser.add_argument("--setting", action="append", help="instead of the list of this file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where the model runs")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for model, text, passages in RUNS:
        if args.model in (None, model) and args.text in (None, text):
            measure(model, text, args.passages or passages, args.setting, args.device, args.workers)


def tables_of(loaded: Loaded) -> str:
    """Name of the file of tables of a model, made if need be; the working folder becomes its own.

    A setting's name tells its tables, and must not tell where a machine keeps them.
    """
    folder = cache_dir() / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    name = f"{loaded.name}-{CALIBRATION}.whole.safetensors"
    if not Path(name).exists():
        texts = [load_text(CALIBRATION)]
        calibrated(
            loaded, texts, frame=32, tokens=TOKENS, ctx=WINDOW, context=CONTEXT
        ).save(name)  # fmt: skip
    return name


def measure(
    model: str, name: str, passages: int, given: list[str] | None, device: str, workers: int
) -> None:
    """One model on one text."""
    text, loaded = load_text(name), load_model(model, device=device)
    tables = tables_of(loaded)
    names = given or [*SETTINGS, *(f"{c}@tables={tables}" for c in CALIBRATED)]
    settings = [Setting.parse(s) for s in names]
    stem = RESULTS / f"{model}-{name}"
    options = Options()
    report = run(
        loaded,
        text,
        settings,
        ctx=CTX,
        count=passages,
        options=options,
        out=stem.with_suffix(".json"),
        # Bytes are the same at every commit that conforms; a file names all it was made with.
        any_commit=True,
        workers=workers,
        step=_counter(stem.name, steps(CTX, passages, len(settings), options)),
    )
    render(report.as_dict(), stem)


def render(data: dict[str, Any], stem: Path, draw: bool = True) -> None:
    """Markdown table, and PNG if there is enough to draw, from a report."""
    protocol, model, text = data["protocol"], data["model"], data["text"]
    base = data["summary"][0]["base_ppl"]
    title = (
        f"{model['name']} on {text['name']}: {data['summary'][0]['passages']} passages of "
        f"{protocol['ctx']} tokens"
    )
    lines = [
        f"# {title}",
        "",
        f"{protocol['description']} Uncompressed PPL {base:.2f}, weights and arithmetic "
        f"{model['dtype']}, {protocol['sinks']} sinks, pages of {protocol['page_tokens']} tokens. "
        f"*Page bits* are those of a full page, scales and padding included; *held bits*, "
        f"*true MB* and the ratio are of all that the packed layers hold at the end of a passage: "
        f"exact tokens in {model['dtype']}, tables and spare page slots included. Layers: "
        f"{', '.join(model['layer_types'])}; only full attention is packed.",
        "",
        markdown(data["summary"]),
    ]
    stem.with_suffix(".md").write_text("\n".join(lines), "utf-8")
    if draw:
        plot(data["summary"], title, stem.with_suffix(".png"))


def _counter(name: str, total: int) -> Any:
    began, done = time.monotonic(), 0

    def step() -> None:
        nonlocal done
        done += 1
        if done % 20 == 0 or done == total:
            spent = time.monotonic() - began
            print(f"{name}: {done}/{total} after {spent:.0f} s", file=sys.stderr, flush=True)

    return step


if __name__ == "__main__":
    main()
