"""Bytes of a model's packed cache by part, from its configuration alone."""

from __future__ import annotations

from typing import Any

from kakeya_fast.cli.tablebytes import table_nbytes
from kakeya_fast.quality.models import resolve_model
from kakeya_ref.errors import UsageError
from kakeya_ref.layout import page_layout, sequence_nbytes

BF16 = 16
PACKED = "full_attention"


def model_bytes(
    name: str, k: str, v: str, page_tokens: int, sinks: int, ctx: int
) -> dict[str, Any]:
    """Bytes of one sequence of ``ctx`` tokens: pages, exact tokens and layers left to the library.

    Exact tokens count as bf16. Sliding-window layers are kept by the library's own layers: their
    window at bf16. Other kinds of layers hold no keys and values that grow.

    Rule: rate.sequence.parts

    Raises
    ------
    UsageError
        ``ctx`` is not positive, or the model is unknown.
    """
    from transformers import AutoConfig

    if ctx < 1:
        raise UsageError("cli.inspect.input", f"--ctx {ctx} is not 1 or more")
    config = AutoConfig.from_pretrained(resolve_model(name), local_files_only=True)
    config = config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    d = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kinds = getattr(config, "layer_types", None) or [PACKED] * config.num_hidden_layers
    full, sliding = kinds.count(PACKED), kinds.count("sliding_attention")
    key, value = page_layout(k, d, page_tokens), page_layout(v, d, page_tokens)
    total = full * heads * sequence_nbytes(key, value, ctx, sinks, BF16)
    pages = max(0, ctx - sinks) // page_tokens
    packed = full * heads * pages * (key.nbytes + value.nbytes)
    tables = full * heads * pages * (table_nbytes(key) + table_nbytes(value))
    token = heads * 2 * d * BF16 // 8
    window = min(ctx, getattr(config, "sliding_window", None) or ctx)
    rows = [
        ("pages", full, packed, full * pages * page_tokens * token),
        ("tables of pages", full, tables, 0),
        ("sinks and unfilled page", full, total - packed, total - packed),
        ("sliding windows, not packed", sliding, *[sliding * window * token] * 2),
    ]
    rows.append(("all", full + sliding, sum(r[2] for r in rows), sum(r[3] for r in rows)))
    return {
        "model": name,
        "ctx": ctx,
        "k": k,
        "v": v,
        "page_tokens": page_tokens,
        "sinks": sinks,
        "layers": len(kinds),
        "other_layers": len(kinds) - full - sliding,
        "kv_heads": heads,
        "head_dim": d,
        "parts": [
            {"part": part, "layers": layers, "bytes": nbytes, "bf16_bytes": bf16}
            for part, layers, nbytes, bf16 in rows
            if nbytes
        ],
    }
