"""Bytes as the predecessor counted them, by hand, and the figures it printed."""

import numpy as np
import pytest

from benchmarks.standard.accounting import (
    Claim,
    Historic,
    claim,
    implied_rank,
    pooled_ranks,
    rank_of,
    stored_ratio,
    true_page_nbytes,
)
from benchmarks.standard.shapes import (
    Layer,
    Shape,
    as_printed,
    from_config,
    printed_ratios,
    printed_stored,
    published,
    shapes,
)
from kakeya_ref.errors import Unsupported
from kakeya_ref.layout import page_layout, table_layout
from kakeya_ref.registry import parse_codec

NAMED = [
    "Qwen3-0.6B",
    "Qwen3-4B",
    "Qwen2.5-0.5B",
    "SmolLM2-1.7B",
    "Gemma-4-E2B",
    "GLM-4-9B",
    "DeepSeek-R1-Distill-Qwen-1.5B",
    "Llama-3.1-8B",
]
RATIOS = [(name, *row) for name in shapes() for row in printed_ratios(name)]


def test_a_row_is_112_bytes():
    """Segment 8, two scalars 4 each, eight values of 4 and indices of 8."""
    assert Historic().row_nbytes(64) == 8 + 4 + 4 + 8 * (4 + 8) == 112
    assert Historic().row_nbytes(5) == 16 + 5 * 12


def test_a_sequence_by_hand():
    """Three blocks of rank 20 and a tail of 512 tokens; two heads of 64."""
    block = 4 * (64 + 20 * 64 + 20 + 16 * 20) + 2 * 512 * 112
    assert block == 6736 + 114688
    tail = 512 * 2 * 64 * 2
    got = claim([20, 20, 20, 999], 2048, 2, 64)
    assert got == Claim(tail + 3 * block, tail + 3 * block // 2)
    assert got + got == Claim(2 * got.exact, 2 * got.projected)
    assert claim([], 767, 2, 64) == Claim(767 * 256, 767 * 256)
    with pytest.raises(ValueError, match="3 coded blocks"):
        claim([20, 20], 2048, 2, 64)


@pytest.mark.parametrize(("name", "tokens", "ratio"), RATIOS)
def test_printed_ratios_follow_from_the_formula(name, tokens, ratio):
    """At the implied rank, the claim is the printed ratio: the formula is the predecessor's."""
    [layer] = {x for x in shapes()[name].layers if x.kind == "full"}
    rank = implied_rank(ratio, tokens, layer.heads, layer.k_dim)
    assert 1 < rank < layer.k_dim
    base = Layer("full", layer.heads, layer.k_dim, 0).exact_nbytes(tokens)
    # Ranks are whole: of the two beside it, one gives more and one gives less.
    low, high = (
        base / claim([r] * Historic().blocks(tokens), tokens, layer.heads, layer.k_dim).projected
        for r in (int(rank) + 1, int(rank))
    )
    assert low - 0.005 <= ratio <= high + 0.005


@pytest.mark.parametrize("name", [n for n in shapes() if printed_stored(n)])
def test_what_was_stored_follows_from_what_was_projected(name):
    ratio = dict(printed_ratios(name))[8192]
    assert f"{stored_ratio(ratio, 8192):.2f}" == f"{printed_stored(name):.2f}"


def test_the_shapes_asked_for_are_there_with_the_printed_baselines():
    assert list(shapes()) == NAMED
    checked = 0
    for name, shape in shapes().items():
        for tokens, size in published(name):
            assert as_printed(shape.exact_nbytes(tokens), size) == size
            checked += 1
    assert checked == len(NAMED) - 1, "the predecessor never measured a Llama"


def test_a_shape_is_what_a_config_says():
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(
        num_hidden_layers=28, num_key_value_heads=8, head_dim=128, num_attention_heads=16
    )
    assert from_config(config).layers == shapes()["Qwen3-0.6B"].layers
    with pytest.raises(Unsupported, match=r"cache\.model\.kv"):
        from_config(
            transformers.Qwen3NextConfig(
                num_hidden_layers=2, layer_types=["linear_attention", "full_attention"]
            ),
            "mixed",
        )


def test_windows_hold_one_token_less_than_they_see():
    shape = Shape("", "", (Layer("sliding", 1, 8, 8, 512), Layer("full", 1, 8, 8)))
    assert shape.exact_nbytes(4096) == (511 + 4096) * 16 * 2
    assert shape.exact_nbytes(100, kind="sliding") == 100 * 32


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("skeleton", "skeleton:rank=24"),
        ("turbo:b=4", "turbo:b=4,rank=24"),
        ("turbo:b=2,share=1", "turbo:b=2,rank=24"),
    ],
)
def test_true_bytes_are_body_table_and_page_table(text, resolved):
    codec, done = parse_codec(text), parse_codec(resolved)
    body, table = page_layout(done, 64, 512).nbytes, table_layout(done, 64).nbytes
    assert true_page_nbytes(codec, 24, 64, 512) == body + table + 4
    assert true_page_nbytes(codec, 24, 64, 512, tables=False) == body + 4


def test_ranks_by_the_share_of_variance():
    rng = np.random.default_rng(5)
    axes = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    x = rng.standard_normal((4000, 8)) * np.sqrt([60, 25, 11, 2, 1, 0.5, 0.3, 0.2]) @ axes
    assert rank_of(x, 0.84) == 2
    assert rank_of(x, 0.95) == 3
    assert rank_of(x + 100, 0.95) == 3
    assert rank_of(np.ones((10, 8)), 0.95) == rank_of(x, 0.01) == 2
    heads = np.stack([x[:2000], x[2000:] @ np.roll(np.eye(8), 3, 0)]).astype(np.float32)
    preset = Historic(block=500, residual=100)
    pooled = pooled_ranks(heads, preset)
    assert len(pooled) == 3
    assert min(pooled) > 3, "heads in one basis need more of it"
