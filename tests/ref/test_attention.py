"""The reference of attention against a loop over queries and tokens, and what its rules say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kakeya_conformance.attending import bf16, ideal, judge
from kakeya_conformance.model import Nonconforming
from kakeya_ref import ReferenceBackend, ShapeError, page_layout
from kakeya_ref.attention import merge, partial
from kakeya_ref.types import Paged

REF = ReferenceBackend()
P, D, E = 16, 8, 16
LAYOUTS = page_layout("scalar:b=3", D, P), page_layout("raw", E, P)


class Case:
    """Two rows of two KV heads with short, absent and future pages, in three frames."""

    def __init__(self, groups=2, queries=3, frames=3, seed=0):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((40, P, D)).astype(np.float32)
        y = rng.standard_normal((40, P, E)).astype(np.float32)
        self.k, self.v = REF.encode(x, LAYOUTS[0]), REF.encode(y, LAYOUTS[1])
        self.keys = REF.decode(self.k, LAYOUTS[0], basis="coefficients").astype(float)
        self.values = REF.decode(self.v, LAYOUTS[1]).astype(float)
        slots = rng.permutation(40)[:20].reshape(2, 2, 5).astype(np.int32)
        slots[1, :, 4] = -1
        first = np.array([[4, 20, 36, 52, 60], [9, 25, 41, 57, 0]], np.int32)
        length = np.array([[16, 16, 16, 8, 16], [16, 16, 3, 16, 0]], np.int32)
        since = first + length
        since[0, 4], since[1, 3] = 76, 75
        self.paged = Paged(
            slots, first, length, since.astype(np.int32), np.array([75, 74]), queries,
            np.array([[0, 0, 1, 1, 2], [2, 1, 1, 0, 0]], np.int32),
        )  # fmt: skip
        self.q = rng.standard_normal((2, 2, frames, groups * queries, D)) * 2
        self.bias = rng.standard_normal((2, 2, frames, groups * queries))

    def run(self, **options):
        given = self.q, self.k, self.v, LAYOUTS, self.paged, 0.5
        return REF.attend(*given, bias=self.bias, **options)

    def slowly(self, softcap=None, window=None):
        """One number after the other, from the text."""
        out = np.zeros((*self.q.shape[:2], self.q.shape[3], E))
        lse = np.full(out.shape[:3], -np.inf)
        p = self.paged
        for b, h, m in np.ndindex(lse.shape):
            i = p.origin[b] + m % p.queries
            logits, values = [], []
            for n in range(5):
                if p.slots[b, h, n] < 0 or i < p.since[b, n]:
                    continue
                f = p.frame[b, n]
                for t in range(p.length[b, n]):
                    place = p.first[b, n] + t
                    if place > i or (window and place <= i - window):
                        continue
                    key = self.keys[p.slots[b, h, n], t]
                    logit = 0.5 * (self.q[b, h, f, m] @ key + self.bias[b, h, f, m])
                    logits.append(softcap * np.tanh(logit / softcap) if softcap else logit)
                    values.append(self.values[p.slots[b, h, n], t])
            if logits:
                weight = np.exp(logits)
                lse[b, h, m] = np.log(weight.sum())
                out[b, h, m] = weight @ np.array(values) / weight.sum()
        return out, lse


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 17, 40])
def test_the_reference_is_the_text(softcap, window):
    """Rule: attend.logit, attend.visible.page, attend.visible.window, attend.basis.once"""
    case = Case()
    got, wanted = case.run(softcap=softcap, window=window), case.slowly(softcap, window)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-9)


def test_a_query_that_sees_nothing_gets_nothing():
    """Rule: attend.visible.none, attend.softmax"""
    out, lse = Case().run(window=1)
    assert not out[0, :, 0].any()
    assert (lse[0, :, 0] == -np.inf).all()
    huge = partial(np.array([[1e6, 1e6 - 1]]), np.eye(2))
    np.testing.assert_allclose(huge[1], 1e6 + np.log1p(np.exp(-1)), rtol=1e-12)
    np.testing.assert_allclose(huge[0].sum(), 1)


def test_rows_do_not_see_each_other_nor_unused_slots():
    """Rule: attend.row.independent, attend.input.untouched"""
    case = Case()
    before = case.k.copy(), case.q.copy()
    whole = case.run()
    assert np.array_equal(before[0], case.k)
    assert np.array_equal(before[1], case.q)
    unused = np.setdiff1d(np.arange(40), case.paged.slots)
    case.k[unused], case.v[unused] = 255, 7
    case.q[:, :, :, 1] = 9
    again = case.run()
    for a, b in zip(whole, again, strict=True):
        assert np.array_equal(np.delete(a, 1, 2), np.delete(b, 1, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_partials_merge_in_any_cut(sizes, seed):
    """Rule: attend.merge, attend.sink.learned"""
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    logits = rng.standard_normal((2, 3, total)) * rng.choice([0.1, 30])
    logits[rng.random(logits.shape) < 0.3] = -np.inf
    v, sink = rng.standard_normal((2, total, 5)), rng.standard_normal((2, 3))
    cuts = np.cumsum(sizes)[:-1]
    parts = [
        partial(x, y) for x, y in zip(np.split(logits, cuts, -1), np.split(v, cuts, 1), strict=True)
    ]
    parts.append((np.full((2, 3, 5), np.nan), np.full((2, 3), -np.inf)))
    parts.append((np.zeros((2, 3, 5)), sink))
    with_sink = np.concatenate([logits, sink[..., None]], -1)
    wanted = partial(with_sink, np.concatenate([v, np.zeros((2, 1, 5))], 1))
    for got in (merge(parts), merge([merge(parts[:2]), *parts[2:]])):
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-9)


@pytest.mark.parametrize("name", ["slots", "first", "length", "since", "frame", "origin"])
def test_operands_that_do_not_fit_are_refused(name):
    """Rule: attend.operand.fits, attend.memory.bounded"""
    case = Case()
    wrong = replace(case.paged, **{name: getattr(case.paged, name)[:1]})
    with pytest.raises(ShapeError, match=rf"^\[attend.operand.fits\] {name}"):
        REF.attend(case.q, case.k, case.v, LAYOUTS, wrong, 0.5)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] queries"):
        REF.attend(case.q[..., :4], case.k, case.v, LAYOUTS, case.paged, 0.5)


def drawn(rng, scale, tokens=300, rows=(4, 8, 4)):
    q = rng.standard_normal((*rows[:2], rows[2], 64)) * scale
    k, v = rng.standard_normal((2, *rows[:2], tokens, 64))
    return q, k, v, np.ones((*rows, tokens), bool)


@pytest.mark.parametrize("scale", [0.01, 1, 10, 300])
@pytest.mark.parametrize("tokens", [1, 300])
def test_the_bound_holds_for_plain_bf16_and_leaves_no_room_for_less(scale, tokens):
    """Rule: attend.error.mean, attend.error.row, attend.error.lse"""
    q, k, v, seen = drawn(np.random.default_rng(3), scale, tokens)
    wanted = ideal(q, k, v, seen, 0.125)
    assert (wanted.plain <= wanted.bound).all()
    logits = 0.125 * bf16(q) @ bf16(k).swapaxes(-1, -2)
    out, lse = partial(logits, bf16(v))
    judge(bf16(out), lse, wanted)
    rough = partial(logits * (1 + 2**-6), v)
    if scale == 1 and tokens > 1:
        with pytest.raises(Nonconforming):
            judge(*rough, wanted)
    with pytest.raises(Nonconforming):
        judge(out * (1 + 2**-5), lse, wanted)
    with pytest.raises(Nonconforming):
        judge(out, lse + 1 + 30 * scale, wanted)


def test_fp32_needs_a_tenth_of_its_allowance():
    """Rule: attend.error.mean"""
    q, k, v, seen = drawn(np.random.default_rng(4), 1)
    wanted = ideal(q, k, v, seen, 0.125)
    q, k, v = (x.astype(np.float32) for x in (q, k, v))
    logits = q @ k.swapaxes(-1, -2) * np.float32(0.125)
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    off = np.linalg.norm(weight @ v / weight.sum(-1, keepdims=True) - wanted.out, axis=-1)
    assert (off < wanted.bound / 10240).all()
