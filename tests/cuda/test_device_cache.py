"""The cache of a tiny model with the CUDA backend holds and reads what torch would.

On the CPU the kernels come from the host build; on a GPU they are the device's.
"""

from __future__ import annotations

import pytest
import torch

hf = pytest.importorskip("kakeya_fast.hf", exc_type=ImportError)
transformers = pytest.importorskip("transformers")

CODECS = ("scalar:b=3", "trellis:b=3", "e8", "int:b=4,axis=channel", "raw")
PAGES = 3


def tiny(device: str):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        vocab_size=64,
    )
    return transformers.LlamaForCausalLM(config).eval().to(device)


@pytest.mark.parametrize("codec", CODECS)
def test_pages_and_coefficients_are_torchs(device, codec) -> None:
    """Rule: backend.name.explicit"""
    model = tiny(device)
    ids = torch.randint(0, 64, (2, 4 + 16 * PAGES + 5)).to(device)
    states, logits = {}, {}
    for name in ("cuda", "torch"):
        options = {"backend": name, "page_tokens": 16}
        cache = hf.build_kakeya_cache(model, codec, codec, **options)
        with torch.no_grad():
            model(ids[:, :-1], past_key_values=cache)
            logits[name] = model(ids[:, -1:], past_key_values=cache).logits
        states[name] = [layer.state for layer in cache.layers]
    torch_backend = states["torch"][0].policy.open(device, states["torch"][0].layouts)
    cuda_backend = states["cuda"][0].policy.open(device, states["cuda"][0].layouts)
    assert (cuda_backend.name, torch_backend.name) == ("cuda", "torch")
    for state in states["cuda"]:
        assert state.pages.used == PAGES
        for stream in (0, 1):
            mine, theirs = (
                state.pages.decode(0, PAGES, stream, backend, "coefficients")
                for backend in (cuda_backend, torch_backend)
            )
            assert torch.equal(mine.view(torch.int32), theirs.view(torch.int32))
            assert bool((mine != 0).any())
    # The first layer sees the same keys whatever the cache; on a GPU torch may decide a tie
    # otherwise, and fuse what it computes.
    mine, theirs = (states[name][0].pages.bodies for name in ("cuda", "torch"))
    if device == "cpu":
        assert torch.equal(mine, theirs)
        assert torch.equal(logits["cuda"], logits["torch"])
    else:
        assert (mine == theirs).float().mean() > 0.99
        assert torch.allclose(logits["cuda"], logits["torch"], atol=0.05)


def test_calibrated_keys_are_coded_where_they_lie(device, tmp_path) -> None:
    """Keys of query go to the kernels, not through host memory, and their bytes are torch's; tables
    from a file are brought over once a layer and direction.

    Rule: cache.backend.offers, query.tables.given
    """
    from kakeya_fast.hf.calibrate import statistics, tables

    model = tiny(device)
    ids = torch.randint(0, 64, (2, 4 + 16 * PAGES + 5)).to(device)
    path = tmp_path / "tables.safetensors"
    tables(model, statistics(model, ids.tolist()), frame=32, context=128).save(path)
    known = hf.load_tables(path)
    options = {"tables": known, "page_tokens": 16}
    cache = hf.build_kakeya_cache(model, "query:b=3", "trellis", backend="cuda", **options)
    with torch.no_grad():
        model(ids, past_key_values=cache)
    for layer in cache.layers:
        backend = layer.state.policy.open(device, layer.state.layouts)
        assert backend.name == "cuda"
        assert len(backend._calls._tables._lent) == 2 * len(cache.layers)
        pages = layer.state.pages
        y = pages.decode(0, PAGES, 0, backend, "coefficients")
        assert pages.count.tolist() == [PAGES, PAGES]
        assert bool((y != 0).any() and y.isfinite().all())
    if device == "cpu":
        other = hf.build_kakeya_cache(model, "query:b=3", "trellis", backend="torch", **options)
        with torch.no_grad():
            model(ids, past_key_values=other)
        for mine, theirs in zip(cache.layers, other.layers, strict=True):
            assert torch.equal(mine.state.pages.bodies, theirs.state.pages.bodies)
