"""How long greedy decoding goes the same way: ``python -m benchmarks.greedy [--model M]``.

Prompts of a text that no table has seen; keys and values live in a packed cache from the first
token on, through the library's ``generate``, and every answer is compared with that of the
uncompressed cache. Writes ``results/greedy/<model>.json`` after every setting, resumable, and a
page beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from benchmarks.damage.forward import enter_run
from benchmarks.damage.settings import half, make_tables, table_folder
from benchmarks.pool import spread
from benchmarks.resume import with_tables
from kakeya_fast.hf import build_kakeya_cache
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.report import write_json
from kakeya_fast.quality.stats import pooled
from kakeya_fast.quality.texts import passages

RESULTS = Path(__file__).parent / "results" / "greedy"
TEXT, TABLES = "workshop-b", "moved"
PROMPTS, PROMPT, NEW = 52, 128, 64
SETTINGS = (
    "exact", "scalar:b=3/scalar:b=3", "query:b=3/trellis:b=3,gain=unbiased",
    "query:b=2/trellis:b=2,gain=unbiased", "scalar:b=2/scalar:b=2", "scalar:b=4/scalar:b=4",
    "query:b=2.5/trellis:b=2,gain=unbiased", "query:b=4/trellis:b=4,gain=unbiased",
    "raw:dtype=bf16/raw:dtype=bf16",
)  # fmt: skip

_mine: dict[str, Any] = {}


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--settings", type=int, help="fewer of them, from the first on")
    parser.add_argument("--render", action="store_true", help="only the page, from what is there")
    args = parser.parse_args()
    out = RESULTS / f"{args.model}.json"
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not args.render:
        measure(args.model, args.device, args.workers, SETTINGS[: args.settings], out)
    out.with_suffix(".md").write_text(page(json.loads(out.read_text("utf-8"))), "utf-8")


def measure(
    model: str, device: str, workers: int, settings: tuple[str, ...], out: Path
) -> dict[str, Any]:
    """Answers of every setting that is not there yet."""
    loaded = load_model(model, device=device)
    make_tables(loaded, [TABLES], table_folder())
    text = half(TEXT)
    windows = passages(loaded.tokens(text.text), loaded.prefix, PROMPT, PROMPTS)
    found = json.loads(out.read_text("utf-8")) if out.exists() else {}
    data: dict[str, Any] = with_tables(found, "answers", TABLES) | {
        "format": "kakeya-greedy/1",
        "model": {"name": loaded.name, "sha256": loaded.sha256, "dtype": loaded.dtype},
        "text": {"name": text.name, "sha256": text.sha256},
        "prompts": PROMPTS, "prompt": PROMPT, "new": NEW,
    }  # fmt: skip
    enter_run(data, loaded.model)
    left = [s for s in settings if s not in data["answers"]]
    given = (model, device, [list(w.ids) for w in windows])
    mine = given if workers > 1 else (*given, loaded)
    for name, answers, bits in spread(left, _answers, _ready, mine, workers):
        data["answers"][name] = {"bits": bits, "tokens": answers}
        write_json(data, out)
        print(name, "held bits", bits, flush=True)
    return data


def _ready(model: str, device: str, ids: list[list[int]], loaded: Loaded | None = None) -> None:
    loaded = loaded or load_model(model, device=device)
    tables = table_folder() / f"{loaded.name}-{TABLES}.safetensors"
    _mine.update(model=loaded.model, tables=tables, ids=torch.tensor(ids, device=device))


def _answers(setting: str) -> tuple[str, list[list[int]], float]:
    """Setting, NEW tokens after each prompt, and bits a number that the cache held at the end."""
    model, ids = _mine["model"], _mine["ids"]
    if setting == "exact":
        cache: Any = DynamicCache(config=model.config)
    else:
        k, v = setting.split("/")
        option = {"tables": _mine["tables"]} if k.startswith("query") else {}
        cache = build_kakeya_cache(model, k, v, **option)
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), past_key_values=cache, do_sample=False,
        max_new_tokens=NEW, min_new_tokens=NEW,
    )  # fmt: skip
    bits = 32.0
    if setting != "exact":
        bits = round(cache.report().bits_per_element, 4)
    return setting, made[:, ids.shape[1] :].tolist(), bits


def same(found: Any, exact: Any) -> np.ndarray:
    """Tokens of each answer before the first that differs."""
    differ = np.array(found) != np.array(exact)
    return np.where(differ.any(1), differ.argmax(1), differ.shape[1])


def page(data: dict[str, Any]) -> str:
    """The table of a model."""
    exact = data["answers"]["exact"]["tokens"]
    lines = [
        f"# Greedy decoding: {data['model']['name']}",
        "",
        f"{data['prompts']} prompts of {data['prompt']} tokens from {data['text']['name']}, "
        f"{data['new']} new tokens each through `generate`, one batch, weights and arithmetic "
        f"{data['model']['dtype']}, on {data['runs'][-1]['device']}, tables `{data['tables']}` for "
        "`query`. All layers but sliding ones packed, 4 exact sinks, pages "
        "of 32 with the unfilled one exact: an answer begins after "
        f"{(data['prompt'] - 4) // 32} packed pages. *Same* is the number of tokens before the "
        "first that differs from the uncompressed answer; 95 % intervals over prompts. *Held* is "
        "all that the cache held at the end, exact tokens and tables of pages included.",
        "",
        "| keys/values | held bits | same, mean | median | same to the end |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in data["answers"].items():
        if name == "exact":
            continue
        n = same(found["tokens"], exact)
        mean = pooled([float(x) for x in n], [1] * len(n))
        lines.append(
            f"| `{name}` | {found['bits']:.2f} | {mean.mean:.0f} [{mean.low:.0f}, {mean.high:.0f}] "
            f"| {np.median(n):.0f} | {100 * (n == data['new']).mean():.0f} % |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
