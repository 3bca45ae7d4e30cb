"""Attention over packed pages: against the float64 ideal, and what must not matter."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from hypothesis import strategies as st

from kakeya_conformance import strategies
from kakeya_conformance.attending import judge
from kakeya_conformance.compare import outcome, want
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.pagecases import Shape, call, shapes
from kakeya_conformance.tables import given
from kakeya_conformance.trial import Trial
from kakeya_ref.attention import merge
from kakeya_ref.errors import ShapeError
from kakeya_ref.layout import page_layout

ERROR = ["attend.error.mean", "attend.error.row", "attend.error.lse"]
SEEN = ["attend.visible.page", "attend.visible.window", "attend.visible.none"]


@check(
    rules=["attend.logit", "attend.basis.once", "attend.softmax", *SEEN, *ERROR],
    level="quality",
    needs={"attend"},
    over="drawn",
)
def check_attend__is_near_the_ideal(t: Trial) -> None:
    """Any shape, any page table, any sharpness: the partial lies within its bounds."""
    layout = t.draw_layout()
    shape = t.draw(shapes(), "shape")
    rng = np.random.default_rng(t.draw(strategies.seeds(), "seed"))
    made = call(t.oracle, rng, (layout, layout), shape)
    judge(*made.run(t.backend), made.ideal())


@check(
    rules=["query.attend.frame", "attend.logit", *ERROR],
    level="quality",
    needs={"attend"},
    over="drawn",
    codecs=["query"],
)
def check_attend__keys_beside_tables(t: Trial) -> None:
    """Each head's pages are read beside its own table, and scored by the query of their frame."""
    layout = t.draw_layout()
    names = ("trellis", "scalar", "raw")
    others = [page_layout(name, layout.head_dim, layout.tokens) for name in names]
    offered = [x for x in others if "attend" in t.backend.supports(x).features]
    if not offered:
        raise NotApplicable(f"no attention over pages of {', '.join(names)}")
    shape = t.draw(shapes(), "shape")
    seed = t.draw(strategies.seeds(), "seed")
    known = tuple(given("plausible", seed + h, 1, layout) for h in range(shape.heads))
    values = t.draw(st.sampled_from(offered), "values")
    made = call(t.oracle, np.random.default_rng(seed), (layout, values), shape, known)
    judge(*made.run(t.backend), made.ideal())


@check(rules=[*ERROR, "attend.softmax"], level="quality", needs={"attend"})
def check_attend__long_contexts(t: Trial) -> None:
    """Over a thousand tokens and more, flat and peaked, the mean error is that of plain bf16."""
    pages = -(-1200 // t.layout.tokens)
    for sharp in (0.05, 1.0, 6.0):
        shape = Shape(2, 2, 8, 2, pages, sharp=sharp, ragged=False)
        made = call(t.oracle, t.rng(f"{sharp}"), (t.layout, t.layout), shape)
        judge(*made.run(t.backend), made.ideal())


@check(rules=["attend.merge"], level="quality", needs={"attend"})
def check_attend__halves_merge(t: Trial) -> None:
    """Partials of two halves of the pages merge to the partial of all."""
    made = call(t.oracle, t.rng(), (t.layout, t.layout), Shape(2, 2, 4, 4, 6, sharp=3.0))
    judge(*merge([made.half(True).run(t.backend), made.half(False).run(t.backend)]), made.ideal())


@check(rules=["attend.row.independent", "attend.input.untouched"], level="bits", needs={"attend"})
def check_attend__rows_do_not_see_each_other(t: Trial) -> None:
    """Other rows, other queries and unused slots change no bit; nothing is written to."""
    made = call(t.oracle, t.rng(), (t.layout, t.layout), Shape(2, 2, 2, 3, 5))
    q, k, v = made.q.copy(), made.k_pages.copy(), made.v_pages.copy()
    out, lse = made.run(t.backend)
    for before, now in ((q, made.q), (k, made.k_pages), (v, made.v_pages)):
        want(bool(np.array_equal(before, now)), "an operand was written to")
    q[1], q[0, :, :, 1] = 3.0, -2.0
    unused = np.setdiff1d(np.arange(len(k)), made.paged.slots[0])
    k[unused], v[unused] = k[made.paged.slots[0, 0, 0]], v[made.paged.slots[0, 0, 0]]
    again = replace(made, q=q, k_pages=k, v_pages=v).run(t.backend)
    rows = [m for m in range(q.shape[3]) if m != 1]
    for one, other in zip((out, lse), again, strict=True):
        want(np.array_equal(one[0][:, rows], other[0][:, rows]), "rows depend on other rows")


@check(rules=["attend.operand.fits"], level="bits", needs={"attend"})
def check_attend__refuses_what_does_not_fit(t: Trial) -> None:
    """A page table of another shape, queries of another size, and slots outside of the pool."""
    made = call(t.oracle, t.rng(), (t.layout, t.layout), Shape())
    p = made.paged
    beyond = np.full_like(p.slots, len(made.k_pages))
    wrong = [
        replace(made, q=made.q[..., :-1]),
        replace(made, paged=replace(p, first=p.first[:, :-1])),
        replace(made, paged=replace(p, origin=p.origin[:1])),
        replace(made, k_pages=made.k_pages[:, :-1]),
        replace(made, paged=replace(p, slots=beyond)),
    ]
    for each in wrong:
        got = outcome(partial(each.run, t.backend))
        named = isinstance(got, ShapeError) and got.rule == "attend.operand.fits"
        want(named, f"want ShapeError [attend.operand.fits], got {got!r}")
