"""Tables beside pages: given, whole, finite; one for all pages or one each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.compare import refuses, same_bytes, want
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.tables import build, given, numbers_of, pick
from kakeya_conformance.trial import Trial
from kakeya_ref.errors import Malformed, ShapeError, UsageError
from kakeya_ref.layout import table_layout
from kakeya_ref.skeletons import Skeleton, table_rank, table_store

TABLED = ["skeleton", "turbo", "query"]
Call = Callable[..., NDArray[Any]]


def _calls(t: Trial, n: int) -> Iterator[Call]:
    """Decoding ``n`` pages, and encoding them where that is offered; tables are the argument."""
    x = t.some(n=n)
    body = t.reference_pages(x)
    yield lambda **beside: t.backend.decode(body, t.layout, **beside)
    if "encode" in t.backend.supports(t.layout).features:
        yield lambda **beside: t.backend.encode(x, t.layout, **beside)


def _encodes(t: Trial) -> bool:
    return "encode" in t.backend.supports(t.layout).features


@check(rules=["codec.table.given"], level="bits", needs={"decode"}, codecs=TABLED)
def check_table__must_be_given(t: Trial) -> None:
    """Without tables, or with something else in their place, a call is a UsageError.

    Tables of the call before are no tables of this one.
    """
    known = given("plausible", t.seed, 1, t.layout)
    bodies = known.bodies
    for call in _calls(t, 2):
        call(tables=known)
        with refuses(UsageError, "codec.table.given"):
            call()
        for wrong in (None, bodies, (bodies, None), bodies.tobytes()):
            with refuses(UsageError, "codec.table.given"):
                call(tables=wrong)


@check(rules=["codec.table.shape"], level="bits", needs={"decode"}, codecs=TABLED)
def check_table__must_fit(t: Trial) -> None:
    """Bodies of another length, type or number are Malformed; another analysis a ShapeError."""
    bodies = given("plausible", t.seed, 1, t.layout).bodies
    longer = np.concatenate([bodies, np.zeros((1, 1), np.uint8)], axis=1)
    twice, none = np.repeat(bodies, 2, axis=0), bodies[:0]
    odd: tuple[Any, ...] = (
        bodies[:, :-1],
        longer,
        bodies[0],
        bodies[None],
        bodies.view(np.int8),
        twice,
        none,
    )
    for call in _calls(t, 3):
        for wrong in odd:
            with refuses(Malformed, "codec.table.shape"):
                call(tables=Skeleton(wrong))
    if not _encodes(t):
        return
    rank = table_rank(t.layout.codec, t.layout.head_dim)
    rows = np.zeros((1, rank, t.layout.head_dim), np.float32)
    other: list[Any] = [rows[0], rows[..., :-1], rows[:, :-1], np.repeat(rows, 2, axis=0)]
    for analysis in (*other, rows.astype(np.float64), rows.astype(np.float16)):
        with refuses(ShapeError, "codec.table.shape"):
            t.encode(t.some(n=3), tables=Skeleton(bodies, analysis))


@check(rules=["codec.table.finite"], level="bits", needs={"decode"}, codecs=TABLED)
def check_table__must_be_finite(t: Trial) -> None:
    """A NaN or an infinity in any plane of any page's table is refused as Malformed."""
    narrow = table_store(t.layout.codec) == "f16"
    endless = (0x7C00, 0xFC00, 0x7C01) if narrow else (0x7F80, 0xFF80, 0x7FC1)
    known = given("plausible", t.seed, 2, t.layout)
    for call in _calls(t, 2):
        for plane in table_layout(t.layout.codec, t.layout.head_dim).planes:
            for at in (plane.offset, plane.offset + plane.nbytes - 2):
                for value in endless:
                    bodies = known.bodies.copy()
                    bodies[1, at : at + 2] = (value & 255, value >> 8)
                    for some in (bodies, bodies[1:]):
                        with refuses(Malformed, "codec.table.finite"):
                            call(tables=Skeleton(some))


@check(rules=["turbo.levels.ascending"], level="bits", needs={"decode"}, codecs=["turbo"])
def check_table__levels_must_not_descend(t: Trial) -> None:
    """Descending levels are refused as Malformed; equal ones are not, and read as they stand."""
    if t.layout.codec["levels"] == "normal":
        raise NotApplicable("the table of this layout has no levels")
    part, _ = next(numbers_of(given("plausible", t.seed, 1, t.layout), t.layout, 1))
    count = len(part.levels)
    last = np.arange(count, dtype=np.float32)
    last[-1] = last[-2] - np.float32(1)
    for wrong in (part.levels[::-1], last):
        beside = build(t.layout, [vars(part) | {"levels": wrong}])
        for call in _calls(t, 2):
            with refuses(Malformed, "turbo.levels.ascending"):
                call(tables=beside)
    for level in (np.full(count, 0.5), np.sort(part.levels[np.arange(count) // 2 * 2])):
        beside = build(t.layout, [vars(part) | {"levels": level}])
        t.agree_decode(t.reference_pages(t.some(), tables=beside), tables=beside)
        if _encodes(t):
            t.agree_encode(t.some(), tables=beside)


@check(
    rules=["codec.table.given", "encode.batch.independent", "decode.bytes.only"],
    level="bits",
    needs={"decode"},
    codecs=TABLED,
)
def check_table__each_page_has_its_own(t: Trial) -> None:
    """With a table for each page: together, backwards and alone, each page uses its own."""
    known, x = given("metric", t.seed, 3, t.layout), t.some(n=3)
    body = t.reference_pages(x, tables=known)
    t.agree_decode(body, tables=known)
    together, back = t.decode(body, tables=known), list(range(3))[::-1]
    t.agree_vectors(t.decode(body[::-1], tables=pick(known, back)), together[::-1])
    for i in range(3):
        t.agree_vectors(t.decode(body[[i]], tables=pick(known, [i])), together[[i]])
    if not _encodes(t):
        return
    t.agree_encode(x, tables=known)
    body = t.encode(x, tables=known)
    same_bytes(t.encode(x[::-1], tables=pick(known, back)), body[::-1], t.layout)
    for i in range(3):
        same_bytes(t.encode(x[[i]], tables=pick(known, [i])), body[[i]], t.layout)


@check(rules=["codec.table.given"], level="bits", needs={"decode"}, codecs=TABLED)
def check_table__one_serves_all_pages(t: Trial) -> None:
    """One table, and the same table once for each page, give the same."""
    one = given("metric", t.seed, 1, t.layout)
    analysis = None if one.analysis is None else np.repeat(one.analysis, 3, axis=0)
    each = Skeleton(np.repeat(one.bodies, 3, axis=0), analysis)
    body = t.reference_pages(t.some(n=3), tables=one)
    t.agree_vectors(t.decode(body, tables=each), t.decode(body, tables=one))
    if _encodes(t):
        x = t.some(n=3)
        same_bytes(t.encode(x, tables=each), t.encode(x, tables=one), t.layout)


@check(
    rules=[
        "skeleton.encode.project",
        "turbo.encode.project",
        "query.encode.project",
        "skeleton.decode.synthesis",
        "turbo.decode.synthesis",
        "query.decode.synthesis",
        "decode.bytes.only",
    ],
    level="bits",
    needs={"encode", "decode"},
    codecs=TABLED,
)
def check_table__analysis_encodes_and_basis_decodes(t: Trial) -> None:
    """The analysis takes the place of the basis in an encoder, and is nothing to a decoder."""
    part, _ = next(numbers_of(given("plausible", t.seed, 1, t.layout), t.layout, 1))
    halved = vars(part) | {"basis": part.basis * np.float32(0.5)}
    plain, other = build(t.layout, [vars(part)]), build(t.layout, [halved])
    beside = Skeleton(other.bodies, part.basis[None])
    x = t.some()
    body = t.encode(x, tables=plain)
    same_bytes(t.encode(x, tables=beside), body, t.layout)
    want((t.encode(x, tables=other) != body).any(), f"{t.layout}: the basis does not matter")
    t.agree_vectors(t.decode(body, tables=beside), t.decode(body, tables=other))


@check(rules=["page.padding.zero"], level="bits", needs={"decode"}, codecs=TABLED)
def check_table__padding_is_not_read(t: Trial) -> None:
    """What stands in the padding of a table changes nothing."""
    known = given("plausible", t.seed, 1, t.layout)
    unused = np.ones(known.bodies.shape[1], dtype=bool)
    for plane in table_layout(t.layout.codec, t.layout.head_dim).planes:
        unused[plane.offset : plane.offset + plane.nbytes] = False
    if not unused.any():
        raise NotApplicable("the table of this layout has no padding")
    dirty = np.where(unused, np.uint8(0xFF), known.bodies)
    for call in _calls(t, 2):
        clean = call(tables=known)
        want(np.array_equal(call(tables=Skeleton(dirty)), clean), f"{t.layout}: padding is read")


@check(rules=["encode.input.strided"], level="bits", needs={"decode"}, codecs=TABLED)
def check_table__reads_any_strides(t: Trial) -> None:
    """Table bodies and analysis of any strides and memory order are read right."""
    known, x = given("metric", t.seed, 3, t.layout), t.some(n=3)
    wide = np.full((3, known.bodies.shape[1] + 5), 0xFF, dtype=np.uint8)
    wide[:, 2:-3] = known.bodies
    every = np.repeat(known.bodies, 2, axis=0)[::2]
    rows = known.analysis
    body = t.reference_pages(x, tables=known)
    plain = t.decode(body, tables=known)
    for bodies in (wide[:, 2:-3], every, np.asfortranarray(known.bodies)):
        t.agree_vectors(t.decode(body, tables=Skeleton(bodies, rows)), plain)
    if not _encodes(t) or rows is None:
        return
    body = t.encode(x, tables=known)
    for view in (np.asfortranarray(rows), np.repeat(rows, 2, axis=2)[..., ::2]):
        same_bytes(t.encode(x, tables=Skeleton(wide[:, 2:-3], view)), body, t.layout)
