"""Reading: bytes in, coefficients and vectors out, or a named refusal."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from kakeya_conformance import ideal, pages, strategies
from kakeya_conformance.compare import refuses, same_floats, want, within_ulp
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.trial import Trial
from kakeya_ref.errors import KakeyaError, Malformed, UsageError
from kakeya_ref.types import Basis

PRODUCTS = [
    "raw.decode.exact",
    "fp8.decode.product",
    "int.decode.affine",
    "scalar.decode.product",
    "trellis.decode.product",
    "d4.decode.product",
    "e8.decode.product",
    "skeleton.decode.sum",
    "skeleton.decode.synthesis",
    "turbo.decode.product",
    "turbo.decode.sum",
    "turbo.decode.synthesis",
]
PLANES = [
    "page.plane.strided",
    "page.plane.split",
    "page.plane.aligned",
    "page.byte.little-endian",
    "page.header.none",
    "skeleton.page.layout",
    "turbo.page.layout",
    "skeleton.table.layout",
    "turbo.table.layout",
]
REFUSALS = [
    "raw.code.finite",
    "fp8.code.nan",
    "int.params.finite",
    "d4.index.range",
    "e8.index.range",
    "skeleton.seg.range",
    "skeleton.place.ascending",
    "skeleton.value.finite",
    "turbo.seg.range",
    "turbo.out.ascending",
    "turbo.value.finite",
]


@check(
    rules=[*PRODUCTS, "num.fp32.no-fma", "backend.profile.exact", "backend.profile.bounded"],
    level="bits",
    needs={"decode"},
    over="drawn",
)
def check_decode__legal_pages_agree(t: Trial) -> None:
    """Pages of legal fields decode to the reference's coefficients and vectors."""
    layout = t.draw_layout()
    seed = t.draw(strategies.seeds(), "fields")
    n = t.draw(strategies.page_counts(layout), "pages")
    fields = pages.random_fields(layout, n, np.random.default_rng(seed))
    t.agree_decode(pages.build(layout, fields), layout, t.draw_tables(layout, n))


@check(rules=[*REFUSALS, *PRODUCTS], level="bits", needs={"decode"}, over="drawn")
def check_decode__survives_any_bytes(t: Trial) -> None:
    """Any bytes of the right length are refused as Malformed, or decode as the reference does."""
    layout = t.draw_layout()
    body = t.draw(strategies.page_bytes(layout), "bytes")
    tables = t.draw_tables(layout, len(body))
    t.agree_decode(body, layout, tables)
    read = t.oracle.decode(body, layout, tables=tables)
    if not isinstance(read, KakeyaError):
        got = t.decode(body, layout, tables=tables)
        want(np.isfinite(got).all(), f"{layout}: decoded a NaN or infinity")


@check(rules=["page.length.exact", "backend.error.family"], level="bits", needs={"decode"})
def check_page__rejects_truncation(t: Trial) -> None:
    """A page cut at any byte is refused, as bytes and as an array."""
    body = t.reference_pages(t.some(n=1)).tobytes()
    for cut in range(1, len(body)):
        with refuses(Malformed, "page.length.exact"):
            t.decode(body[:cut])
    for cut in (0, 1, len(body) - 1):
        with refuses(Malformed, "page.length.exact"):
            t.decode(np.frombuffer(body[:cut], dtype=np.uint8)[None])


@check(rules=["page.length.exact"], level="bits", needs={"decode"})
def check_page__rejects_excess(t: Trial) -> None:
    """A page with bytes to spare is refused, be it one byte or all but one of a second page."""
    body = t.reference_pages(t.some(n=1)).tobytes()
    for more in (1, 2, 15, 16, len(body) - 1, len(body) + 1):
        with refuses(Malformed, "page.length.exact"):
            t.decode(body + bytes(more))
        wide = np.zeros((1, len(body) + more), dtype=np.uint8)
        with refuses(Malformed, "page.length.exact"):
            t.decode(wide)


@check(rules=["page.length.exact"], level="bits", needs={"decode"})
def check_page__rejects_other_arrays(t: Trial) -> None:
    """Pages are bytes or a two-dimensional uint8 array, nothing that merely has enough bytes."""
    body = t.reference_pages(t.some(n=1))
    others: list[Any] = [body[0], body[None], body.astype(np.int8), body.astype(np.float32)]
    for wrong in others:
        with refuses(Malformed, "page.length.exact"):
            t.decode(wrong)


@check(rules=PLANES, level="bits", needs={"decode"})
def check_page__fields_stand_where_the_layout_says(t: Trial) -> None:
    """Pages that the suite builds field by field from the layout are read right."""
    t.agree_decode(pages.build(t.layout, pages.random_fields(t.layout, 3, t.rng())))


@check(rules=["page.padding.zero"], level="bits", needs={"decode"})
def check_page__padding_is_not_read(t: Trial) -> None:
    """What stands in the padding between planes changes nothing."""
    fields = pages.random_fields(t.layout, 2, t.rng())
    clean = pages.build(t.layout, fields)
    dirty = pages.build(t.layout, fields, padding=0xA5)
    if np.array_equal(clean, dirty):
        raise NotApplicable("this layout has no padding")
    same_floats(t.decode(dirty), t.decode(clean), t.layout)


@check(rules=["page.padding.zero", "page.plane.aligned"], level="bits", needs={"encode"})
def check_page__padding_is_written_as_zero(t: Trial) -> None:
    """The encoder leaves zero where no plane stands."""
    padding = t.encode(t.some("outliers"))[:, pages.padding_mask(t.layout)]
    want(not padding.any(), f"{t.layout}: {np.count_nonzero(padding)} padding bytes are not zero")


@check(rules=["page.length.exact", "encode.input.strided"], level="bits", needs={"decode"})
def check_decode__takes_bytes_and_arrays(t: Trial) -> None:
    """Bytes, strided rows, repeated rows, columns first and reversed rows read the same."""
    body = t.reference_pages(t.some(n=3))
    plain = t.decode(body)
    wide = np.zeros((3, t.layout.nbytes + 7), dtype=np.uint8)
    wide[:, 3:-4] = body
    every = np.repeat(body, 2, axis=0)[::2]
    columns = np.asfortranarray(body)
    for other in (body.tobytes(), wide[:, 3:-4], every, columns):
        same_floats(t.decode(other), plain, t.layout)
    same_floats(t.decode(body[::-1]), plain[::-1], t.layout)


@check(
    rules=["scale.byte.zero", "scale.byte.grid"],
    level="bits",
    needs={"decode"},
    codecs=["fp8", "scalar", "d4", "e8", "trellis"],
)
def check_decode__gain_zero_is_plus_zero(t: Trial) -> None:
    """Under scale byte 0 every coefficient is +0, whatever the codes say."""
    fields = pages.random_fields(t.layout, 2, t.rng())
    fields["scales"] = np.zeros_like(fields["scales"])
    got = t.decode(pages.build(t.layout, fields), basis="coefficients")
    same_floats(got, np.zeros_like(got), t.layout)


@check(
    rules=["scale.byte.grid", "turbo.decode.product"],
    level="bits",
    needs={"decode"},
    codecs=["fp8", "scalar", "d4", "e8", "trellis", "turbo", "query"],
)
def check_decode__reads_every_gain(t: Trial) -> None:
    """Each of the 256 scale bytes decodes as in the reference."""
    n = -(-256 // t.layout.tokens)
    fields = pages.random_fields(t.layout, n, t.rng())
    every = np.arange(fields["scales"].size, dtype=np.uint64) % np.uint64(256)
    fields["scales"] = every.reshape(fields["scales"].shape)
    t.agree_decode(pages.build(t.layout, fields))


@check(
    rules=PRODUCTS,
    level="bits",
    needs={"decode"},
    codecs=["fp8", "int", "scalar", "trellis", "raw", "turbo"],
)
def check_decode__reads_every_code(t: Trial) -> None:
    """Each code value decodes as in the reference, in every bit lane of a byte."""
    name = "values" if t.layout.codec.id == "raw" else "codes"
    per_page, bits = pages.field_names(t.layout)[name]
    fields = pages.random_fields(t.layout, 2, t.rng())
    step = 1 if bits <= 8 else (1 << bits) // (2 * per_page) + 1
    every = (np.arange(2 * per_page, dtype=np.uint64) * np.uint64(step)) % np.uint64(1 << bits)
    shuffled = t.rng("lanes").permutation(every).reshape(2, per_page)
    fields[name] = pages.accepted(t.layout, name, shuffled)
    t.agree_decode(pages.build(t.layout, fields))


@check(
    rules=REFUSALS,
    level="bits",
    needs={"decode"},
    codecs=["raw", "fp8", "int", "d4", "e8", "skeleton", "turbo"],
)
def check_decode__refuses_forbidden_fields(t: Trial) -> None:
    """A field that no encoder writes is refused by its own rule, wherever it stands."""
    layout = t.layout
    if not pages.forbidden(layout):
        raise NotApplicable("every field value of this layout is legal")
    for name, value, rule in pages.forbidden(layout):
        per_page, _ = pages.field_names(layout)[name]
        for at in (0, per_page // 2 + 1, per_page - 1):
            fields = pages.random_fields(layout, 2, t.rng())
            fields[name][1, at % per_page] = np.uint64(value)
            with refuses(Malformed, rule):
                t.decode(pages.build(layout, fields))


@check(rules=["decode.basis.known"], level="bits", needs={"decode"})
def check_decode__refuses_other_bases(t: Trial) -> None:
    """A basis that is neither vectors nor coefficients is refused, for no page as well."""
    body = t.reference_pages(t.some(n=1))
    for name in ("", "vector", "Vectors", "codes"):
        for some in (body, body[:0]):
            with refuses(UsageError, "decode.basis.known"):
                t.decode(some, basis=cast(Basis, name))


@check(
    rules=[
        "raw.decode.exact",
        "decode.basis.known",
        "skeleton.decode.synthesis",
        "turbo.decode.synthesis",
    ],
    level="bits",
    needs={"decode"},
    codecs=["raw", "fp8", "int", "skeleton", "turbo"],
)
def check_decode__bases_coincide_without_rotation(t: Trial) -> None:
    """Codecs that do not rotate vectors give the same numbers in both bases."""
    body = t.reference_pages(t.some("outliers"))
    same_floats(t.decode(body), t.decode(body, basis="coefficients"), t.layout)


@check(
    rules=[
        "fp8.decode.product",
        "int.decode.affine",
        "scalar.decode.product",
        "trellis.decode.product",
        "trellis.window.shift",
        "num.level.ulp",
    ],
    level="ulp",
    needs={"decode"},
    codecs=["fp8", "int", "scalar", "trellis"],
)
def check_decode__coefficients_are_the_ideal_ones(t: Trial) -> None:
    """Coefficients of legal pages lie within one ulp of float64, without asking the reference."""
    fields = pages.random_fields(t.layout, 3, t.rng())
    got = t.decode(pages.build(t.layout, fields), basis="coefficients")
    within_ulp(got, ideal.coefficients(t.layout, fields), t.layout)
