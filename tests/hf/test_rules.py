"""What the bytes may depend on: the tokens of the row, and nothing else."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hf_tiny import cache, llama, model, packed_layers, padded, page_bytes, prompt

LOSSY = "scalar:b=4"
TOKENS = 201


def fill(past, inputs, cuts):
    """Run the model over the tokens, cut into calls at these places; the last logits."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    bounds = [0, *cuts, ids.shape[1]]
    for a, b in pairwise(bounds):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, a:b]
        out = llama(torch.float64)(
            ids[:, a:b],
            attention_mask=mask[:, :b],
            position_ids=positions,
            past_key_values=past,
        )
    return out.logits[:, -1]


# In float64 the model's own rounding (1e-16) is far below the codec's input rounding (6e-8), so
# equal bytes are a fair demand; in float32 the matrix products alone would differ between cuts.
@pytest.mark.parametrize(
    "cuts",
    [[1], [4], [36], [37], [100, 101], [3, 5, 90], list(range(10, 200, 10)), list(range(1, 201))],
    ids=lambda cuts: f"{len(cuts)} cuts from {cuts[0]}",
)
def test_chunked_prefill_is_one_shot_prefill_to_the_byte(cuts):
    """Rule: cache.append.causal, cache.read.own-page-exact"""
    inputs = padded(prompt(1, TOKENS), [0])
    one, many = cache(llama(torch.float64), LOSSY), cache(llama(torch.float64), LOSSY)
    expected, got = fill(one, inputs, []), fill(many, inputs, cuts)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    for a, b in zip(one.layers, many.layers, strict=True):
        assert len(page_bytes(a, 0)) == (TOKENS - 4) // 32 * 2 * 2 * (32 + 32 * 16 // 2)
        assert page_bytes(a, 0) == page_bytes(b, 0)
        torch.testing.assert_close(a.state.tail_k, b.state.tail_k, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cuts", [[], [7, 40, 41, 150], list(range(25, 200, 25))], ids=str)
def test_rows_are_as_if_alone(cuts):
    """Rule: cache.row.independent, cache.row.start"""
    ids, pads = prompt(4, TOKENS), [0, 17, 64, 190]
    inputs = padded(ids, pads)
    past = cache(llama(torch.float64), LOSSY)
    together = fill(past, inputs, cuts)
    for row, pad in enumerate(pads):
        alone = cache(llama(torch.float64), LOSSY)
        single = padded(ids[row : row + 1, pad:], [0])
        expected = fill(alone, single, [])
        torch.testing.assert_close(together[row], expected[0], rtol=1e-9, atol=1e-9)
        for a, b in zip(past.layers, alone.layers, strict=True):
            assert a.state.starts[row] == pad
            assert page_bytes(a, row) == page_bytes(b, 0)
            sinks = min(4, TOKENS - pad)
            torch.testing.assert_close(
                a.state.sink_v[row, :, :sinks], b.state.sink_v[0, :, :sinks], rtol=1e-9, atol=1e-9
            )


def test_packed_bytes_never_change():
    """Rule: cache.page.never-reencoded"""
    past = cache(llama(), LOSSY)
    seen = [b"", b""]
    for step in range(6):
        llama()(prompt(1, 29, seed=step), past_key_values=past)
        for index, layer in enumerate(packed_layers(past)):
            now = page_bytes(layer, 0)
            assert now.startswith(seen[index])
            seen[index] = now
    assert all(seen)


def test_the_tail_is_shorter_than_a_page_and_the_sinks_are_exact():
    past, plain = cache(llama(), "int:b=1"), cache(llama(), "raw")
    for length in (1, 3, 32, 36, 5):
        llama()(prompt(2, length, seed=length), past_key_values=past)
        llama()(prompt(2, length, seed=length), past_key_values=plain)
        state = past.layers[0].state
        assert state.tail_k.shape[2] < 32
    # Layer 0 sees no attention output: its keys are the same whatever the codec.
    assert torch.equal(state.sink_k, plain.layers[0].dense()[0][:, :, :4])
    assert torch.equal(state.tail_v, plain.layers[0].dense()[1][:, :, 4 + 2 * 32 :])
    assert not torch.equal(past.layers[0].dense()[0], plain.layers[0].dense()[0])


def test_crop_inside_the_tail_leaves_no_trace():
    past, plain = cache(llama(), LOSSY), cache(llama(), LOSSY)
    llama()(prompt(1, 60), past_key_values=past)
    past.crop(-10)
    llama()(prompt(1, 60)[:, :50], past_key_values=plain)
    assert past.get_seq_length() == 50
    for a, b in zip(past.layers, plain.layers, strict=True):
        assert page_bytes(a, 0) == page_bytes(b, 0)
        torch.testing.assert_close(a.state.tail_k, b.state.tail_k, rtol=1e-4, atol=1e-4)


def test_crop_inside_a_page_keeps_its_bytes_and_shortens_it():
    """Rule: cache.crop.short-page"""
    past = cache(llama(), LOSSY)
    llama()(prompt(1, 4 + 3 * 32 + 5), past_key_values=past)
    layer = past.layers[0]
    before, dense = page_bytes(layer, 0), layer.dense()
    past.crop(-(5 + 32 + 12))
    assert layer.state.length == 4 + 32 + 20
    assert page_bytes(layer, 0) == before[: len(before) // 3 * 2]
    assert layer.state.pages.length.tolist() == [[32, 20]]
    for now, then in zip(layer.dense(), dense, strict=True):
        assert torch.equal(now, then[:, :, :56])
    # New tokens begin a page of their own, and attention still sees every token once.
    llama()(prompt(1, 40, seed=2), past_key_values=past)
    assert layer.state.pages.first.tolist() == [[4, 36, 56]]
    assert layer.state.pages.length.tolist() == [[32, 20, 32]]
    assert page_bytes(layer, 0).startswith(before[: len(before) // 3 * 2])


def test_generation_after_short_pages_reads_what_the_cache_holds():
    past, plain = cache(llama(), "raw"), cache(llama(), "raw")
    ids = prompt(2, 150)
    llama()(ids, past_key_values=past)
    past.crop(-61)
    past.crop(-1)
    out = llama()(prompt(2, 77, seed=8), past_key_values=past).logits
    whole = torch.cat([ids[:, :88], prompt(2, 77, seed=8)], 1)
    expected = llama()(whole, past_key_values=plain).logits[:, 88:]
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    past.crop(-1000)
    assert past.get_seq_length() == 0
    again = llama()(whole, past_key_values=past).logits[:, 88:]
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)


def test_a_short_page_at_the_end_of_the_cache():
    past, plain = cache(llama(), "raw"), cache(llama(), "raw")
    inputs = padded(prompt(2, 150), [0, 11])
    llama()(**inputs, past_key_values=past)
    past.crop(-30)
    new = prompt(2, 3, seed=8)
    whole = torch.cat([inputs["input_ids"][:, :120], new], 1)
    mask = torch.cat([inputs["attention_mask"][:, :120], torch.ones_like(new)], 1)
    for layer in past.layers:
        assert layer.state.pages.length[0].tolist() == [32, 32, 32, 20]
    out = llama()(new, attention_mask=mask, past_key_values=past).logits
    expected = llama()(whole, attention_mask=mask, past_key_values=plain).logits
    torch.testing.assert_close(out, expected[:, 120:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("drop", [1, 12, 33, 70, 130])
def test_recorded_crop_is_as_if_the_tokens_never_came(drop):
    """Rule: cache.crop.recorded"""
    of = llama(torch.float64)
    past, plain = cache(of, LOSSY), cache(of, LOSSY)
    past.activate_past_recording()
    ids = prompt(1, 170)
    of(ids[:, :90], past_key_values=past)
    past.crop(0)
    of(torch.cat([ids[:, 90:110], prompt(1, drop, seed=5)], 1), past_key_values=past)
    past.crop(-drop)
    of(ids[:, 110:], past_key_values=past)
    past.crop(0)
    of(ids, past_key_values=plain)
    for a, b in zip(past.layers, plain.layers, strict=True):
        assert page_bytes(a, 0) == page_bytes(b, 0)
        assert np.array_equal(a.state.pages.first, b.state.pages.first)
        assert a.state.tail_k.shape == b.state.tail_k.shape


def test_recording_holds_a_bounded_number_of_exact_tokens():
    past = cache(llama(), LOSSY)
    past.activate_past_recording()
    llama()(prompt(1, 900), past_key_values=past)
    # A crop of 256 tokens may land on the last token of a page.
    assert past.layers[0].state.tail_k.shape[2] == 256 + 31
    past.crop(-3)
    assert past.layers[0].state.tail_k.shape[2] == (900 - 3 - 4) % 32
    past.layers[0].record_past = past.layers[1].record_past = False
    llama()(prompt(1, 100), past_key_values=past)
    assert past.layers[0].state.tail_k.shape[2] < 32


def test_update_without_attention_is_packed_later():
    past = cache(llama(), LOSSY)
    llama()(prompt(1, 10), past_key_values=past)
    layer = past.layers[0]
    torch.manual_seed(3)
    for _ in range(5):
        k = torch.randn(1, 2, 30, 16)
        layer.update(k, k)
    assert layer.state.pages.used == (10 + 4 * 30 - 4) // 32
    layer.attend(torch.randn(1, 4, 30, 16), None, 1.0)
    assert layer.state.pages.used == (10 + 5 * 30 - 4) // 32
    assert layer.state.tail_k.shape[2] < 32


@pytest.mark.parametrize("codec", ["raw", "fp8", "int:b=4,g=16", "scalar:b=3", "d4", "e8"])
def test_every_codec_decodes_near_what_came(codec):
    of = model("Llama", num_hidden_layers=1)
    past, plain = cache(of, codec), cache(of, "raw")
    of(prompt(2, 140), past_key_values=past)
    of(prompt(2, 140), past_key_values=plain)
    for got, expected in zip(past.layers[0].dense(), plain.layers[0].dense(), strict=True):
        error = ((got - expected).square().mean() / expected.square().mean()).item()
        assert error <= {"raw": 0, "scalar:b=3": 0.06}.get(codec, 0.02)
        assert (error == 0) == (codec == "raw")
