"""Reference against exact fractions on data that no vector holds."""

from __future__ import annotations

import byhand
import byhand_codecs
import byhand_skeletons
import numpy as np
import pytest
import vectorcheck as vc

from kakeya_ref import ReferenceBackend, page_layout
from kakeya_ref.skeletons import Skeleton, table_body

CODECS = [
    "raw:dtype=f16", "raw:dtype=bf16", "fp8", "int:b=3,g=16", "int:b=6,g=8,axis=channel",
    "scalar:b=1", "scalar:b=3,seed=9", "scalar:b=8", "d4:q=1", "d4:q=13", "d4:q=110,seed=0",
    "e8:q=1", "e8:q=5,seed=3", "e8:q=110", "trellis", "trellis:b=3,seed=5",
    "trellis:b=1,gain=unbiased", "trellis:gain=unbiased", "trellis:b=5,gain=unbiased",
]  # fmt: skip


def page(seed: int, head_dim: int) -> np.ndarray:
    """Tokens of many sizes, some of them zero, minus zero, or below the least gain."""
    x = vc.noise(seed, 16 * head_dim).reshape(1, 16, head_dim)
    x *= np.exp2(np.arange(16, dtype=np.float32) - 9)[:, None]
    x[0, 3], x[0, 7], x[0, 11] = 0.0, -0.0, x[0, 11] * np.float32(2.0**-30)
    return x


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("head_dim", [8, 40])
def test_bytes_and_numbers_agree(codec: str, head_dim: int) -> None:
    layout, ref = page_layout(codec, head_dim, 16), ReferenceBackend()
    params, x = dict(layout.codec.params), page(2026 + head_dim, head_dim)
    body = ref.encode(x, layout)
    assert byhand_codecs.encode(layout.codec.id, params, x[0].astype(float).tolist()) == (
        body.tobytes()
    )
    both = byhand_codecs.decode(layout.codec.id, params, body.tobytes(), 16, head_dim)
    for basis, rows in zip(("coefficients", "vectors"), both, strict=True):
        got = ref.decode(body, layout, basis=basis).tobytes()
        assert got == byhand.words([v for row in rows for v in row]), basis


WITH_TABLES = [
    "skeleton:rank=5", "skeleton:k=5,res=3,rank=8", "skeleton:k=1,res=2,time=none,rank=3",
    "skeleton:k=3,res=4,store=bf16,rank=5", "turbo:rank=5", "turbo:b=2,k=5,rank=8,out=16",
    "turbo:b=1,k=1,store=bf16,seed=0,rank=3,out=8", "turbo:b=4,levels=own,rank=8",
    "turbo:b=2,k=3,levels=own,store=bf16,seed=7,rank=7,out=128",
]  # fmt: skip


@pytest.mark.parametrize("codec", WITH_TABLES)
@pytest.mark.parametrize("head_dim", [8, 24])
@pytest.mark.parametrize("given", ["basis", "analysis"])
def test_bytes_and_numbers_with_tables_agree(codec: str, head_dim: int, given: str) -> None:
    layout, ref = page_layout(codec, head_dim, 16), ReferenceBackend()
    params, x = dict(layout.codec.params), page(2026 + head_dim, head_dim)
    shapes = byhand_skeletons.shapes(layout.codec.id, params, head_dim)
    numbers = {
        name: vc.noise(i, rows * row).reshape(rows, row)
        for i, (name, rows, row) in enumerate(shapes)
    }
    if "levels" in numbers:
        numbers["levels"] = np.sort(numbers["levels"])
    body = byhand_skeletons.body(
        layout.codec.id, params, {k: v.astype(float).tolist() for k, v in numbers.items()}
    )
    assert body == table_body(layout.codec, head_dim, **numbers).tobytes()
    analysis = vc.noise(99, params["rank"] * head_dim).reshape(1, -1, head_dim)
    rows = None if given == "basis" else analysis[0].astype(float).tolist()
    known = Skeleton(np.frombuffer(body, np.uint8)[None], None if rows is None else analysis)
    bodies = ref.encode(x, layout, tables=known)
    assert bodies.tobytes() == byhand_skeletons.encode(
        layout.codec.id, params, x[0].astype(float).tolist(), body, rows
    )
    want = byhand_skeletons.decode(layout.codec.id, params, bodies.tobytes(), body, 16, head_dim)
    for basis in ("coefficients", "vectors"):
        got = ref.decode(bodies, layout, basis=basis, tables=known).tobytes()
        assert got == byhand.words([v for row in want for v in row]), basis
