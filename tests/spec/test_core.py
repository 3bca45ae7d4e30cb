"""Promises of core.md that are about behaviour and not about single bytes."""

from __future__ import annotations

import numpy as np
import pytest
import vectorcheck as vc

from kakeya_fast import get_backend
from kakeya_ref import (
    KakeyaError,
    ReferenceBackend,
    ShapeError,
    Support,
    Unsupported,
    codec_ids,
    page_layout,
    parse_codec,
)
from kakeya_ref.fitting import fit
from kakeya_ref.registry import table_kind
from kakeya_ref.skeletons import Skeleton, table_body

REFUSED = [c for c in vc.all_cases() if c["verdict"] == "invalid"]


def vectors(seed: int = 5) -> np.ndarray:
    return vc.noise(seed, 2 * 16 * 24).reshape(2, 16, 24)


@pytest.mark.parametrize("name", codec_ids())
def test_pages_do_not_know_where_they_stand(name: str) -> None:
    """Rule: page.table.position"""
    ref, known = ReferenceBackend(), None
    codec = parse_codec(name)
    if table_kind(codec) == "skeleton":
        fitted = fit(vectors().reshape(32, 24), codec)
        codec, known = fitted.codec, fitted.tables
    layout = page_layout(codec, 24, 16)
    if table_kind(codec) == "query":
        known = Skeleton(
            table_body(codec, 24, mean=[0] * 24, basis=np.eye(24), spread=[1, 1, 1])[None]
        )
    here = np.arange(32, dtype=np.int64).reshape(2, 16)
    pages = ref.encode(vectors(), layout, positions=here, tables=known)
    again = ref.encode(vectors(), layout, positions=here + 4096, tables=known)
    assert np.array_equal(pages, again)
    there = ref.decode(pages[::-1], layout, positions=here + 7, tables=known)
    assert np.array_equal(there, ref.decode(pages, layout, positions=here, tables=known)[::-1])


def test_k_body_stands_before_v_body() -> None:
    """Rule: page.stream.order"""
    torch = pytest.importorskip("torch")
    store = pytest.importorskip("kakeya_fast.hf.pages")
    k, v = page_layout("scalar:b=3", 24, 16), page_layout("raw", 24, 16)
    spans = store.PageStore(1, 1, (k, v), torch.device("cpu")).spans
    assert [(s.start, s.stop) for s in spans] == [(0, k.nbytes), (k.nbytes, k.nbytes + v.nbytes)]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c["id"])
def test_messages_begin_with_their_rule(case: vc.Case) -> None:
    """Rule: backend.error.family"""
    with pytest.raises(KakeyaError) as caught:
        vc._OPS[case["op"]](case)
    assert type(caught.value).__name__ == case["expect"]["error"]
    assert str(caught.value).startswith(f"[{case['expect']['rule']}] ")


def test_refused_input_leaves_no_trace() -> None:
    """Rule: backend.error.atomic"""
    layout, ref = page_layout("e8", 24, 16), ReferenceBackend()
    good = ref.encode(vectors(), layout)
    bad = vectors()
    bad[1, 15, 23] = np.nan
    before = bad.tobytes()
    with pytest.raises(KakeyaError, match="page 1, token 15"):
        ref.encode(bad, layout)
    assert bad.tobytes() == before
    assert np.array_equal(ref.encode(vectors(), layout), good)


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_tensors_on_another_device_are_refused(name: str) -> None:
    """Rule: num.input.device"""
    torch = pytest.importorskip("torch")
    backend, layout = get_backend(name), page_layout("e8", 24, 16)
    with pytest.raises(ShapeError, match=r"^\[num.input.device\]"):
        backend.encode_tensor(torch.zeros(1, 16, 24, device="meta"), layout)
    pages = torch.zeros(1, layout.nbytes, dtype=torch.uint8, device="meta")
    with pytest.raises(ShapeError, match=r"^\[num.input.device\]"):
        backend.decode_tensor(pages, layout)


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_backends_refuse_what_they_do_not_offer(name: str, monkeypatch) -> None:
    """Rule: backend.codec.offered, backend.profile.declared"""
    backend = get_backend(name)
    assert backend.profile == "exact"
    monkeypatch.setattr(
        type(backend.inner),
        "supports",
        lambda self, layout: Support(False, frozenset(), "not today"),
    )
    with pytest.raises(Unsupported, match=r"^\[backend.codec.offered\] not today"):
        backend.encode(vectors(), page_layout("e8", 24, 16))
