"""A model of 8B shape on long contexts through ``generate``: ``python -m benchmarks.gpu_generate``.

Packed caches against ``DynamicCache`` on one GPU. Weights are drawn, and so are the keys and values
that stand for the prompt: every cache is filled with the same ones, without a prefill. What
is timed are single steps of ``generate``, each until the device is done. Writes
``gpu-generate.json`` after every row.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from benchmarks import machine, resume
from benchmarks.device import tables as gpu_tables
from benchmarks.device.conform import Recorder
from benchmarks.device.run import no_gpu
from benchmarks.gpu_attention import CALIBRATED, attending, streams
from kakeya_fast.cuda import attend_plan
from kakeya_fast.cuda import compile as compiler
from kakeya_fast.cuda.compile import Unit
from kakeya_fast.hf import build_kakeya_cache
from kakeya_fast.hf.keytables import KeyTables, LayerTables, fingerprint
from kakeya_fast.hf.rope import Rope
from kakeya_fast.selftest import prove
from kakeya_ref.errors import Unsupported
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec

RESULTS = Path(__file__).parent / "results"
DENSE = "dynamic"
TOKENS = 32  # of a page
SKIPPED = 4  # first steps, which compile and make work space


@dataclass(frozen=True)
class Model:
    """Shape of a Llama; the vocabulary is small, for it has no part in what is compared."""

    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    intermediate: int = 14336
    vocabulary: int = 1024


TINY = Model(2, 128, 4, 2, 64, 128, 64)


@dataclass(frozen=True)
class Case:
    """One context for all caches."""

    context: int
    batch: int = 1

    def __str__(self) -> str:
        size = f"{self.context >> 10}k" if self.context >= 1024 else str(self.context)
        return f"{size} B={self.batch}"


CASES = (Case(32 << 10), Case(128 << 10), Case(1 << 10), Case(32 << 10, 8))
CODECS = ("scalar:b=3", "scalar:b=4", CALIBRATED)


def make_model(shape: Model, device: torch.device, seed: int = 0) -> Any:
    """A model in bf16 with drawn weights, made where it is used."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocabulary,
        max_position_embeddings=1 << 18,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        dtype=torch.bfloat16,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device=device).eval()
    generator = torch.Generator(device).manual_seed(seed)
    for weight in model.parameters():
        weight.requires_grad_(False)
        if weight.dim() > 1:
            weight.normal_(0, 0.02, generator=generator)
        else:
            weight.fill_(1)
    # Its tables are no parameters, and were empty on the way.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    return model


def drawn(shape: Model, case: Case, layer: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Keys and then values of a layer for all of the context but its last token."""
    generator = torch.Generator(device).manual_seed(layer + 1)
    size = (case.batch, shape.kv_heads, case.context - 1, shape.head_dim)
    for _ in range(2):
        yield torch.randn(size, dtype=torch.bfloat16, device=device, generator=generator)


def tables_of(model: Any, shape: Model, codec: str) -> KeyTables:
    """Drawn tables for the keys of every layer, which turn as the model's do."""
    layout = page_layout(codec, shape.head_dim, TOKENS)
    known = gpu_tables.beside(layout, shape.kv_heads)
    assert known is not None
    rope = Rope(tuple(model.model.rotary_emb.inv_freq.double().tolist()))
    layers = {i: LayerTables(known, rope, layout.codec.integer("f")) for i in range(shape.layers)}
    return KeyTables(layers, layout.codec.integer("f"), fingerprint(model))


def fill(model: Any, shape: Model, case: Case, codec: str, backend: str) -> Any:
    """A cache that holds the context; ``DENSE``, or packed."""
    device = model.device
    if codec == DENSE:
        model.set_attn_implementation("sdpa")
        past: Any = DynamicCache(config=model.config)
    else:
        k, v = streams(codec)
        tables = tables_of(model, shape, k) if codec == CALIBRATED else None
        past = build_kakeya_cache(model, k, v, backend=backend, tables=tables)
    for layer in range(shape.layers):
        past.update(*drawn(shape, case, layer, device), layer)
        if codec != DENSE:
            # No attention comes for these tokens: pack them now.
            past.layers[layer].state.settle(np.zeros(case.batch, np.int64))
            past.layers[layer].crop(0)
    return past


class Watch:
    """Takes the time at every step of ``generate``, as a processor of its logits."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.at, self.first = device, [], None

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leave the logits as they are."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.at.append(time.perf_counter())
        if self.first is None:
            self.first = scores.float().cpu()
        return scores


def held(past: Any) -> int:
    """Bytes of a cache."""
    if hasattr(past, "report"):
        return past.report().total
    return sum(x.keys.nbytes + x.values.nbytes for x in past.layers)


@contextmanager
def peak(device: torch.device, before: int) -> Iterator[dict[str, int]]:
    """Most bytes allocated on the device, above ``before``."""
    found: dict[str, int] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["peak"] = torch.cuda.max_memory_allocated(device) - before


def measure(model: Any, shape: Model, case: Case, codec: str, new: int, backend: str) -> Any:
    """One row."""
    device = model.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
    else:
        before = 0
    begun = time.perf_counter()
    past = fill(model, shape, case, codec, backend)
    filled = time.perf_counter() - begun
    ids = torch.ones(case.batch, case.context, dtype=torch.long, device=device)
    watch = Watch(device)
    with peak(device, before) as most:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=past,
            do_sample=False,
            max_new_tokens=new,
            min_new_tokens=new,
            logits_processor=[watch],
        )
    steps = np.diff(watch.at)[SKIPPED:]
    p20, median, p80 = (float(x) for x in np.percentile(steps, [20, 50, 80]))
    row = {
        "case": str(case),
        **asdict(case),
        "codec": codec,
        "step": {"median": median, "p20": p20, "p80": p80, "mean": float(steps.mean())},
        "steps": len(steps),
        "tokens_per_second": case.batch / median,
        "bytes": held(past),
        "filled_in": filled,
        **most,
    }
    return row, watch.first


def line(row: dict[str, Any]) -> str:
    """A row in words."""
    return (
        f"{row['case']:<10} {row['codec']:<21} {row['tokens_per_second']:7.1f} tokens/s, step "
        f"{row['step']['median'] * 1e3:.2f} ms [{row['step']['p20'] * 1e3:.2f}, "
        f"{row['step']['p80'] * 1e3:.2f}], cache {row['bytes'] / 1e9:.2f} GB, peak "
        f"{row.get('peak', 0) / 1e9:.2f} GB, filled in {row['filled_in']:.1f} s"
    )


@torch.no_grad()
def run(
    shape: Model,
    cases: list[Case],
    codecs: list[str],
    *,
    new: int,
    device: torch.device,
    backend: str,
    out: Path,
    seconds: float,
) -> dict[str, Any]:
    """All rows, saved one by one; what fails is noted, and the next begins.

    Goes on with the file of a run of the same code on the same device. ``DynamicCache`` comes first
    in each case, since the others are compared with its logits, and again where one is missing.
    """
    begun, path = time.monotonic(), out / "gpu-generate.json"
    model = make_model(shape, device)
    result: dict[str, Any] = machine.describe() | {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "code": machine.code(),
        "model": asdict(shape) | {"parameters": sum(x.numel() for x in model.parameters())},
        "new": new,
        "rows": [],
    }
    result |= resume.earlier(path, result, (*resume.SAME, "model", "new")) | {"failed": []}
    order = [(str(case), codec) for case in cases for codec in (*codecs, DENSE)]
    rows = {(row["case"], row["codec"]): row for row in result["rows"]}
    for case in cases:
        left = [codec for codec in (DENSE, *codecs) if (str(case), codec) not in rows]
        logits = None
        for codec in dict.fromkeys((DENSE, *left)) if left else ():
            if time.monotonic() - begun > seconds:
                result["failed"].append(f"{case} {codec}: no time left")
                continue
            try:
                row, found = measure(model, shape, case, codec, new, backend)
            except Exception as error:  # the time on a GPU is short: other rows still run
                result["failed"].append(f"{case} {codec}: {error!r}"[:500])
                print(result["failed"][-1], flush=True)
                continue
            logits = found if codec == DENSE else logits
            if logits is not None:
                pair = found.flatten(), logits.flatten()
                row["cosine"] = float(torch.nn.functional.cosine_similarity(*pair, dim=0))
            rows[str(case), codec] = row
            result["rows"] = [rows[key] for key in dict.fromkeys((*order, *rows)) if key in rows]
            print(line(row), flush=True)
            resume.save(path, result)
    resume.save(path, result)
    return result


def units(codecs: list[str], shape: Model) -> list[Unit]:
    """What the caches compile: kernels of the self-test, of packing, and of attention."""
    recorder, rows = Recorder(), shape.heads // shape.kv_heads
    found: dict[Unit, None] = {}
    pairs = [streams(codec) for codec in codecs]
    for codec_id in ("raw", *(parse_codec(codec).id for pair in pairs for codec in pair)):
        prove(recorder, codec_id)
    found |= recorder.units
    for pair in pairs:
        k, v = (page_layout(codec, shape.head_dim, TOKENS) for codec in pair)
        calibrated = k.codec.id == attend_plan.CALIBRATED  # of turned keys
        found[compiler.unit(k, "float32" if calibrated else "bfloat16", "encode")] = None
        found[compiler.unit(v, "bfloat16", "encode")] = None
        found[attending((k, v), rows, "float32")] = None
    return list(found)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    from benchmarks.device.conform import compile_all
    from kakeya_fast.cuda.launch import CupyLauncher, cuda_device

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument("--new", type=int, default=44)
    options.add_argument("--cases", nargs="+", default=[str(case) for case in CASES])
    options.add_argument("--codecs", nargs="+", default=list(CODECS))
    options.add_argument("--seconds", type=float, default=75)
    told = options.parse_args(argv)
    begun = time.monotonic()
    try:
        device = cuda_device("cuda")
        arch = CupyLauncher(device).arch
    except (ImportError, Unsupported) as error:
        return no_gpu(error)
    count = compile_all(units(told.codecs, Model()), arch, 60)
    print(f"compiled {count} in {time.monotonic() - begun:.0f} s", flush=True)
    result = run(
        Model(),
        [case for case in CASES if str(case) in told.cases],
        told.codecs,
        new=told.new,
        device=device,
        backend="cuda",
        out=told.out,
        seconds=told.seconds - (time.monotonic() - begun),
    )
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
