"""Decode steps that read packed pages in place give what decoding them tile by tile gives."""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from hf_tiny import cache, generate, llama, model, padded, prompt

from kakeya_fast.hf import decode, fused
from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.policy import Policy
from kakeya_fast.numba_cpu import Backend
from kakeya_ref.registry import parse_codec


def fill(codec, size, cuts, pads, residual=0, crops=(), kind="bool", **options):
    """Outputs of every piece of random tokens."""
    torch.manual_seed(3)
    parsed = parse_codec(codec)
    past = PackedLayer(Policy(parsed, parsed, 3, 16, "numba", residual=residual))
    rows, out, total = len(pads), [], 0
    for n, new in enumerate(cuts):
        k, v = torch.randn(2, rows, 2, new, size).unbind(0)
        past.update(k, v)
        total = past.state.length
        q = torch.arange(total - new, total)
        mask = (torch.arange(total) <= q[:, None]).expand(rows, 1, new, total).clone()
        for row, pad in enumerate(pads):
            mask[row, :, :, :pad] = False
        if kind == "float":
            mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        if kind == "none":
            mask = None
        out.append(past.attend(torch.randn(rows, 6, new, size) * 2, mask, 0.2, **options))
        if n in crops:
            past.crop(-21)
    return out


@pytest.mark.parametrize("codec", ["raw", "scalar:b=4"])
@pytest.mark.parametrize(
    "options",
    [
        {"pads": [0]},
        {"pads": [0], "kind": "none"},
        {"pads": [5, 0, 40], "kind": "float"},
        {"pads": [5, 0], "residual": 25},
        {"pads": [0, 3], "crops": (1, 4)},
        {"pads": [0, 3], "softcap": 3.0, "s_aux": torch.tensor([0.5, -1, 2, 0, 1, 0])},
    ],
    ids=str,
)
def test_reading_in_place_is_reading_by_tiles(seen, codec, options):
    """Rule: cache.attend.fused, cache.read.recent-exact, cache.crop.short-page"""
    calls, refuse = seen
    cuts = [100, 1, 8, 1, 90, 3, 1, 1, 5]
    mine = fill(codec, 64, cuts, **options)
    read = [c is not None for c in calls]
    assert read == [n <= 8 for n in cuts]
    refuse.append(True)
    for a, b in zip(mine, fill(codec, 64, cuts, **options), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 if codec == "raw" else 4e-3)


def test_a_backend_that_does_not_merge_reads_in_place_as_well(seen, monkeypatch):
    """Rule: cache.attend.fused, attend.merge"""
    calls, _ = seen
    cuts, partials, inner = [100, 1, 8, 1], [], fused.partial
    mine = fill("scalar:b=4", 64, cuts, pads=[5, 0])
    calls.clear()
    monkeypatch.setattr(Backend, "merges", False)
    monkeypatch.setattr(fused, "partial", lambda *given: partials.append(inner(*given)))
    tiles = fill("scalar:b=4", 64, cuts, pads=[5, 0])
    monkeypatch.setattr(fused, "partial", inner)
    other = fill("scalar:b=4", 64, cuts, pads=[5, 0])
    assert calls == [None] * 8
    assert [x is not None for x in partials] == [n <= 8 for n in cuts]
    for a, b, c in zip(mine, other, tiles, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=4e-3)
        torch.testing.assert_close(b, c, rtol=0, atol=4e-3)


def test_generate_reads_in_place(seen):
    calls, _ = seen
    past = cache(llama(), "raw", backend="numba")
    inputs = padded(prompt(2, 60), [0, 9])
    assert torch.equal(generate(llama(), inputs, past, 45), generate(llama(), inputs, new=45))
    assert sum(c is not None for c in calls) == 2 * 44


def test_beams_and_selections_read_their_own_pages(seen):
    calls, _ = seen
    past, plain = cache(llama(), "raw", backend="numba"), None
    ids = prompt(2, 80)
    mine = generate(llama(), ids, past, 40, num_beams=3)
    assert torch.equal(mine, generate(llama(), ids, plain, 40, num_beams=3))
    assert any(c is not None for c in calls)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.masked_fill(torch.rand(m.shape) < 0.2, False), "a mask that is not causal"),
        (lambda m: torch.where(m, 0.5, torch.finfo(torch.float32).min), "not causal"),
        (lambda m: m.repeat(1, 4, 1, 1), "not causal"),
    ],
    ids=["holes", "added", "per head"],
)
def test_other_masks_are_read_by_tiles_and_said_once(seen, caplog, change, said):
    """Rule: cache.attend.logged"""
    calls, _ = seen
    fused._said.clear()
    parsed = parse_codec("raw")
    past = PackedLayer(Policy(parsed, parsed, 3, 16, "numba"))
    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING, "kakeya"):
        for a, b in pairwise([0, 70, 72, 74]):
            k = torch.randn(1, 2, b - a, 16)
            past.update(k, k)
            mask = torch.arange(b) <= torch.arange(a, b)[:, None]
            past.attend(torch.randn(1, 4, b - a, 16), change(mask[None, None]), 0.3)
    assert calls == [None] * 3
    told = [r for r in caplog.records if said in r.message]
    assert len(told) == 1
    assert told[0].message.startswith("[cache.attend.logged]")


def test_float64_and_backends_without_attention_are_said(seen, caplog):
    calls, _ = seen
    fused._said.clear()
    with caplog.at_level(logging.WARNING, "kakeya"):
        of = model("Llama", torch.float64)
        generate(of, prompt(1, 60), cache(of, "scalar:b=4", backend="numba"), 4)
        generate(llama(), prompt(1, 60), cache(llama(), "scalar:b=4", backend="torch"), 4)
    assert calls
    assert not any(c is not None for c in calls)
    assert "queries are float64" in caplog.text
    assert "has no attention" in caplog.text


def test_the_place_of_pages_is_worked_out_only_when_they_change():
    """Rule: rate.bytes.true"""
    past = cache(llama(), "raw", backend="numba")
    llama()(prompt(2, 70), past_key_values=past)
    store = past.layers[0].state.pages
    llama()(prompt(2, 1), past_key_values=past)
    table = store.block_table()
    assert table.slots.shape == (2, 2, 2)
    assert store.table_nbytes >= table.slots.nbytes + store.first.nbytes
    llama()(prompt(2, 1), past_key_values=past)
    assert store.block_table() is table
    past.crop(-20)
    after = store.block_table()
    assert after is not table
    assert np.array_equal(after.length, [[32, 16], [32, 16]])


def test_exact_tokens_by_the_library_or_without_it(monkeypatch, caplog):
    """Rule: attend.merge, cache.attend.logged"""
    made = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 3, n, 16, generator=made) for n in (4, 9, 9))
    calls = []

    def broken(*args, **options):
        calls.append(args)
        raise RuntimeError("no such thing")

    known = dict(decode._flash)
    monkeypatch.setattr(decode, "_flash", known)
    found = decode.exact(q, k, v, 0.25, None, None)
    known["cpu"] = broken, (torch.float32,)
    with caplog.at_level(logging.WARNING, "kakeya"):
        plain = [decode.exact(q, k, v, 0.25, None, None) for _ in range(2)]
    assert len(calls) == 1
    assert "no such thing" in caplog.text
    for each in plain:
        torch.testing.assert_close(each, found)
    wide = (q.double() @ k.double().transpose(2, 3) * 0.25).logsumexp(-1)
    torch.testing.assert_close(found[1].double(), wide, rtol=0, atol=1e-5)
