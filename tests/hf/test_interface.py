"""Registration: masks, bases, handles, and models that need the dense path."""

import logging

import pytest
import torch
from hf_tiny import VOCAB, cache, generate, llama, model, packed_layers, padded, prompt
from transformers import AttentionInterface, DynamicCache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

from kakeya_fast.hf.interface import attention_forward, register
from kakeya_ref.errors import Unsupported


def test_both_names_come_with_their_masks_once():
    register()
    register()
    # Others of ours may be there: what listens to a model while it is calibrated.
    names = list(AttentionInterface().valid_keys())
    assert [names.count(name) for name in ("kakeya_eager", "kakeya_sdpa")] == [1, 1]
    assert ALL_MASK_ATTENTION_FUNCTIONS["kakeya_sdpa"] is sdpa_mask
    assert ALL_MASK_ATTENTION_FUNCTIONS["kakeya_eager"] is eager_mask


@pytest.mark.parametrize("base", ["sdpa", "eager"])
def test_the_base_of_the_model_is_kept_and_logged(base, caplog):
    of = model("Llama", attn_implementation=base)
    inputs = padded(prompt(), [0, 12])
    expected = generate(of, inputs)
    with caplog.at_level(logging.INFO, "kakeya"):
        past = cache(of)
    assert of.config._attn_implementation == f"kakeya_{base}"
    assert f"was {base}" in caplog.text
    assert torch.equal(generate(of, inputs, past), expected)
    cache(of)
    assert of.config._attn_implementation == f"kakeya_{base}"


def test_no_cache_and_training_take_the_base():
    of = model("Llama")
    expected = of(prompt(), use_cache=False).logits
    cache(of)
    assert torch.equal(of(prompt(), use_cache=False).logits, expected)
    with torch.enable_grad():
        loss = of.train()(prompt(), labels=prompt(), use_cache=False).loss
        loss.backward()
    assert of.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


def test_a_lost_handle_is_loud():
    past = cache(of := model("Llama"))
    key, value = past.update(torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16), 0)
    assert key.shape == (1, 2, 5, 16)
    assert key.untyped_storage().nbytes() == 4
    attn = of.model.layers[0].self_attn
    with pytest.raises(Unsupported, match=r'^\[cache.attend.handle\].*attention="dense"'):
        attention_forward(attn, torch.randn(1, 4, 5, 16), key * 1.0, value, None, base="sdpa")


def test_an_implementation_set_later_is_loud():
    past = cache(of := model("Llama"))
    of.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="attention implementation was changed"):
        of(prompt(1, 9), past_key_values=past)


@pytest.mark.parametrize(
    "options",
    [{"dropout": 0.1}, {"position_bias": torch.zeros(1)}, {"is_causal": False}],
    ids=lambda o: next(iter(o)),
)
def test_options_that_packed_attention_lacks(options):
    """Rule: cache.attend.option"""
    past = cache(of := model("Llama"))
    key, value = past.update(torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16), 0)
    attn = of.model.layers[0].self_attn
    with pytest.raises(Unsupported, match=r"^\[cache\."):
        attention_forward(attn, torch.randn(1, 4, 5, 16), key, value, None, base="sdpa", **options)


def gptj():
    return model("GPTJ", hidden_size=64, rotary_dim=8)


@pytest.mark.parametrize("way", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 5}], ids=str)
def test_models_off_the_registry_get_the_dense_path(way, caplog):
    """Rule: cache.attend.logged"""
    of = gptj()
    before = of.config._attn_implementation
    with caplog.at_level(logging.WARNING, "kakeya"):
        past = cache(of)
    assert past.attention == "dense"
    assert "[cache.attend.logged] dense attention: GPTJForCausalLM" in caplog.text
    assert of.config._attn_implementation == before
    ids = prompt(1, 25).repeat(1, 3)
    assert torch.equal(generate(of, ids, past, **way), generate(of, ids, **way))
    for layer in packed_layers(past):
        assert layer.state.pages.used == 3
        assert layer.state.tail_k.shape[2] < 32


def test_packed_attention_is_not_forced_on_them():
    with pytest.raises(Unsupported, match=r"^\[cache.attend.handle\]"):
        cache(gptj(), attention="packed")


def test_dense_path_by_choice_equals_dynamic():
    past, inputs = cache(llama(), attention="dense"), padded(prompt(), [0, 9])
    plain = model("Llama")
    assert plain.config._attn_implementation == "sdpa"
    assert torch.equal(generate(llama(), inputs, past), generate(plain, inputs))
    assert past.attention == "dense"


def test_dense_and_packed_reading_agree_on_one_token():
    of = llama(torch.float64)
    packed, dense = cache(of, "scalar:b=4"), cache(of, "scalar:b=4", attention="dense")
    ids = prompt(2, 130)
    for at in range(0, 130):
        a = of(ids[:, at : at + 1], past_key_values=packed).logits
        b = of(ids[:, at : at + 1], past_key_values=dense).logits
    # One path rotates each cached token in float32, the other each query in float64.
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert a.shape == (2, 1, VOCAB)


def test_generate_without_a_cache_still_works_on_a_switched_model():
    of = model("Llama")
    expected = of.generate(prompt(), max_new_tokens=9, do_sample=False)
    cache(of)
    out = of.generate(prompt(), max_new_tokens=9, do_sample=False, return_dict_in_generate=True)
    assert torch.equal(out.sequences, expected)
    assert type(out.past_key_values) is DynamicCache
