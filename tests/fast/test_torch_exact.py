"""The torch backend on the CPU against the reference: same bytes, same floats, same refusals."""

from functools import partial

import numpy as np
import pytest

from kakeya_fast.torch_ops import Backend
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import KakeyaError, Malformed
from kakeya_ref.layout import page_layout

REF, FAST = ReferenceBackend(), Backend()
INT = ((1, 8), (3, 64), (8, 24))
CODECS = [
    "raw",
    "raw:dtype=f16",
    "raw:dtype=bf16",
    "fp8",
    *(
        f"int:b={b},g={g},axis={a}"
        for b, g in ((1, 8), (3, 64), (8, 24))
        for a in ("token", "channel")
    ),
    "trellis",
    "trellis:b=1,seed=0",
    "trellis:b=5",
    "trellis:b=1,gain=unbiased",
    *(f"scalar:b={b},seed={b % 3}" for b in range(1, 9)),
    *(f"{c}:q={q}" for c in ("d4", "e8") for q in (1, 2, 7, 10, 63, 110)),
]
HEAD_DIMS = (8, 80, 96, 112, 128, 192, 576)


def corners(rng: np.random.Generator, n: int, p: int, d: int) -> dict[str, np.ndarray]:
    """(n, p, d) arrays by name: ordinary, tied, tiny, huge, zero, repeated."""
    g = rng.standard_normal((n, p, d)).astype(np.float32)
    zeros = g.copy()
    zeros[:, ::2] = 0
    zeros[:, 1::4] = -0.0
    zeros[:, 3] = np.where(rng.random((n, d)) < 0.5, np.float32(0), np.float32(-0.0))
    one = np.zeros_like(g)
    one[..., 0] = g[..., 0] * 10
    spread = np.exp(rng.uniform(-14, 11, (n, p, 1))).astype(np.float32)
    return {
        "gauss": g,
        "spread": g * spread,
        "near the top": (rng.uniform(-1, 1, (n, p, d)) * 1e5).astype(np.float32),
        "halves": (rng.integers(-2, 3, (n, p, d)) * 0.5).astype(np.float32),
        "quarters": (rng.integers(-8, 9, (n, p, d)) * 0.25).astype(np.float32),
        "subnormal": g * np.float32(1e-40),
        "smallest": (rng.integers(-2, 3, (n, p, d)) * 1.4e-45).astype(np.float32),
        "zeros": zeros,
        "one": one,
        "huge": (g * 1e38).clip(-3e38, 3e38).astype(np.float32),
        "heavy": (g * np.exp(2 * rng.standard_normal((n, p, d)))).astype(np.float32),
        "float16": g.astype(np.float16),
        "repeated": np.broadcast_to(g[..., :1], g.shape),
        "reversed": rng.standard_normal((d, p, n)).astype(np.float32).T[:, ::-1],
    }


def outcome(call):
    """Shape and bytes of an array, or the kind and rule of a refusal."""
    try:
        got = call()
    except KakeyaError as error:
        return type(error).__name__, error.rule
    return got.shape, got.dtype, got.tobytes()


def test_profile_is_exact_on_the_cpu():
    assert FAST.profile == "exact"


def same_numbers(page, layout, why):
    """Whether both bases decode alike; the kinds of outcome seen."""
    seen = set()
    for basis in ("coefficients", "vectors"):
        want = outcome(partial(REF.decode, page, layout, basis=basis))
        assert outcome(partial(FAST.decode, page, layout, basis=basis)) == want, (why, basis)
        seen.add("refused" if len(want) == 2 else "read")
    return seen


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("codec", CODECS)
def test_pages_and_numbers_equal_the_reference(codec):
    rng = np.random.default_rng(sum(map(ord, codec)))
    layout = page_layout(codec, int(rng.choice(HEAD_DIMS)), int(rng.choice([16, 48])))
    refused = []
    for name, x in corners(rng, 2, layout.tokens, layout.head_dim).items():
        want = outcome(partial(REF.encode, x, layout))
        assert outcome(partial(FAST.encode, x, layout)) == want, (str(layout), name)
        if len(want) == 2:
            refused.append(name)
        else:
            page = np.frombuffer(want[2], np.uint8).reshape(want[0])
            assert same_numbers(page, layout, (str(layout), name)) == {"read"}
    assert ("huge" in refused) == (codec not in ("raw", "raw:dtype=bf16"))


@pytest.mark.parametrize("codec", CODECS)
def test_any_bytes_decode_alike_or_are_refused_alike(codec):
    rng = np.random.default_rng(5)
    seen = set()
    for d in (8, 96):
        layout = page_layout(codec, d, 16)
        for high in (1, 2, 64, 256):
            page = rng.integers(0, high, (2, layout.nbytes), dtype=np.uint8)
            seen |= same_numbers(page, layout, (str(layout), high))
    assert "read" in seen


def test_refusal_names_page_and_token_across_chunks(monkeypatch):
    monkeypatch.setattr("kakeya_fast.torch_ops.backend.CHUNK", 1)
    layout = page_layout("fp8", 8, 16)
    body = np.zeros((5, layout.nbytes), np.uint8)
    body[3, layout.plane("codes8").offset + 8 * 9 + 1] = 0x7F
    with pytest.raises(Malformed, match=r"\[fp8.code.nan\].*page 3, token 9"):
        FAST.decode(body, layout)


def test_chunks_do_not_change_bytes(monkeypatch):
    layout = page_layout("e8:q=4", 80, 16)
    x = np.random.default_rng(0).standard_normal((7, 16, 80)).astype(np.float32)
    whole = FAST.encode(x, layout)
    monkeypatch.setattr("kakeya_fast.torch_ops.backend.CHUNK", 2 * 16 * 80)
    assert np.array_equal(FAST.encode(x, layout), whole)
    assert np.array_equal(FAST.decode(whole, layout), REF.decode(whole, layout))


@pytest.mark.parametrize("codec", ["raw", "int:g=24,axis=channel", "scalar", "e8"])
def test_no_pages_give_no_pages(codec):
    layout = page_layout(codec, 40, 16)
    assert FAST.encode(np.zeros((0, 16, 40), np.float32), layout).shape == (0, layout.nbytes)
    assert FAST.decode(b"", layout).shape == (0, 16, 40)
