"""Packed sliding-window layers against the library's: ``python -m benchmarks.sliding``.

A passage of real text, several windows long, goes through Gemma-3 token by token after a prefill in
chunks, with the cache of every setting; each next-token distribution is compared with that of the
library's exact cache. Writes ``results/sliding-<model>.json`` after every passage, and a page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from benchmarks import machine
from benchmarks.damage.settings import make_tables, table_folder
from kakeya_fast.hf import build_kakeya_cache, load_tables
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.report import write_json
from kakeya_fast.quality.texts import load_text, passages

RESULTS = Path(__file__).parent / "results"
# A text that no table knows.
TEXT, TABLES, CHUNK = "books", "moved", 256
CODECS = (
    "scalar:b=4/scalar:b=4", "e8:q=10/e8:q=10", "scalar:b=3/scalar:b=3",
    "query:b=3/trellis:b=3,gain=unbiased", "query:b=2/trellis:b=2,gain=unbiased",
)  # fmt: skip
EXACT = "library, exact"


def settings(model: Any, tables: Path) -> dict[str, Callable[[], Any]]:
    """A new cache of every kind, by name; ``tables`` for keys of ``query``."""

    def packed(codecs: str, sliding: Any) -> Callable[[], Any]:
        k, _, v = codecs.partition("/")
        known = {"tables": tables} if k.startswith("query") else {}
        return lambda: build_kakeya_cache(model, k, v, sliding=sliding, **known)

    made: dict[str, Callable[[], Any]] = {EXACT: lambda: DynamicCache(config=model.config)}
    made["raw, all layers packed"] = packed("raw/raw", "pack")
    for codec in CODECS:
        made[f"{codec}, full layers packed"] = packed(codec, "library")
        made[f"{codec}, all layers packed"] = packed(codec, "pack")
    return made


@torch.inference_mode()
def run(loaded: Loaded, past: Any, ids: list[int], new: int) -> tuple[torch.Tensor, int]:
    """Log-probabilities (new, V) of the last tokens' successors, and bytes held at the end."""
    tokens, known = torch.tensor([ids]), len(ids) - new
    for at in range(0, known, CHUNK):
        part = tokens[:, at : min(at + CHUNK, known)]
        loaded.model(part, past_key_values=past, logits_to_keep=1)
    rows = []
    for at in range(known, len(ids)):
        out = loaded.model(tokens[:, at : at + 1], past_key_values=past)
        rows.append(out.logits[0, -1].float().log_softmax(-1))
    return torch.stack(rows), held(past)


def held(past: Any) -> int:
    """Bytes of keys and values, tables and page tables of a cache."""
    if hasattr(past, "report"):
        return int(past.report().total)
    stored = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
              for layer in past.layers for x in (layer.keys, layer.values)}  # fmt: skip
    return sum(stored.values())


def measure(loaded: Loaded, ctx: int, new: int, count: int, out: Path) -> dict[str, Any]:
    """All settings over all passages."""
    text, window = load_text(TEXT), loaded.model.config.sliding_window
    tables = make_tables(loaded, [TABLES], table_folder())[TABLES]
    kinds = loaded.model.config.layer_types
    data: dict[str, Any] = machine.describe() | {
        "model": {"name": loaded.name, "sha256": loaded.sha256, "dtype": loaded.dtype},
        "text": {"name": text.name, "sha256": text.sha256},
        "tables": {"name": TABLES, "bytes": load_tables(tables).nbytes},
        "window": window,
        "layers": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "context": ctx,
        "new": new,
        "settings": {},
    }
    for passage in passages(loaded.tokens(text.text), loaded.prefix, ctx, count):
        exact = None
        for name, make in settings(loaded.model, tables).items():
            found, nbytes = run(loaded, make(), list(passage.ids), new)
            exact = found if exact is None else exact
            row = data["settings"].setdefault(name, {"bytes": nbytes, "kl": [], "same": []})
            row["kl"].append(float((exact.exp() * (exact - found)).sum(-1).mean()))
            row["same"].append(float((exact.argmax(-1) == found.argmax(-1)).float().mean()))
        write_json(data, out)
        print(passage.start, {k: v["kl"][-1] for k, v in data["settings"].items()}, flush=True)
    return data


def page(data: dict[str, Any]) -> str:
    """The result as Markdown."""
    layers = " and ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in data["layers"].items())
    count = len(data["settings"][EXACT]["kl"])
    lines = [
        f"# Packed sliding-window layers of `{data['model']['name']}`",
        "",
        f"By `python -m benchmarks.sliding`, commit {data['commit']}, {data['date']}; model "
        f"{data['model']['dtype']}, {layers} layers, window {data['window']}. {count} passages of "
        f"`{data['text']['name']}`, {data['context']} tokens each: the last {data['new']} one by "
        f"one, those before in chunks of {CHUNK}. Mean KL divergence of the next token's "
        "distribution from that of the library's exact cache, least and largest passage in "
        "brackets, and how often the most likely token is the same. Bytes are all that a cache "
        f"holds at the end, page tables included; {data['tables']['bytes'] / 1e6:.1f} MB of tables "
        f"for `query` (`{data['tables']['name']}`) stand beside the model, for all sequences.",
        "",
        "| cache | KL, nats | same token | MB | of exact |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    whole = data["settings"][EXACT]["bytes"]
    for name, row in data["settings"].items():
        kl, same = row["kl"], 100 * np.mean(row["same"])
        lines.append(
            f"| {name} | {np.mean(kl):.2g} ({min(kl):.2g} … {max(kl):.2g}) | {same:.1f} % | "
            f"{row['bytes'] / 1e6:.2f} | {row['bytes'] / whole:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="gemma3-270m")
    parser.add_argument("--context", type=int, default=1088)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--passages", type=int, default=8)
    args = parser.parse_args()
    out = RESULTS / f"sliding-{args.model}.json"
    data = measure(load_model(args.model), args.context, args.new, args.passages, out)
    out.with_suffix(".md").write_text(page(data), "utf-8")
    print(page(data))


if __name__ == "__main__":
    main()
