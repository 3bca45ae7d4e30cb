"""Values alone at 2 bits, keys exact: ``python -m benchmarks.values``, trellis beside scalar.

Writes ``results/values/<model>-<text>.json`` and a table beside it; resumable.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.quality import CTX, render
from benchmarks.quality import RESULTS as QUALITY
from kakeya_fast.quality.models import load_model
from kakeya_fast.quality.protocol import Setting
from kakeya_fast.quality.run import run
from kakeya_fast.quality.texts import load_text

RESULTS = QUALITY.parent / "values"
SETTINGS = ("raw/scalar:b=2", "raw/trellis")
MODELS, TEXT, PASSAGES = ("smollm2-135m", "gemma3-270m"), "manual", 16


def main() -> None:
    """Run, resuming what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, help="only this model")
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--render", action="store_true", help="only the pages, from what is there")
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for model in [args.model] if args.model else MODELS:
        stem = RESULTS / f"{model}-{TEXT}"
        if args.render:
            render(json.loads(stem.with_suffix(".json").read_text("utf-8")), stem, draw=False)
            continue
        report = run(
            load_model(model, device=args.device),
            load_text(TEXT),
            [Setting.parse(s) for s in SETTINGS],
            ctx=CTX,
            count=args.passages,
            out=stem.with_suffix(".json"),
            any_commit=True,
            workers=args.workers,
        )
        render(report.as_dict(), stem, draw=False)


if __name__ == "__main__":
    main()
