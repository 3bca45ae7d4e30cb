"""Frozen vectors: the files that rank above every implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.compare import is_floats, is_pages, near_floats, refuses
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.oracle import ideal_vectors
from kakeya_conformance.tables import option
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
            _encode(t, x)
        return
    pages = _encode(t, x)
    is_pages(pages, t.layout, len(x))
    if t.exact and "page" in expect:
        judge_blob(pages, expect["page"], "page")
    if not t.exact:
        t.agree_encode(x, tables=t.vector.tables())


@check(rules=RULES, level="bits", needs={"decode"}, over="vector")
def check_vectors__decode(t: Trial) -> None:
    """A frozen page decodes to the frozen floats, or is refused as frozen."""
    page, expect = t.vector.input_page(), t.vector.expect
    if "error" in expect:
        with refuses(getattr(errors, expect["error"]), expect["rule"]):
            _decode(t, page)
        return
    _judge_floats(t, page)


@check(rules=RULES, level="bits", needs={"encode", "decode"}, over="vector")
def check_vectors__what_was_written_reads_back(t: Trial) -> None:
    """The page of a frozen input decodes to the frozen floats."""
    if "error" in t.vector.expect:
        raise NotApplicable("the frozen input is refused")
    pages = _encode(t, t.vector.input_vectors())
    if t.exact:
        _judge_floats(t, pages.tobytes())
    else:
        t.agree_decode(pages, tables=t.vector.tables())


def _judge_floats(t: Trial, page: bytes) -> None:
    n = len(page) // t.layout.nbytes
    bases: tuple[Basis, ...] = ("coefficients", "vectors")
    for basis in bases:
        if basis not in t.vector.expect:
            continue
        got = _decode(t, page, basis)
        is_floats(got, t.layout, n)
        if t.exact or basis == "coefficients":
            judge_blob(got.astype("<f4"), t.vector.expect[basis], basis)
        else:
            body = np.frombuffer(page, np.uint8).reshape(n, -1)
            coefficients = t.oracle.decode(body, t.layout, "coefficients", t.vector.tables())
            near_floats(got, ideal_vectors(np.asarray(coefficients), t.layout), t.layout)


# A case without tables is put as it stands: a codec that needs them must refuse it.
def _encode(t: Trial, x: NDArray[Any]) -> NDArray[np.uint8]:
    return t.backend.encode(x, t.layout, **option(t.vector.tables()))


def _decode(t: Trial, page: bytes, basis: Basis = "vectors") -> NDArray[np.float32]:
    return t.backend.decode(page, t.layout, basis=basis, **option(t.vector.tables()))
