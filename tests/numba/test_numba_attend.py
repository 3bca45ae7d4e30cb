"""Attention of the numba backend: its vector loops, its threads, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from numba import njit

from kakeya_conformance import run_checks
from kakeya_conformance.attending import judge
from kakeya_conformance.oracle import Oracle
from kakeya_conformance.pagecases import Shape, call
from kakeya_conformance.tables import given
from kakeya_fast.numba_cpu import Backend, attend, narrow, rows, simd, translate, walked
from kakeya_ref.errors import Malformed, ShapeError, Unsupported, UsageError
from kakeya_ref.layout import page_layout

NUMBA, ORACLE = Backend(), Oracle()


def made(k="scalar:b=4", v="scalar:b=3", sizes=(64, 128), tokens=32, seed=0, **options):
    layouts = page_layout(k, sizes[0], tokens), page_layout(v, sizes[1], tokens)
    shape, known = Shape(**options), ()
    if k.startswith("query"):
        known = tuple(given("plausible", seed + h, 1, layouts[0]) for h in range(shape.heads))
    return call(ORACLE, np.random.default_rng(seed), layouts, shape, known)


@pytest.mark.parametrize("codec", ["scalar", "raw", "trellis", "query"])
def test_the_checks_of_the_suite(codec):
    """Rule: attend.error.mean"""
    assert run_checks(NUMBA, only="check_attend", codecs=[codec]).exit_code == 0


@pytest.mark.parametrize("b", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [64, 128, 192, 1024])
@pytest.mark.parametrize("tokens", [16, 48])
def test_whole_numbers_at_every_width_and_size(b, size, tokens):
    case = made(
        f"scalar:b={b}", f"scalar:b={b}", (size, size), tokens, pages=9, groups=3, queries=5
    )
    assert all(map(narrow.serves, case.layouts))
    judge(*case.run(NUMBA), case.ideal())


@pytest.mark.parametrize("b", [1, 2, 3])
@pytest.mark.parametrize("tokens", [16, 48])
def test_walks_at_every_width_and_size(b, tokens):
    case = made(f"trellis:b={b}", f"trellis:b={b}", (64, 192), tokens, pages=9, groups=3, queries=5)
    assert all(map(walked.serves, case.layouts))
    judge(*case.run(NUMBA), case.ideal())


@pytest.mark.parametrize("b", [1, 1.5, 2.3, 3, 5, 7])
@pytest.mark.parametrize("size", [8, 24, 64, 256])
def test_keys_beside_tables_at_every_width_and_size(b, size):
    """Rule: query.bits.greedy, query.attend.frame"""
    options = {"pages": 9, "groups": 3, "queries": 5, "frames": 4, "biased": True}
    case = made(f"query:b={b}", "trellis:b=2", (size, 64), 16, **options)
    judge(*case.run(NUMBA), case.ideal())


def test_tables_of_attention_are_those_of_the_call():
    """Rule: codec.table.given, attend.operand.fits"""
    case = made("query", "raw", pages=3, frames=2, heads=3)
    out, _ = case.run(NUMBA)
    beyond = replace(case, paged=replace(case.paged, frame=case.paged.frame + 2))
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] frames up to 1 are"):
        beyond.run(NUMBA)
    beyond = replace(case, k_pages=case.k_pages[:-1], v_pages=case.v_pages[:-1])
    beyond.paged.slots[:, :, -1] = len(beyond.k_pages)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] slots up to"):
        beyond.run(NUMBA)
    other, _ = replace(case, known=case.known[:1] * 3).run(NUMBA)
    assert np.array_equal(out[:, 0], other[:, 0])
    assert (out[:, 1:] != other[:, 1:]).any()
    for known, error in ((case.known[:2], ShapeError), ((None,) * 3, UsageError), ((), UsageError)):
        with pytest.raises(error, match=r"^\[(attend.operand.fits|codec.table.given)\]"):
            replace(case, known=known).run(NUMBA)
    swapped = replace(case, layouts=case.layouts[::-1], k_pages=case.v_pages, v_pages=case.k_pages)
    swapped = replace(swapped, q=np.zeros((*case.q.shape[:-1], 128), np.float32))
    with pytest.raises(Unsupported, match=r"^\[backend.codec.offered\]"):
        replace(swapped, known=()).run(NUMBA)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("size", [64, 192])
@pytest.mark.parametrize("b", [1, 2, 3])
def test_planes_are_translated_alike_by_both_loops(monkeypatch, b, size, paired):
    """Rule: trellis.window.shift, trellis.label.linear, trellis.table.values"""
    layout = page_layout(f"trellis:b={b}", size, 48)
    p = walked.plan(layout, paired)
    x = np.random.default_rng(b).integers(0, 1 << 64, layout.nbytes // 8, np.uint64)

    def run(own):
        out, state = np.zeros(24 * size, np.int16), np.zeros(own(translate.room)(p), np.uint64)
        own(translate.of_planes)(x, p, b, state, 20, 24, paired, out)
        return out

    fast = run(lambda f: f)
    places = simd.in_fours if paired else simd.place
    monkeypatch.setattr(translate, "AVX2", False)
    assert np.array_equal(fast, run(lambda f: f.py_func))
    # The same numbers as a decoder's, halves of a whole number aside.
    page = NUMBA.decode(x.view(np.uint8)[None], layout, basis="coefficients")[0, 20:44]
    token, i = np.ogrid[:24, :size]
    numbers = (fast[places.py_func(token, i, size)] + 0.5) * p.gain[x.view(np.uint8)[20:44, None]]
    step = p.gain[x.view(np.uint8)[20:44, None]]
    assert (np.abs(numbers - page) <= 0.5001 * step).all()


def test_bits_are_translated_alike_by_both_loops(monkeypatch):
    """Rule: query.row.bits, trellis.window.shift, trellis.label.linear"""
    layout, tokens = page_layout("query:b=3.5", 64, 32), 24
    width = np.arange(7, -1, -1)
    p = walked._plan(layout, width[None], np.zeros((0, 0), np.int64))
    assert p.row == 28
    x = np.random.default_rng(1).integers(0, 1 << 64, p.nbytes // 8 + 2, np.uint64)

    def run(own):
        out, state = np.full(tokens * 64, 9, np.int16), np.ones(translate.room(p), np.uint64)
        own(translate.of_bits)(x, p, width, state, p.codes + 4 * p.row, tokens, out)
        return out

    fast = run(lambda f: f)
    monkeypatch.setattr(translate, "AVX2", False)
    assert np.array_equal(fast, run(lambda f: f.py_func))
    token, i = np.ogrid[:tokens, :64]
    found = fast[simd.place.py_func(token, i, 64)]
    assert (found[:, 56:] == 9).all()
    for band, n in enumerate(width[:7]):
        assert 1 < len(np.unique(found[:, 8 * band : 8 * band + 8])) <= 8 << n


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_whole_numbers_of_walks_are_their_own_negatives(n):
    """Rule: trellis.table.values, scalar.table.lloyd-max"""
    layout = page_layout("query:b=7", 8, 16)
    p = walked._plan(layout, np.array([[n]]), np.zeros((0, 0), np.int64))
    tables = p.tables[p.start[n] : p.start[n + 1]].astype(np.uint16)
    numbers = (tables[:, :16] | tables[:, 32:48] << 8).astype(np.int16).ravel()
    assert len(numbers) == (8 << n if n <= 3 else 1 << n)
    assert np.array_equal(numbers, ~numbers[::-1])


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("codec", ["scalar:b=3", "scalar:b=4"])
def test_vector_loops_give_what_plain_loops_give(monkeypatch, codec, paired):
    if not simd.AVX2:
        pytest.skip("this processor has the plain loops only")
    rng, size, tokens, count = np.random.default_rng(1), 64, 8, 3
    layout = page_layout(codec, size, 16)
    page = np.frombuffer(rng.bytes(layout.nbytes), np.uint64)
    p = narrow.plan(layout, paired)
    q = rng.integers(-5000, 5000, count * size).astype(np.int16)
    weights = rng.integers(0, 16384, count * tokens).astype(np.int16)
    factor = rng.random(count).astype(np.float32)

    unit, gains = rng.random(count).astype(np.float32), rng.random(16).astype(np.float32)
    more = 1e6 * rng.random(count).astype(np.float32)

    def run(own):
        numbers = np.zeros(tokens * size, np.int16)
        sums, acc = np.zeros((count, 16), np.float32), np.ones(count * size, np.float32)
        own(simd.look_up)(page, p.fields, p.table, 4, tokens, size, paired, numbers)
        own(simd.dots)(numbers, q, more, unit, gains, size, 4, tokens, sums)
        own(simd.mix)(numbers, weights, factor, more, size, count, tokens, acc)
        return numbers, sums, acc.reshape(count, -1)

    fast = run(lambda f: f)
    order = simd.order(size, paired)
    monkeypatch.setattr(simd, "AVX2", False)
    with np.errstate(over="ignore"):
        plain = run(lambda f: f.py_func)
    assert np.array_equal(simd.order(size, paired), np.arange(size))
    if paired:
        pairs = [x[0].reshape(tokens // 2, size, 2) for x in (fast, plain)]
        assert np.array_equal(pairs[0], pairs[1][:, order])
        np.testing.assert_allclose(fast[2], plain[2][:, order], rtol=1e-6)
    else:
        places = simd.place.py_func(*np.ogrid[:tokens, :size], size)
        assert np.array_equal(np.sort(places.ravel()), np.arange(tokens * size))
        assert np.array_equal(fast[0][places], plain[0][places][:, order])
        # The sums of the plain order, with queries in that order, are the same whole numbers.
        again, sums = q.reshape(count, size)[:, order].ravel(), np.zeros_like(fast[1])
        simd.dots(fast[0], again, more, unit, gains, size, 4, tokens, sums)
        assert (plain[1][:, 4 : 4 + tokens] != 0).all()
        np.testing.assert_allclose(sums, plain[1], rtol=1e-6)


def test_sums_in_fours_are_those_of_plain_loops(monkeypatch):
    rng, size, tokens, count = np.random.default_rng(1), 96, 24, 3
    x = rng.integers(-2047, 2047, tokens * size).astype(np.int16)
    weights = rng.integers(0, 16384, count * tokens).astype(np.int16)
    factor, more = rng.random((2, count)).astype(np.float32)

    def run(own):
        acc = np.ones(count * size, np.float32)
        own(simd.mix_fours)(x, weights, factor, 1e6 * more, size, count, tokens, acc)
        return acc.reshape(count, size)

    fast = run(lambda f: f)
    token, i = np.ogrid[:tokens, :size]
    numbers = x[simd.in_fours.py_func(token, i, size)].astype(np.float64)
    sums = weights.reshape(count, tokens) @ numbers + 1e6 * more[:, None]
    np.testing.assert_allclose(fast, 1 + factor[:, None] * sums, rtol=1e-6)
    monkeypatch.setattr(simd, "AVX2", False)
    np.testing.assert_allclose(fast, run(lambda f: f.py_func), rtol=1e-6)


@pytest.mark.parametrize("count", [16, 48])
def test_vector_loops_over_a_row(count):
    """Rule: attend.softmax"""
    rng = np.random.default_rng(count)
    x = np.zeros((3, count), np.float32)
    x[1] = rng.standard_normal(count) * 40
    before, top = x[1].astype(np.float64), 2 * (x[1].max() - 0.25)

    @njit
    def run(x, gains, out, top):
        most = rows.scaled(x, count, count, np.float32(2), np.float32(-0.25))
        total = rows.exponentials(x, count, count, top)
        kept = x[1].copy()
        large = rows.largest(x, count, count, gains, 16)
        whole = rows.wholes(x, count, count, np.float32(1000) / large, out, 8)
        return most, total, kept, large, whole

    gains = rng.random(16 + count).astype(np.float32)
    out = np.full(16 + count, 7, np.int16)
    most, total, kept, large, whole = run(x, gains, out, np.float32(top))
    assert most == np.float32(top)
    want = np.exp(2 * (before - 0.25) - top)
    np.testing.assert_allclose(kept, want, rtol=2e-5, atol=1e-37)
    assert (kept[want < np.exp(-88)] == 0).all()
    assert (want < np.exp(-88)).any()
    np.testing.assert_allclose(total, kept.sum(), rtol=1e-6)
    np.testing.assert_allclose(large, (kept * gains[16:]).max(), rtol=1e-6)
    np.testing.assert_allclose(out[8:-8], kept * gains[16:] * 1000 / large, atol=0.501)
    assert whole == out[8:-8].sum()
    assert (out[:8] == 7).all()
    assert (out[-8:] == 7).all()
    assert (x[0] == 0).all()
    assert (x[2] == 0).all()


def test_threads_change_rounding_only():
    """Rule: attend.merge"""
    case = made(pages=70, ragged=False)
    before = numba.get_num_threads()
    found = []
    for n in range(1, before + 1):
        numba.set_num_threads(n)
        found.append(case.run(NUMBA))
    numba.set_num_threads(before)
    for out, lse in found:
        np.testing.assert_allclose(out, found[0][0], atol=2e-6)
        np.testing.assert_allclose(lse, found[0][1], atol=2e-6)


@pytest.mark.parametrize("items", [1, 3, 8, 24])
@pytest.mark.parametrize("workers", [1, 2, 8, 60])
def test_pieces_keep_all_workers_busy_and_are_few(items, workers):
    """Rule: attend.memory.bounded"""
    for pages in (1, 40, 5000):
        most = max(1, pages // attend.GRAIN)
        pieces = attend._pieces(items, most, workers)
        assert 1 <= pieces <= min(most, workers)
        assert items * pieces % workers == 0 or pieces == most


def test_tensors_and_strided_pools():
    case = made()
    wide = np.zeros((len(case.k_pages), case.k_pages.shape[1] + case.v_pages.shape[1]), np.uint8)
    k, v = np.split(wide, [case.k_pages.shape[1]], axis=1)
    k[:], v[:] = case.k_pages, case.v_pages
    out, lse = replace(case, k_pages=k, v_pages=v).run(NUMBA)
    judge(out, lse, case.ideal())
    tensors = [torch.from_numpy(x) for x in (case.q, k, v)]
    got = NUMBA.attend_tensor(*tensors, case.layouts, case.paged, case.scaling)
    for a, b in zip(got, (out, lse), strict=True):
        assert torch.equal(a, torch.from_numpy(b))


def test_a_page_that_no_encoder_wrote_is_refused():
    case = made("raw", "raw", (64, 64), pages=3, ragged=False)
    case.v_pages[case.paged.slots[0, 0, 1], 64:68] = 255
    with pytest.raises(Malformed, match=r"^\[raw.code.finite\]"):
        case.run(NUMBA)


def test_codecs_with_a_table_of_their_own_are_refused():
    layout = page_layout("skeleton:rank=8", 64, 32)
    assert "attend" not in NUMBA.supports(layout).features
    with pytest.raises(Unsupported, match=r"^\[backend.codec.offered\]"):
        replace(made(), layouts=(layout, layout), k_pages=np.zeros((99, layout.nbytes), np.uint8),
                v_pages=np.zeros((99, layout.nbytes), np.uint8)).run(NUMBA)  # fmt: skip


def test_queries_may_have_any_strides():
    """Rule: attend.operand.fits"""
    case = made("query", "trellis:b=3", (64, 64), 16, frames=2, pages=5)
    wide = np.zeros((*case.q.shape[:-1], 2 * case.q.shape[-1]), np.float32)
    wide[..., ::2] = case.q
    for q in (wide[..., ::2], np.asfortranarray(case.q), case.q[..., ::-1].copy()[..., ::-1]):
        for a, b in zip(replace(case, q=q).run(NUMBA), case.run(NUMBA), strict=True):
            assert np.array_equal(a, b)
