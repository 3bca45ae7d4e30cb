"""With a lossless codec the packed cache generates exactly what DynamicCache generates."""

import copy

import pytest
import torch
from hf_tiny import cache, generate, llama, model, packed_layers, padded, prompt
from transformers import DynamicCache

WAYS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 40},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
    "beam-sampling": {"num_beams": 2, "do_sample": True},
    "sequences": {"num_return_sequences": 2, "do_sample": True},
    "chunked": {"prefill_chunk_size": 11},
}


@pytest.mark.parametrize("pads", [[0, 0], [9, 0], [3, 40], [70, 33]], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_raw_equals_dynamic(way, pads):
    inputs = padded(prompt(), pads)
    expected = generate(llama(), inputs, **WAYS[way])
    past = cache(llama())
    assert torch.equal(generate(llama(), inputs, past, **WAYS[way]), expected)
    assert all(layer.state.pages.used >= 2 for layer in packed_layers(past))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_raw_keeps_the_dtype_of_the_model(dtype):
    of, ids = llama(dtype), prompt(1)
    past = cache(of)
    out = of(ids, past_key_values=past)
    plain = DynamicCache()
    expected = of(ids, past_key_values=plain)
    size = {torch.float64: 4}.get(dtype, 2)
    state = past.layers[0].state
    assert state.layouts[0].nbytes == 32 * 16 * size
    assert state.tail_k.dtype == dtype
    assert torch.equal(past.layers[0].dense()[0].float(), plain.layers[0].keys.float())
    torch.testing.assert_close(out.logits, expected.logits, rtol=2e-2, atol=2e-2)


def test_extra_left_padding_changes_nothing():
    ids = prompt(1, 50)
    past = cache(llama(), "scalar:b=3")
    expected = generate(llama(), ids, past)[:, 50:]
    for extra in (1, 31, 32, 64):
        wide = torch.cat([torch.zeros(1, extra, dtype=torch.long), ids], 1)
        inputs = padded(wide, [extra])
        got = generate(llama(), inputs, cache(llama(), "scalar:b=3"))
        assert torch.equal(got[:, 50 + extra :], expected)


@pytest.mark.parametrize("codec", ["raw", "scalar:b=4"])
def test_prompt_lookup(codec):
    ids = prompt(1, 24).repeat(1, 3)
    # A lossy cache is compared with itself without drafting: a rollback must leave no trace.
    plain = None if codec == "raw" else cache(llama(), codec)
    expected = generate(llama(), ids, plain, new=90)
    past = cache(llama(), codec)
    assert torch.equal(generate(llama(), ids, past, new=90, prompt_lookup_num_tokens=10), expected)
    assert past.get_seq_length() == expected.shape[1] - 1


@pytest.mark.parametrize("codec", ["raw", "scalar:b=4"])
@pytest.mark.parametrize("seed", [0, 5], ids=["same assistant", "other assistant"])
def test_assisted_decoding(codec, seed):
    ids = prompt(1, 40)
    plain = None if codec == "raw" else cache(llama(), codec)
    expected = generate(llama(), ids, plain, new=70)
    past = cache(llama(), codec)
    got = generate(llama(), ids, past, new=70, assistant_model=model("Llama", seed=seed))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("codec", ["raw", "scalar:b=4"])
def test_continue_a_filled_cache(codec):
    past = cache(llama(), codec)
    first = generate(llama(), prompt(2, 41), past, new=20)
    longer = torch.cat([first, prompt(2, 37, seed=3)], 1)
    got = generate(llama(), longer, past, new=20)
    whole = cache(llama(), codec) if codec != "raw" else None
    assert torch.equal(got, generate(llama(), longer, whole, new=20))


def test_reset_and_reuse():
    past = cache(llama())
    generate(llama(), prompt(3, 50, seed=9), past)
    past.reset()
    assert past.get_seq_length() == 0
    assert past.report().total == 0
    assert torch.equal(generate(llama(), prompt(), past), generate(llama(), prompt()))


def test_deepcopy_is_independent():
    past = cache(llama(), "scalar:b=4")
    ids = generate(llama(), prompt(), past, new=5)
    twin = copy.deepcopy(past)
    longer = torch.cat([ids, prompt(2, 40, seed=4)], 1)
    first = generate(llama(), longer, past)
    assert twin.get_seq_length() == ids.shape[1] - 1
    assert torch.equal(generate(llama(), longer, twin), first)


def test_batch_operations_follow_dynamic():
    ids = padded(prompt(3, 70), [0, 17, 44])
    past, plain = cache(llama()), DynamicCache()
    llama()(**ids, past_key_values=past)
    llama()(**ids, past_key_values=plain)
    steps = [
        lambda c: c.batch_repeat_interleave(2),
        lambda c: c.batch_select_indices(torch.tensor([5, 2, 3, 0])),
        lambda c: c.reorder_cache(torch.tensor([3, 3, 0, 1])),
        lambda c: c.batch_select_indices(torch.tensor([True, False, True, True])),
    ]
    mask = ids["attention_mask"].repeat_interleave(2, 0)[[5, 2, 3, 0]][[3, 3, 0, 1]][[0, 2, 3]]
    for step in steps:
        step(past)
        step(plain)
    assert past.batch_size == 3
    new = prompt(3, 9, seed=2)
    mask = torch.cat([mask, torch.ones_like(new)], 1)
    got = llama()(new, attention_mask=mask, past_key_values=past).logits
    expected = llama()(new, attention_mask=mask, past_key_values=plain).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_offload_and_prefetch_move_everything():
    past = cache(llama(), "scalar:b=4")
    generate(llama(), prompt(), past)
    before = past.report().total
    for layer in past.layers:
        state = layer.state
        layer.device = torch.device("meta")
        layer.prefetch()
        parts = (state.pages.bodies, state.tail_k, state.tail_v, state.sink_k, state.sink_v)
        assert {t.device.type for t in parts} == {"meta"}
    assert past.report().total == before


def test_offload_waits_for_the_attention_to_come(monkeypatch):
    past = cache(llama(), "scalar:b=4")
    update = past.update

    def update_and_leave(k, v, index, *args, **kwargs):
        out = update(k, v, index, *args, **kwargs)
        past.layers[index].offload()
        assert past.layers[index].leaving
        return out

    monkeypatch.setattr(past, "update", update_and_leave)
    got = generate(llama(), prompt(), past)
    assert torch.equal(got, generate(llama(), prompt(), cache(llama(), "scalar:b=4")))
    assert not any(layer.leaving for layer in past.layers)


def test_iteration_yields_what_dynamic_yields():
    inputs = padded(prompt(), [0, 20])
    past, plain = cache(llama()), DynamicCache()
    llama()(**inputs, past_key_values=past)
    llama()(**inputs, past_key_values=plain)
    assert len(past) == len(plain) == 2
    for (k, v, none), (pk, pv, _) in zip(past, plain, strict=True):
        assert none is None
        torch.testing.assert_close(k[0], pk[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(v[1, :, 20:], pv[1, :, 20:], rtol=1e-4, atol=1e-4)
    assert list(cache(llama())) == [(None, None, None)] * 2


def test_inference_mode_then_no_grad():
    past, inputs = cache(llama()), padded(prompt(), [0, 62])
    with torch.inference_mode():
        generate(llama(), inputs, past, new=1)
        past.reorder_cache(torch.tensor([1, 0]))
        past.crop(-1)
    swapped = {name: x[[1, 0]] for name, x in inputs.items()}
    got = generate(llama(), swapped, past)
    assert torch.equal(got, generate(llama(), swapped))
    assert past.layers[0].state.pages.count.tolist() == [1, 3]
