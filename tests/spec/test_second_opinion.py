"""Reference against exact fractions on data that no vector holds."""

from __future__ import annotations

import byhand
import byhand_codecs
import numpy as np
import pytest
import vectorcheck as vc

from kakeya_ref import ReferenceBackend, page_layout

CODECS = [
    "raw:dtype=f16", "raw:dtype=bf16", "fp8", "int:b=3,g=16", "int:b=6,g=8,axis=channel",
    "scalar:b=1", "scalar:b=3,seed=9", "scalar:b=8", "d4:q=1", "d4:q=13", "d4:q=110,seed=0",
    "e8:q=1", "e8:q=5,seed=3", "e8:q=110",
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
