"""Tiny random models of real families, and the few things that most tests do with them."""

from __future__ import annotations

import gc
from functools import lru_cache

import numpy as np
import torch
import transformers
from transformers import DynamicCache

from kakeya_fast.hf import PackedLayer, build_kakeya_cache
from kakeya_fast.hf.blocks import BlockStore

VOCAB = 97
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **options):
    """A fresh tiny model in eval mode; ``family`` is the class stem, such as ``Llama``."""
    torch.manual_seed(seed)
    config_name = {"Llama4": "Llama4TextConfig", "Gemma3": "Gemma3TextConfig"}
    config_name |= {"Gemma3n": "Gemma3nTextConfig", "Gemma4": "Gemma4TextConfig"}
    config = getattr(transformers, config_name.get(family, f"{family}Config"))(**BASE | options)
    made = getattr(transformers, f"{family}ForCausalLM")(config)
    # Random tiny models barely look at their context; sharper keys make a wrong cache show.
    for name, weight in made.named_parameters():
        if "k_proj" in name or "q_proj" in name:
            weight.data *= 6
    return made.to(dtype).eval()


@lru_cache(maxsize=4)
def llama(dtype: torch.dtype = torch.float32):
    """One Llama shared by tests that do not change it."""
    return model("Llama", dtype)


def prompt(rows: int = 2, length: int = 75, seed: int = 1) -> torch.Tensor:
    """Token ids (rows, length)."""
    made = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCAB, (rows, length), generator=made)


def padded(ids: torch.Tensor, pads: list[int]) -> dict[str, torch.Tensor]:
    """The same rows with that many leading pad tokens written over their first tokens."""
    ids, mask = ids.clone(), torch.ones_like(ids)
    for row, n in enumerate(pads):
        ids[row, :n], mask[row, :n] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def cache(of, codec: str = "raw", **options):
    """A cache with the torch backend, which every machine has."""
    return build_kakeya_cache(of, codec, codec, **{"backend": "torch"} | options)


def generate(of, inputs, past=None, new: int = 40, **options) -> torch.Tensor:
    """Token ids of ``generate``; greedy unless told otherwise."""
    if isinstance(inputs, torch.Tensor):
        inputs = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    options = {"do_sample": False, "max_new_tokens": new} | options
    past = DynamicCache(config=of.config) if past is None else past
    torch.manual_seed(7)
    return of.generate(**inputs, past_key_values=past, **options)


def packed_layers(past) -> list[PackedLayer]:
    """The layers of a cache that are packed."""
    return [layer for layer in past.layers if isinstance(layer, PackedLayer)]


def page_bytes(layer: PackedLayer, row: int) -> bytes:
    """Bytes of all pages of a row, in order."""
    pages = layer.state.pages
    if isinstance(pages, BlockStore):
        flat = [block for page in pages.blocks[row] for stream in page for block in stream]
        words = pages.words[row, : pages.count[row]].tobytes()
        bodies = [x.body.numpy().tobytes() for x in flat]
        return b"".join([words, *bodies, *(x.table.tobytes() for x in flat if x.table is not None)])
    return pages.bodies[row, : pages.count[row]].contiguous().numpy().tobytes()


def held_bytes(root) -> int:
    """Bytes of all tensors and arrays that the garbage collector reaches from ``root``."""
    seen, total, stack = set(), 0, [root]
    storages = set()
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, (type, type(gc), type(held_bytes))):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            if storage.data_ptr() not in storages:
                storages.add(storage.data_ptr())
                total += storage.nbytes()
        elif isinstance(item, np.ndarray):
            total += item.nbytes
        else:
            stack.extend(gc.get_referents(item))
    return total
