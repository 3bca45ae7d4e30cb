"""Attention over packed pages against the float64 ideal: on a GPU, and through the host build.

Codes and scale bytes are drawn, not encoded: every byte of these codecs means something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hostlaunch import HostLauncher

from kakeya_conformance.attending import ideal, judge
from kakeya_conformance.tables import given
from kakeya_fast.cuda import attend_plan, attend_values
from kakeya_fast.cuda.attend import Attention
from kakeya_ref.attention import visible
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import ShapeError, Unsupported, UsageError
from kakeya_ref.layout import page_layout
from kakeya_ref.types import Paged

REF = ReferenceBackend()


class Shape(NamedTuple):
    k: str = "scalar:b=3"
    v: str = "scalar:b=3"
    d: int = 128
    e: int = 128
    p: int = 32
    groups: int = 4
    queries: int = 1
    pages: int = 9
    batch: int = 2
    heads: int = 2
    softcap: float | None = None
    window: int | None = None
    bias: bool = False
    dtype: str = "bfloat16"
    size: float = 1.0
    frames: int = 0
    splits: int | None = None
    tuned: attend_plan.Tuning | None = None


SHAPES = {
    "plain": Shape(),
    "two-bits": Shape("scalar:b=2", "scalar:b=2", groups=8),
    "four-bits": Shape("scalar:b=4", "scalar:b=4", groups=8, dtype="float16"),
    "mixed-64": Shape("scalar:b=3", "scalar:b=2", 64, 64, 16, groups=1, pages=33),
    "mixed-64-rows": Shape("scalar:b=4", "scalar:b=3", 64, 64, 64, groups=4, queries=8),
    "long-pages": Shape("scalar:b=2", "scalar:b=4", 64, 64, 128, groups=5, queries=5, pages=3),
    "wide": Shape("scalar:b=3", "scalar:b=4", 256, 256, 32, groups=2, queries=4, splits=1),
    "wide-four": Shape("scalar:b=4", "scalar:b=3", 256, 256, 48, groups=1, queries=8, pages=5),
    "speculative": Shape(groups=8, queries=8, splits=2),
    "uneven": Shape("scalar:b=2", "scalar:b=3", 256, 64, 16, groups=3, queries=2),
    "softcap": Shape(softcap=3.0, bias=True, dtype="float32"),
    "window": Shape(window=70, queries=3, pages=12),
    "peaked": Shape(size=20.0, groups=8, pages=16),
    "flat": Shape(size=1e-3, groups=8, pages=16),
    "one-page": Shape(pages=1, splits=3),
    "looked-up": Shape(tuned=attend_plan.Tuning(8, 2, 1, 1, 1), groups=8),
    "keys-looked-up": Shape(
        "scalar:b=2", "scalar:b=3", 256, 256, tuned=attend_plan.Tuning(4, 2, 1, 1)
    ),
    "two-looked-up": Shape("scalar:b=2", "scalar:b=2", tuned=attend_plan.Tuning(4, 2, 1, 1, 1)),
    "two-looked-up-64": Shape(
        "scalar:b=2", "scalar:b=2", 64, 64, tuned=attend_plan.Tuning(4, 2, 1, 1, 1)
    ),
    "walks": Shape("trellis:b=2", "trellis:b=2", groups=8),
    "walks-64": Shape("scalar:b=3", "trellis:b=2", 64, 64, 64, pages=5),
    "walks-of-keys": Shape("trellis:b=2", "scalar:b=2", 64, 64, 16),
    "walks-256": Shape("trellis:b=2", "trellis:b=2", 256, 256),
    # 64 query rows and more: the mean error is judged as well.
    "walks-of-three": Shape("trellis:b=3", "trellis:b=3", groups=16),
    "walks-of-three-64": Shape("scalar:b=2", "trellis:b=3", 64, 64, 16, groups=16, pages=5),
    "walks-of-three-256": Shape("trellis:b=3", "trellis:b=3", 256, 256, 64, groups=16, pages=3),
    "walks-of-four": Shape("trellis:b=4", "trellis:b=4", groups=16),
    "walks-of-four-64": Shape("trellis:b=4", "trellis:b=4", 64, 64, 16, groups=16, pages=5),
    "walks-of-four-256": Shape("trellis:b=2", "trellis:b=4", 256, 256, groups=16, pages=3),
    "frames": Shape(frames=3, groups=16, bias=True),
    "frames-64": Shape(
        "scalar:b=2", "trellis:b=3", 64, 64, 16, frames=9, groups=6, queries=3, window=70
    ),
    "calibrated": Shape("query:b=3", "trellis:b=3", frames=9, bias=True, groups=8, queries=2),
    "calibrated-64": Shape("query:b=2", "trellis:b=2", 64, 64, frames=5, bias=True, groups=17),
    "calibrated-odd-rows": Shape(
        "query:b=2.2", "scalar:b=3", 64, 64, 16, frames=4, bias=True, groups=8, queries=3
    ),
    "calibrated-256": Shape(
        "query:b=2.5", "trellis:b=4", 256, 256, frames=4, bias=True, groups=16, pages=4
    ),
    "calibrated-wide-codes": Shape(
        "query:b=6.5", "scalar:b=4", 64, 64, frames=2, groups=16, softcap=5.0
    ),
    "calibrated-unframed": Shape("query:b=4", "scalar:b=2", bias=True, groups=16),
    "two-stages": Shape(tuned=attend_plan.Tuning(4, 2, 2), pages=40),
    "many-splits": Shape(tuned=attend_plan.Tuning(16, 2, 1, 1, 0), pages=40, splits=19),
}


class Case:
    """Drawn pages of a shape, with short, absent and future ones, and their queries."""

    def __init__(self, shape: Shape, launcher, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        s, self.shape, self.launcher = shape, shape, launcher
        self.layouts = page_layout(s.k, s.d, s.p), page_layout(s.v, s.e, s.p)
        slots = s.batch * s.heads * s.pages + 3
        self.bodies = [
            rng.integers(0, 256, (slots, layout.nbytes), np.uint8) for layout in self.layouts
        ]
        for body in self.bodies:
            body[:, : s.p] = rng.normal(124, 4, (slots, s.p)).astype(np.uint8)
            body[:, 5] = 0
        table = rng.permutation(slots)[: slots - 3].reshape(s.batch, s.heads, s.pages)
        first = np.tile(np.arange(s.pages) * s.p + 4, (s.batch, 1)).astype(np.int32)
        length = np.full((s.batch, s.pages), s.p, np.int32)
        length[0, s.pages // 2] = s.p - 5
        since = first + length
        origin = np.array([s.pages * s.p + 4 - s.queries // 2 - 3 * b for b in range(s.batch)])
        if s.pages > 4:
            table[-1, :, 1] = -1
        self.paged = Paged(table.astype(np.int32), first, length, since, origin, s.queries)
        rows, frames = s.groups * s.queries, max(1, s.frames)
        if s.frames:
            frame = rng.integers(0, s.frames, (s.batch, s.pages), np.int32)
            self.paged = replace(self.paged, frame=frame)
        q = rng.standard_normal((s.batch, s.heads, frames, rows, s.d)).astype(np.float32) * s.size
        self.q = torch.from_numpy(q).to(getattr(torch, s.dtype))
        self.known = ()
        if s.k.startswith("query"):
            self.known = tuple(given("plausible", h, 1, self.layouts[0]) for h in range(s.heads))
        bias = rng.standard_normal((s.batch, s.heads, frames, rows)).astype(np.float32)
        self.bias = torch.from_numpy(bias) if s.bias else None

    def attention(self, **options) -> Attention:
        s = self.shape
        return Attention(
            self.launcher,
            self.layouts,
            batch=s.batch,
            heads=s.heads,
            rows=s.groups * s.queries,
            pages=s.pages + 2,
            **({"dtype": self.q.dtype} | {k: options.pop(k) for k in ("dtype",) if k in options}),
            softcap=s.softcap is not None,
            window=s.window is not None,
            bias=s.bias,
            **({"splits": s.splits, "tuned": s.tuned, "frames": s.frames} | options),
        )

    def given(self, paged: Paged | None = None) -> tuple:
        to = self.launcher.device
        p = paged or self.paged
        there = Paged(
            *(torch.from_numpy(x).to(to) for x in (p.slots, p.first, p.length, p.since, p.origin)),
            p.queries,
            None if p.frame is None else torch.from_numpy(p.frame).to(to),
        )
        k, v = (torch.from_numpy(x).to(to) for x in self.bodies)
        return self.q.to(to), k, v, there, self.shape.d**-0.5

    def options(self) -> dict:
        s = self.shape
        bias = None if self.bias is None else self.bias.to(self.launcher.device)
        options = {"softcap": s.softcap, "window": s.window, "bias": bias}
        if self.known:
            words = attend_values.bands(self.known, self.layouts[0]).view(np.int32)
            options["bands"] = torch.from_numpy(words).to(self.launcher.device)
        return options

    def ideal(self, paged: Paged | None = None):
        s, p = self.shape, paged or self.paged
        k = np.stack(
            [
                REF.decode(self.bodies[0], self.layouts[0], basis="coefficients", tables=table)
                for table in self.known or [None] * s.heads
            ]
        )
        v = REF.decode(self.bodies[1], self.layouts[1], basis="coefficients")
        index = p.origin[:, None] + np.arange(s.groups * s.queries) % s.queries
        seen = np.zeros((s.batch, s.heads, index.shape[1], s.pages, s.p), bool)
        for b, h, n in np.ndindex(s.batch, s.heads, s.pages):
            if p.slots[b, h, n] >= 0:
                seen[b, h, :, n] = visible(p, b, n, index[b], s.p, s.window)
        tokens = s.pages * s.p
        keys = k[np.arange(s.heads)[:, None], p.slots].reshape(s.batch, s.heads, tokens, -1)
        values = v[p.slots].reshape(s.batch, s.heads, tokens, -1)
        # Of the frame of each token.
        frame = np.zeros_like(p.first) if p.frame is None else p.frame
        at = np.arange(s.batch)[:, None], slice(None), np.repeat(frame, s.p, 1)
        q = self.q.double().numpy()[at].transpose(0, 2, 3, 1, 4)
        bias = 0.0 if self.bias is None else self.bias.double().numpy()[at].transpose(0, 2, 3, 1)
        return ideal(
            q,
            keys,
            values,
            seen.reshape(*seen.shape[:3], tokens),
            s.d**-0.5,
            s.softcap,
            bias,
        )


@pytest.fixture(params=["cpu", "cuda"])
def launcher(request):
    if request.param == "cpu":
        request.getfixturevalue("compiler")
        return HostLauncher()
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    from kakeya_fast.cuda.launch import CupyLauncher, cuda_device

    return CupyLauncher(cuda_device("cuda"))


@pytest.mark.parametrize("name", SHAPES)
def test_partials_lie_within_the_bounds(launcher, name) -> None:
    """Rule: attend.error.mean, attend.error.row, attend.error.lse, attend.logit,
    attend.visible.page, attend.visible.window, attend.visible.none, attend.softmax
    """
    case = Case(SHAPES[name], launcher)
    attention = case.attention()
    for _ in range(2):  # the second call finds what the first left behind
        out, lse = attention(*case.given(), **case.options())
        judge(out.cpu().numpy(), lse.cpu().numpy(), case.ideal())
    assert name != "speculative" or attention.groups == 4


def test_a_partial_over_other_tokens_is_merged(launcher) -> None:
    """Rule: attend.merge, attend.visible.none"""
    case = Case(Shape(batch=1), launcher)
    attention = case.attention()
    out, lse = attention(*case.given())
    other = torch.randn_like(out), lse + torch.randn_like(lse)
    other[1][0, 0, 0] = -torch.inf
    got = attention(*case.given(), other=other)
    weight = torch.softmax(torch.stack([lse, other[1]]), 0)[..., None]
    wanted = weight[0] * out + weight[1] * other[0]
    torch.testing.assert_close(got[0], wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[1], torch.logaddexp(lse, other[1]), rtol=1e-5, atol=1e-5)
    nothing = replace(case.paged, slots=np.full_like(case.paged.slots, -1))
    got = attention(*case.given(nothing), other=other)
    seen = torch.isfinite(other[1])
    torch.testing.assert_close(got[0][seen], other[0][seen], rtol=1e-6, atol=1e-6)
    assert not got[0][~seen].any()
    assert torch.equal(got[1][~seen], other[1][~seen])


def test_rows_of_fewer_pages_end_where_the_count_says(launcher) -> None:
    """Rule: attend.row.independent, attend.input.untouched"""
    case = Case(Shape(pages=12), launcher)
    count = torch.tensor([12, 7], dtype=torch.int32, device=launcher.device)
    q, k, v, paged, scaling = case.given()
    before = k.clone(), v.clone(), q.clone()
    out, lse = case.attention()(q, k, v, paged, scaling, count=count)
    for mine, theirs in zip((k, v, q), before, strict=True):
        assert torch.equal(mine, theirs)
    slots = case.paged.slots.copy()
    slots[1, :, 7:] = -1
    judge(out.cpu().numpy(), lse.cpu().numpy(), case.ideal(replace(case.paged, slots=slots)))


def test_what_does_not_fit_is_refused(launcher) -> None:
    """Rule: attend.operand.fits"""
    case = Case(Shape(), launcher)
    attention = case.attention()
    q, k, v, paged, scaling = case.given()
    for name in ("slots", "first", "length", "since", "origin"):
        wrong = replace(paged, **{name: getattr(paged, name)[:1]})
        with pytest.raises(ShapeError, match=rf"^\[attend.operand.fits\] {name}"):
            attention(q, k, v, wrong, scaling)
        wrong = replace(paged, **{name: getattr(paged, name).float()})
        with pytest.raises(ShapeError, match=rf"^\[attend.operand.fits\] {name}"):
            attention(q, k, v, wrong, scaling)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] q"):
        attention(q[..., :64], k, v, paged, scaling)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] pages of"):
        attention(q, k[:, :-16], v, paged, scaling)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] pages of"):
        attention(q, k.cpu().numpy(), v, paged, scaling)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] rows of pages"):
        attention(q, k.as_strided((9, k.shape[1]), (k.shape[1] + 8, 1)), v, paged, scaling)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] softcap"):
        attention(q, k, v, paged, scaling, softcap=2.0)
    biased = Case(SHAPES["softcap"], launcher)
    wrong = torch.zeros(3, device=launcher.device)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] bias"):
        biased.attention()(*biased.given(), softcap=3.0, bias=wrong)
    with pytest.raises(Unsupported, match=r"^\[attend.operand.fits\] no attention kernel"):
        Case(Shape("scalar:b=5"), launcher).attention()
    with pytest.raises(Unsupported, match=r"^\[attend.operand.fits\] no attention kernel"):
        Case(Shape(d=96, e=96), launcher).attention()


def test_shared_memory_is_reckoned_alike(compiler) -> None:
    from kakeya_fast.cuda import hostbuild

    for shape in SHAPES.values():
        layouts = page_layout(shape.k, shape.d, shape.p), page_layout(shape.v, shape.e, shape.p)
        rows = shape.groups * shape.queries
        tuned = attend_plan.tuning(layouts, rows)
        numbers = attend_plan.numbers(layouts, 0, rows, tuned)
        assert hostbuild.shared(numbers) == numbers.shared <= 227 * 1024


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_graph_follows_a_growing_context() -> None:
    """Rule: backend.graph.prepared"""
    from kakeya_fast.cuda.launch import CupyLauncher, cuda_device

    launcher = CupyLauncher(cuda_device("cuda"))
    case = Case(Shape(pages=24), launcher)
    attention = case.attention(splits=4)
    q, k, v, paged, scaling = case.given()
    count = torch.tensor([3, 5], dtype=torch.int32, device="cuda")
    out = torch.empty(*q.shape[:2], q.shape[3], 128, device="cuda")
    lse = torch.empty(out.shape[:3], device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attention(q, k, v, paged, scaling, count=count, out=out, lse=lse)
    for counts in ((3, 5), (24, 11), (1, 24)):
        count.copy_(torch.tensor(counts, dtype=torch.int32))
        graph.replay()
        slots = case.paged.slots.copy()
        for b, used in enumerate(counts):
            slots[b, :, used:] = -1
        judge(out.cpu().numpy(), lse.cpu().numpy(), case.ideal(replace(case.paged, slots=slots)))


def test_the_backend_keeps_one_object_for_each_kind_of_call(launcher) -> None:
    from kakeya_fast.cuda.backend import Backend

    case = Case(Shape(batch=1, pages=5), launcher)
    backend = Backend(launcher=launcher)
    assert "attend" in backend.supports(case.layouts[0]).features
    assert "attend" not in backend.supports(page_layout("raw", 128, 32)).features
    q, k, v, paged, scaling = case.given()
    out, lse = backend.attend_tensor(q, k, v, case.layouts, paged, scaling)
    judge(out.cpu().numpy(), lse.cpu().numpy(), case.ideal())
    arrays = case.q.float().numpy(), *case.bodies, case.layouts, case.paged, scaling
    again = backend.attend(*arrays, known=(None, None))
    np.testing.assert_allclose(again[0], out.cpu().numpy(), rtol=1e-4, atol=1e-4)
    ahead = backend.prepare_attend(case.layouts, (1, 2, 4), 6, q.dtype)
    assert ahead is backend.prepare_attend(case.layouts, (1, 2, 4), 8, q.dtype)
    assert ahead is not backend.prepare_attend(case.layouts, (1, 2, 4), 9, q.dtype)


def test_keys_beside_tables_want_tables(launcher) -> None:
    """Rule: codec.table.given, attend.operand.fits"""
    from kakeya_fast.cuda.backend import Backend

    case = Case(SHAPES["calibrated"], launcher)
    backend = Backend(launcher=launcher)
    assert "attend" in backend.supports(case.layouts[0]).features
    arrays = case.q.float().numpy(), *case.bodies, case.layouts, case.paged, 0.1
    bias = case.bias.numpy()
    out, _ = backend.attend(*arrays, bias=bias, known=(case.known, None))
    assert np.isfinite(out).all()
    with pytest.raises(UsageError, match=r"^\[codec.table.given\]"):
        backend.attend(*arrays, bias=bias)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] 1 tables for 2"):
        backend.attend(*arrays, bias=bias, known=(case.known[:1], None))
    beyond = replace(case.paged, frame=case.paged.frame + 9)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] frames"):
        backend.attend(*arrays[:4], beyond, 0.1, bias=bias, known=(case.known, None))
    values = case.layouts[0], case.layouts[0]
    with pytest.raises(Unsupported, match=r"^\[attend.operand.fits\] no attention kernel"):
        backend.prepare_attend(values, (2, 2, 16), 9, torch.float32)
    attention = case.attention(frames=3)
    with pytest.raises(ShapeError, match=r"^\[attend.operand.fits\] 9 frames, made for 3"):
        attention(*case.given(), **case.options())


@pytest.mark.usefixtures("compiler")
def test_the_suites_checks_of_attention_pass() -> None:
    """Any shape that the suite draws: frames, windows, soft caps, short and absent pages.

    Rule: attend.operand.fits, attend.row.independent, attend.basis.once
    """
    from kakeya_conformance.runner import run_checks
    from kakeya_fast.cuda.backend import Backend

    backend = Backend(launcher=HostLauncher())
    report = run_checks(backend, profile="quick", codecs=["scalar", "query"], only="attend")
    assert report.failures == []
    assert report.checks["check_attend__is_near_the_ideal"].passed == 15
    assert report.checks["check_attend__keys_beside_tables"].passed == 15
