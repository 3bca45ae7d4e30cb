"""Keys coded less the mean of their first page. Rule: cache.center.first-page"""

from __future__ import annotations

import hf_tiny as tiny
import pytest
import torch

from kakeya_fast.hf import build_kakeya_cache
from kakeya_ref.errors import UsageError


def biased(scale: float):
    """A random Qwen2 whose key projections have a strong bias."""
    model = tiny.model("Qwen2", seed=11)
    make = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if name.endswith("k_proj.bias"):
            weight.data = scale * torch.randn(weight.shape, generator=make)
    return model


def cache(model, center: bool, k: str = "scalar:b=3", v: str = "raw"):
    return build_kakeya_cache(model, k=k, v=v, page_tokens=16, backend="torch", center=center)


@torch.no_grad()
def error(model, past, ids, cut: int = 40) -> float:
    """Relative error of the logits of all tokens, fed in pieces."""
    want = model(ids).logits
    cuts = range(0, ids.shape[1], cut)
    got = torch.cat([model(ids[:, a : a + cut], past_key_values=past).logits for a in cuts], 1)
    return float((got - want).norm() / want.norm())


def test_large_biases_do_not_ruin_keys() -> None:
    """Without the mean, scalar codes spend their levels on the bias; with it, on the keys."""
    model, ids = biased(60.0), tiny.prompt(2, 150, seed=4)
    plain, centred = (error(model, cache(model, c), ids) for c in (False, True))
    assert centred < 0.4 * plain
    unbiased = tiny.model("Qwen2", seed=11)
    without, with_mean = (error(unbiased, cache(unbiased, c), ids) for c in (False, True))
    assert with_mean < 1.3 * without


def test_the_mean_is_frozen_counted_and_causal() -> None:
    """It depends on the first page alone, and its bytes are those of the row."""
    model, ids = biased(20.0), tiny.prompt(2, 120, seed=4)
    past, short = (cache(model, True, "scalar:b=3", "scalar:b=3") for _ in "ab")
    error(model, past, ids)
    with torch.no_grad():
        model(ids[:, :21], past_key_values=short)
    one, other = past.layers[0].state.pages, short.layers[0].state.pages
    assert torch.equal(one.mean, other.mean)
    assert one.mean.any()
    layer = past.report().per_layer[0]
    assert layer.skeletons == one.mean.nbytes == 2 * 2 * 16 * 2
    assert torch.equal(one.bodies[:, :1], other.bodies[:, :1])


@pytest.mark.parametrize("cut", [1, 16, 120])
def test_reads_are_those_of_the_decoded_keys(cut: int) -> None:
    """However it was fed, and with raw pages the mean comes and goes."""
    model, ids = biased(5.0), tiny.prompt(2, 120, seed=4)
    assert error(model, cache(model, True, "raw"), ids, cut) < 1e-4


def test_rows_keep_their_means() -> None:
    """Selecting, repeating and cropping rows."""
    model, ids = biased(20.0), tiny.prompt(2, 100, seed=4)
    past = cache(model, True)
    with torch.no_grad():
        model(ids, past_key_values=past)
    store = past.layers[1].state.pages
    before = store.mean.clone()
    past.batch_select_indices(torch.tensor([1, 0, 1]))
    assert torch.equal(past.layers[1].state.pages.mean, before[[1, 0, 1]])
    past.crop(-30)
    assert error_free(model, past, ids[[1, 0, 1]], 70)


@torch.no_grad()
def error_free(model, past, ids, at: int) -> bool:
    got = model(ids[:, at:], past_key_values=past).logits
    want = model(ids).logits[:, at:]
    return bool((got - want).norm() < 0.5 * want.norm())


def test_codecs_with_tables_are_refused() -> None:
    """Rule: cache.center.option"""
    with pytest.raises(UsageError, match=r"\[cache.center.option\]"):
        build_kakeya_cache(biased(1.0), k="turbo", v="raw", center=True)
    with pytest.raises(UsageError, match=r"\[cache.center.option\]"):
        build_kakeya_cache(biased(1.0), k="scalar", v="raw", center=True, attention="dense")
