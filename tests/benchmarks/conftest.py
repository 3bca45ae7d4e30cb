"""A tiny model of full and sliding layers, and the benchmark package on the path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A loaded Gemma-3 of two sliding and two full layers, head dim 16, window 48."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tinymodel import VOCAB, make_tiny

    from kakeya_fast.quality.models import load_model

    folder = make_tiny(tmp_path_factory.mktemp("standard") / "tiny")
    torch.manual_seed(11)
    config = transformers.Gemma3TextConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=48,
        layer_types=["sliding_attention", "full_attention"] * 2,
        max_position_embeddings=1024,
        initializer_range=0.3,
    )
    transformers.Gemma3ForCausalLM(config).save_pretrained(folder)
    return load_model(str(folder))


@pytest.fixture
def small(tiny, tmp_path, monkeypatch):
    """The tiny model, short texts of the manual only, torch operations for every codec."""
    from benchmarks import greedy, plans
    from benchmarks.damage import forward as damage_forward
    from benchmarks.damage import measure as damage
    from benchmarks.damage import settings as damage_settings
    from kakeya_fast.torch_ops import Backend

    for module in (damage_settings, damage, plans, greedy):
        monkeypatch.setattr(module, "table_folder", lambda: tmp_path / "tables")
    for module in (damage_settings, damage):
        monkeypatch.setattr(module, "TOKENS", 256)
        monkeypatch.setattr(module, "CTX", 128)
    for name in damage_settings.TABLES:
        options = damage_settings.TABLES[name][1]
        if "span" in options:
            options = options | {"span": 64}
        monkeypatch.setitem(damage_settings.TABLES, name, (("manual-a",), options))
    monkeypatch.setattr(damage_settings, "MIXED", ("manual-a",))
    monkeypatch.setattr(damage, "WARMUP", 8)
    coder = Backend()
    monkeypatch.setattr(damage_forward, "backend_on", lambda device: coder)
    for part, (_, _, _, rows) in damage.PARTS.items():
        monkeypatch.setitem(damage.PARTS, part, (140, 2, "manual-b", rows))
    before = tiny.model.config._attn_implementation
    yield tiny
    tiny.model.set_attn_implementation(before)
