"""The benchmark standard: ``python -m benchmarks.standard MODEL [--longest]``, then ``--report``.

One command per model: real text, then one paragraph repeated; one uncompressed prefill fills the
caches of all settings, which are measured at every context. Written after each context; a second
call measures what is missing. Method: ``benchmarks/STANDARD.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.machine import describe
from benchmarks.standard.accounting import PRESET as HISTORIC
from benchmarks.standard.report import write_reports
from benchmarks.standard.run import (
    COLUMNS,
    clean_ranks,
    dynamic_rows,
    fill,
    forget_peak,
    packed_rows,
    page_ranks,
    peak_rss,
    prefill,
)
from benchmarks.standard.settings import SETTINGS, Setting, setting
from benchmarks.standard.shapes import Shape, from_config
from benchmarks.standard.texts import REPEATED, Stretch, stretch
from kakeya_fast.hf import build_kakeya_cache
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_ref.errors import Malformed, UsageError

RESULTS = Path(__file__).parents[1] / "results" / "standard"
FORMAT = "kakeya-standard/1"
CONTEXTS, LONGEST = (2048, 4096, 8192), 16384
TEXTS = ("workshop", REPEATED)
CHUNK = 1024
WIDTH = 200

log = logging.getLogger("kakeya")


class Run:
    """One model on one text; ``data`` is the result file."""

    def __init__(
        self,
        loaded: Loaded,
        text: str,
        contexts: Sequence[int],
        settings: Sequence[Setting],
        out: Path,
        chunk: int = CHUNK,
    ) -> None:
        self.loaded, self.out, self.settings = loaded, out, settings
        self.contexts = _within(loaded, sorted(contexts))
        self.chunk = chunk
        self.stretch: Stretch = stretch(loaded, text, self.contexts[-1])
        self.shape: Shape = from_config(loaded.model.config, loaded.name)
        self.full = [i for i, x in enumerate(self.shape.layers) if x.kind == "full"]
        self.data = self._start()

    def go(self) -> dict[str, Any]:
        """Measure what is missing; the finished result."""
        missing = [each for each in self.settings if not self._known(each)]
        if missing or not self._done(self.data["baseline"]):
            self._one_pass(missing)
        for each in missing:
            if not each.fixed_rate:
                self._live(each)
        return self.data

    def _start(self) -> dict[str, Any]:
        model = self.loaded.model
        fresh = {
            "format": FORMAT,
            "model": {
                "name": self.loaded.name,
                "sha256": self.loaded.sha256,
                "dtype": self.loaded.dtype,
                "itemsize": next(model.parameters()).element_size(),
                "shape": [list(asdict(layer).values()) for layer in self.shape.layers],
            },
            "text": self.stretch.describe(self.contexts),
            "protocol": {"chunk": self.chunk, "historic": asdict(HISTORIC)},
            "columns": list(COLUMNS),
        }
        empty = {"settings": {}, "baseline": {"contexts": {}}, "clean_ranks": {}, "runs": {}}
        if not self.out.exists():
            return fresh | empty
        stored = json.loads(self.out.read_text("utf-8"))
        if _key(stored) != _key(fresh):
            log.warning("%s is of another run and is measured anew", self.out.name)
            return fresh | empty
        # Hashes of contexts that this call does not ask for still belong to what is stored.
        fresh["text"]["ids_sha256"] = stored["text"]["ids_sha256"] | fresh["text"]["ids_sha256"]
        return stored | fresh

    def _known(self, each: Setting) -> bool:
        same = self.data["settings"].get(each.name) == each.options()
        return same and self._done(self.data["runs"][each.name])

    def _done(self, run: dict[str, Any]) -> bool:
        return {str(n) for n in self.contexts} <= set(run["contexts"])

    def _one_pass(self, missing: Sequence[Setting]) -> None:
        """One uncompressed prefill; all missing caches are filled from it, chunk by chunk."""
        model = self.loaded.model
        clean = DynamicCache(config=model.config)
        caches = {each.name: build_kakeya_cache(model, **each.options()) for each in missing}
        base = self.data["baseline"] = self._begin()
        for each in missing:
            self.data["settings"][each.name] = each.options()
            self.data["runs"][each.name] = self._begin()
        forget_peak()
        for begin, tokens in prefill(model, self.stretch.ids, self.contexts, clean, self.chunk):
            for cache in caches.values():
                fill(cache, clean, begin)
            if tokens not in self.contexts:
                continue
            rows = dynamic_rows(clean)
            want = self.shape.exact_nbytes(tokens, self.data["model"]["itemsize"])
            if (got := sum(row[0] for row in rows)) != want:
                raise Malformed("rate.bytes.true", f"measured {got} bytes, the config says {want}")
            base["contexts"][str(tokens)] = {"peak_rss": peak_rss(), "layers": rows}
            self.data["clean_ranks"] = clean_ranks(clean, self.full, HISTORIC)
            for each in missing:
                run, cache = self.data["runs"][each.name], caches[each.name]
                run["contexts"][str(tokens)] = {"layers": packed_rows(cache)}
                if not each.fixed_rate:
                    run["ranks"] = page_ranks(cache, self.full)
            self._write(f"{len(missing)} settings", tokens)

    def _live(self, each: Setting) -> None:
        """The shortest context again with a cache in use: its fits see what damage made of them."""
        tokens = self.contexts[0]
        cache = build_kakeya_cache(self.loaded.model, **each.options())
        for _ in prefill(self.loaded.model, self.stretch.ids, [tokens], cache, self.chunk):
            pass
        self.data["runs"][each.name]["live"] = {"tokens": tokens, "layers": packed_rows(cache)}
        self._write(f"{each.name} live", tokens)

    def _begin(self) -> dict[str, Any]:
        return {"environment": describe(), "contexts": {}}

    def _write(self, what: str, tokens: int) -> None:
        write_compact(self.data, self.out)
        print(f"{self.out.stem}: {what} at {tokens}", file=sys.stderr, flush=True)


def write_compact(data: dict[str, Any], path: Path) -> None:
    """JSON with rows of numbers on one line, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    whole.write_text(_dump(data, "") + "\n", "utf-8")
    os.replace(whole, path)


def _dump(item: Any, margin: str) -> str:
    inner = margin + " "
    flat = json.dumps(item, ensure_ascii=False, allow_nan=False)
    if not item or not isinstance(item, (dict, list)) or len(margin + flat) <= WIDTH:
        return flat
    if isinstance(item, dict):
        lines = [f"{json.dumps(name)}: {_dump(value, inner)}" for name, value in item.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{margin}}}"
    if not any(isinstance(part, (dict, list)) for part in item):
        return flat
    return "[\n" + ",\n".join(inner + _dump(part, inner) for part in item) + f"\n{margin}]"


def _key(data: dict[str, Any]) -> list[Any]:
    """What must be equal for two calls to be parts of one run."""
    text = {n: data["text"][n] for n in ("name", "sha256", "start", "period")}
    return [data["format"], data["model"], data["protocol"], data["columns"], text]


def _within(loaded: Loaded, contexts: Sequence[int]) -> list[int]:
    """Contexts that the model was made for.

    Raises
    ------
    UsageError
        None of them (``cache.option.range``).
    """
    config = loaded.model.config.get_text_config(decoder=True)
    most = getattr(config, "max_position_embeddings", None) or max(contexts)
    for n in contexts:
        if n > most:
            log.warning("%s knows %d positions; %d is left out", loaded.name, most, n)
    kept = [n for n in contexts if n <= most]
    if not kept:
        raise UsageError("cache.option.range", f"no context up to {most} tokens")
    return kept


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one model, or write the reports of all that were measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.standard", description=__doc__)
    parser.add_argument("model", nargs="?", help="a packaged name, or a folder with a config.json")
    parser.add_argument("--report", action="store_true", help="write the reports of all results")
    parser.add_argument("--longest", action="store_true", help=f"measure {LONGEST} tokens as well")
    parser.add_argument("--context", type=int, action="append", help="instead of 2k, 4k, 8k")
    parser.add_argument("--text", action="append", help=f"instead of {' and '.join(TEXTS)}")
    parser.add_argument(
        "--setting", action="append", choices=[s.name for s in SETTINGS], help="only these"
    )
    parser.add_argument("--dtype", default="float32", help="of weights and of exact tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where the model runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if args.model is None and not args.report:
        parser.error("name a model, or ask for --report")
    if args.model is not None:
        torch.set_num_threads(args.threads)
        loaded = load_model(args.model, device=args.device, dtype=args.dtype)
        contexts = [*(args.context or CONTEXTS), *([LONGEST] if args.longest else [])]
        chosen = [setting(name) for name in args.setting] if args.setting else SETTINGS
        for text in args.text or TEXTS:
            out = args.out / f"{loaded.name}-{Path(text).stem}.json"
            Run(loaded, text, contexts, chosen, out).go()
    if args.report:
        write_reports(args.out)
