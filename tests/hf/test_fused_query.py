"""Decode steps over keys in frames read pages in place, as over any others."""

from __future__ import annotations

import logging

import hf_tiny as tiny
import numpy as np
import pytest
import torch

from kakeya_conformance.attending import ideal, judge
from kakeya_fast.hf import build_kakeya_cache, framed, fused
from kakeya_fast.hf.calibrate import statistics, tables
from kakeya_fast.numba_cpu import Backend
from kakeya_ref.types import Paged

SIZE, CUTS = 64, [100, 1, 8, 1, 90, 3, 1, 1, 5]


@pytest.fixture(scope="module")
def known():
    """A model with keys of 64 numbers, and tables for it by frame length."""
    model = tiny.model("Llama", head_dim=SIZE, seed=3)
    ids = [row.tolist() for row in tiny.prompt(3, 128, seed=5)]
    found = statistics(model, ids)
    return model, {f: tables(model, found, frame=f, context=512) for f in (1, 16, 48)}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Runs of a few frames each merge as those of many do, and are turned as many are."""
    monkeypatch.setattr(framed, "FRAMES", 3)
    monkeypatch.setattr(framed, "NUMBERS", 0)
    monkeypatch.setattr(framed, "FEW", 2)


def layer(known, frame=16, v="trellis:b=2", k="query:b=3", **options):
    model, of = known
    options = {"page_tokens": 16, "backend": "numba", "sinks": 3} | options
    return build_kakeya_cache(model, f"{k},f={frame}", v, tables=of[frame], **options).layers[0]


def fill(past, pads=(0,), cuts=CUTS, crops=(), window=None, move=0, kind="bool", **options):
    """Outputs of every piece of random tokens."""
    torch.manual_seed(3)
    rows, out, total = len(pads), [], 0
    for n, new in enumerate(cuts):
        total = past.state.length + new if n else new
        places = torch.arange(total - new, total) - torch.tensor(pads)[:, None] + move
        k, v = torch.randn(2, rows, 2, new, SIZE).unbind(0)
        past.update(k, v)
        q = torch.arange(total - new, total)[:, None]
        mask = (torch.arange(total) <= q).expand(rows, 1, new, total).clone()
        if window:
            mask &= torch.arange(total) > q - window
        for row, pad in enumerate(pads):
            mask[row, :, :, :pad] = False
        q = torch.randn(rows, 4, new, SIZE) * 2
        given = None if kind == "none" else mask
        out.append(past.attend(q, given, 0.125, places=places, **options))
        if n in crops:
            past.crop(-21)
    return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "none", "move": 5000},
        {"pads": (5, 0, 40)},
        {"pads": (0, 3), "crops": (1, 4)},
        {"softcap": 3.0, "s_aux": torch.tensor([0.5, -1, 2, 0])},
    ],
    ids=str,
)
@pytest.mark.parametrize("frame", [16, 48])
def test_reading_in_place_is_reading_by_tiles(seen, known, frame, options):
    """Rule: query.attend.frame, cache.attend.fused"""
    calls, refuse = seen
    mine = fill(layer(known, frame), **options)
    assert [c is not None for c in calls] == [n <= 8 for n in CUTS]
    refuse.append(True)
    for a, b in zip(mine, fill(layer(known, frame), **options), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-2)


def test_a_backend_that_does_not_merge_and_recent_tokens(seen, known, monkeypatch):
    """Rule: attend.merge, cache.read.recent-exact"""
    calls, refuse = seen
    monkeypatch.setattr(Backend, "merges", False)
    mine = fill(layer(known, residual=25), pads=(4, 0))
    assert calls == [None] * len(CUTS)
    refuse.append(True)
    for a, b in zip(mine, fill(layer(known, residual=25), pads=(4, 0)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("k", "v"), [("query:b=2.5", "scalar:b=4"), ("query:b=7", "raw")])
def test_a_partial_is_near_the_ideal(known, monkeypatch, k, v):
    """Rule: attend.error.mean, attend.error.row, query.attend.frame"""
    monkeypatch.setattr(framed, "FRAMES", 2)
    past = layer(known, 48, v, k)
    fill(past, (0, 30), move=900)
    store, scaling = past.state.pages, 0.125
    q = torch.randn(2, 2, 64, SIZE, generator=torch.Generator().manual_seed(1)) * 3
    table = store.block_table()
    end = np.full(2, past.state.length)
    paged = Paged(table.slots, table.first, table.length, table.first + table.length, end, 1)
    out, lse = fused.over_pages(Backend(), store, q, paged, scaling)
    y, values = (store.decode(0, store.used, s, Backend(), "coefficients") for s in (0, 1))
    wide = store.tables.queries(q.double(), torch.from_numpy(store.frames(0, store.used)))
    turned, bias = (x.repeat_interleave(16, 2).transpose(2, 3).numpy() for x in wide)
    there = np.repeat(np.arange(store.used) < store.count[:, None], 16, 1)[:, None, None]
    seen = np.broadcast_to(there, bias.shape)
    judge(out.numpy(), lse.numpy(), ideal(turned, y, values, seen, scaling, bias=bias))


def test_frames_of_a_token_and_means_are_read_by_tiles_and_said(seen, known, caplog):
    """Rule: cache.attend.logged"""
    calls, _ = seen
    fused._said.clear()
    with caplog.at_level(logging.WARNING, "kakeya"):
        fill(layer(known, 1), cuts=[60, 1])
        past = build_kakeya_cache(known[0], "scalar", "scalar", center=True, backend="numba")
        fill(past.layers[0], cuts=[90, 1])
    assert calls == [None] * 4
    assert "has a frame of its own" in caplog.text
    assert "means of their own" in caplog.text


@torch.no_grad()
def test_generate_reads_in_place(seen, known):
    calls, refuse = seen
    model, of = known
    inputs = tiny.padded(tiny.prompt(2, 60), [0, 9])

    def past():
        how = {"tables": of[16], "page_tokens": 16, "backend": "numba"}
        return build_kakeya_cache(model, "query:b=7,f=16", "raw", **how)

    mine = tiny.generate(model, inputs, past(), 30)
    assert sum(c is not None for c in calls) == 2 * 29
    refuse.append(True)
    assert torch.equal(mine, tiny.generate(model, inputs, past(), 30))
