"""Frozen vectors: the files that rank above every implementation."""

from __future__ import annotations

import numpy as np

from kakeya_conformance.compare import is_floats, is_pages, near_floats, refuses
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.oracle import ideal_vectors
from kakeya_conformance.trial import Trial
from kakeya_conformance.vectors import judge_blob
from kakeya_ref import errors
from kakeya_ref.types import Basis

RULES = ["backend.profile.exact", "backend.profile.bounded"]


@check(rules=RULES, level="bits", needs={"encode"}, over="vector")
def check_vectors__encode(t: Trial) -> None:
    """A frozen input encodes to the frozen page, or is refused as frozen."""
    x, expect = t.vector.input_vectors(), t.vector.expect
    if "error" in expect:
        with refuses(getattr(errors, expect["error"]), expect["rule"]):
            t.encode(x)
        return
    pages = t.encode(x)
    is_pages(pages, t.layout, len(x))
    if t.exact and "page" in expect:
        judge_blob(pages, expect["page"], "page")
    if not t.exact:
        t.agree_encode(x)


@check(rules=RULES, level="bits", needs={"decode"}, over="vector")
def check_vectors__decode(t: Trial) -> None:
    """A frozen page decodes to the frozen floats, or is refused as frozen."""
    page, expect = t.vector.input_page(), t.vector.expect
    if "error" in expect:
        with refuses(getattr(errors, expect["error"]), expect["rule"]):
            t.decode(page)
        return
    _judge_floats(t, page)


@check(rules=RULES, level="bits", needs={"encode", "decode"}, over="vector")
def check_vectors__what_was_written_reads_back(t: Trial) -> None:
    """The page of a frozen input decodes to the frozen floats."""
    if "error" in t.vector.expect:
        raise NotApplicable("the frozen input is refused")
    pages = t.encode(t.vector.input_vectors())
    if t.exact:
        _judge_floats(t, pages.tobytes())
    else:
        t.agree_decode(pages)


def _judge_floats(t: Trial, page: bytes) -> None:
    n = len(page) // t.layout.nbytes
    bases: tuple[Basis, ...] = ("coefficients", "vectors")
    for basis in bases:
        if basis not in t.vector.expect:
            continue
        got = t.decode(page, basis=basis)
        is_floats(got, t.layout, n)
        if t.exact or basis == "coefficients":
            judge_blob(got.astype("<f4"), t.vector.expect[basis], basis)
        else:
            coefficients = t.oracle.reference.decode(page, t.layout, basis="coefficients")
            near_floats(got, ideal_vectors(np.asarray(coefficients), t.layout), t.layout)
