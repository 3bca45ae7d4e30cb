"""Packed sliding-window layers against the library's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hf_tiny import cache, generate, model, packed_layers, padded, prompt
from transformers import DynamicCache

from kakeya_fast.hf import build_kakeya_cache
from kakeya_fast.hf.calibrate import statistics, tables
from kakeya_ref.errors import Unsupported, UsageError

WINDOW = 40


def gemma(dtype=torch.float32):
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return model("Gemma3", dtype, num_hidden_layers=3, sliding_window=WINDOW, layer_types=kinds)


def packed(of, codec="raw", **options):
    return cache(of, codec, **{"backend": "numba", "sliding": "pack", "page_tokens": 16} | options)


def sliding(past):
    return [x for x in packed_layers(past) if x.policy.window is not None]


@pytest.mark.parametrize("pads", [[0, 0], [0, 21]], ids=str)
@pytest.mark.parametrize("length", [20, 39, 40, 41, 130])
def test_generation_is_that_of_the_librarys_layers(pads, length):
    """Rule: cache.window.leave, cache.plan.library"""
    of = gemma()
    inputs = padded(prompt(2, length), [min(n, length - 2) for n in pads])
    expected = generate(of, inputs, new=70)
    past = packed(of)
    assert torch.equal(generate(of, inputs, past, 70), expected)
    assert len(packed_layers(past)) == 3
    assert len(sliding(past)) == 2


def test_pages_leave_and_their_bytes_are_freed():
    """Rule: cache.window.leave, rate.bytes.true"""
    of = gemma()
    past = packed(of, "scalar:b=4")
    held = []
    for step in range(30):
        of(prompt(1, 17, seed=step), past_key_values=past)
        of(prompt(1, 1, seed=step), past_key_values=past)
        state = sliding(past)[0].state
        # A window over pages, the page that begins before it, and what one step adds.
        assert state.pages.used <= (WINDOW + 17) // 16 + 2
        assert state.pages.first.min(initial=state.length) > state.length - 50 - WINDOW
        held.append(state.pages.bodies.untyped_storage().nbytes())
    assert max(held[10:]) == max(held[:10])
    layers = past.report().per_layer
    assert layers[0].total < layers[1].total / 3


@pytest.mark.parametrize("cuts", [[200], [1, 60, 3, 90, 46], [50] * 4], ids=str)
def test_chunks_of_any_size_read_the_same(cuts):
    of = gemma(torch.float64)
    plain = DynamicCache(config=of.config)
    past, coarse = packed(of, backend="torch"), packed(of, "scalar:b=8", backend="torch")
    ids, at = prompt(2, 200), 0
    for n in cuts:
        part = ids[:, at : at + n]
        expected = of(part, past_key_values=plain).logits
        # Raw pages of a float64 model hold float32.
        got = of(part, past_key_values=past).logits
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        near = of(part, past_key_values=coarse).logits
        assert (near - expected).square().mean() < 0.02 * expected.square().mean()
        at += n


def calibrated(of, frame):
    ids = [row.tolist() for row in prompt(3, 128, seed=5)]
    return tables(of, statistics(of, ids), frame=frame, context=512)


@pytest.mark.parametrize("frame", [1, 16, 48])
@pytest.mark.parametrize("pads", [[0, 0], [0, 21]], ids=str)
def test_calibrated_keys_leave_frame_by_frame(frame, pads):
    """Rule: cache.window.leave, query.frame.start"""
    of = gemma()
    known, inputs = calibrated(of, frame), padded(prompt(2, 260), pads)
    options = {"sliding": "pack", "page_tokens": 16, "backend": "numba"}
    past = build_kakeya_cache(of, f"query:b=7,f={frame}", "raw", tables=known, **options)
    want = of(**inputs).logits
    at = 0
    for n in (70, 1, 1, 88, 1, 8, 91):
        part = {"input_ids": inputs["input_ids"][:, at : at + n]}
        part["attention_mask"] = inputs["attention_mask"][:, : at + n]
        got, at = of(**part, past_key_values=past).logits, at + n
        # Padding itself may read anything.
        real = inputs["attention_mask"][:, at - n : at].bool()
        near = want[:, at - n : at][real]
        assert (got[real] - near).norm() < 0.03 * near.norm()
    state = sliding(past)[0].state
    assert 0 < state.left <= 260 - WINDOW
    # Whole frames have left.
    gone = (state.pages.first[0, 0] - 4) // 16
    assert gone > 0
    assert gone % max(1, frame // 16) == 0


def test_centred_keys_keep_their_mean_when_its_page_has_left():
    """Rule: cache.window.leave, cache.center.first-page"""
    of, ids = gemma(), prompt(1, 260)
    past = packed(of, "scalar:b=8", center=True)
    want = of(ids).logits
    for a, b in ((0, 150), (150, 151), (151, 260)):
        got = of(ids[:, a:b], past_key_values=past).logits
        assert (got - want[:, a:b]).norm() < 0.05 * want[:, a:b].norm()
    assert sliding(past)[0].state.left > 16 + 4


def test_coded_decode_steps_read_in_place_as_by_tiles(monkeypatch):
    """Rule: cache.attend.fused"""
    from kakeya_fast.hf import attention

    of = gemma()
    ids = prompt(2, 150)

    def run():
        past, out = packed(of, "scalar:b=4"), []
        for a, b in ((0, 100), (100, 101), (101, 109), (109, 110), (110, 150)):
            out.append(of(ids[:, a:b], past_key_values=past).logits)
        return out

    mine = run()
    monkeypatch.setattr(attention.fused, "usable", lambda *given: False)
    for a, b in zip(mine, run(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)


def test_a_crop_into_what_has_left_is_refused_whole():
    """Rule: cache.crop.window"""
    of = gemma()
    past = packed(of)
    for n in (150, 1):
        of(prompt(1, n), past_key_values=past)
    with pytest.raises(Unsupported, match=r"^\[cache.crop.window\]"):
        past.crop(-60)
    assert {x.get_seq_length() for x in past.layers} == {151}
    past.crop(-3)
    assert {x.get_seq_length() for x in past.layers} == {148}
    past.crop(-148)
    assert past.get_seq_length() == 0


def test_a_recorded_past_can_be_cropped():
    of = gemma()
    past, plain = packed(of), packed(of)
    for each in (past, plain):
        each.activate_past_recording()
    of(prompt(1, 400), past_key_values=past)
    for n in range(5):
        of(prompt(1, 30, seed=n), past_key_values=past)
    past.crop(-120)
    of(prompt(1, 400), past_key_values=plain)
    of(prompt(1, 30, seed=0), past_key_values=plain)
    a = of(prompt(1, 9, seed=8), past_key_values=past).logits
    b = of(prompt(1, 9, seed=8), past_key_values=plain).logits
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert past.layers[0].state.left > 0


def test_options_that_mean_nothing():
    """Rule: cache.option.range, cache.window.leave"""
    of = gemma()
    with pytest.raises(UsageError, match=r"^\[cache.option.range\] sliding"):
        packed(of, sliding="yes")
    for codec, options in (("skeleton", {}), ("raw", {"attention": "dense"})):
        with pytest.raises(Unsupported, match=r"^\[cache.window.leave\]"):
            packed(of, codec, **options)
    # Tables are checked for every layer that is packed.
    known = calibrated(of, 16)
    known = replace(known, layers={1: known.layers[1]})
    given = {"tables": known, "page_tokens": 16}
    assert packed_layers(build_kakeya_cache(of, "query:f=16", "raw", **given))
    with pytest.raises(UsageError, match=r"^\[query.tables.match\]"):
        build_kakeya_cache(of, "query:f=16", "raw", sliding="pack", **given)
    assert not sliding(cache(of, "raw"))
