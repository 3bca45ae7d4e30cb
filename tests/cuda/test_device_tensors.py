"""Tensors through the CUDA backend's whole Python path, kernels from the host build."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hostlaunch import HostLauncher

from kakeya_fast.cuda.backend import Backend
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Malformed, RangeError, ShapeError, Unsupported, UsageError
from kakeya_ref.layout import page_layout

CODECS = (
    "raw",
    "raw:dtype=bf16",
    "fp8",
    "int",
    "int:b=3,g=24,axis=channel",
    "scalar",
    "scalar:b=3,seed=7",
    "trellis:b=3",
    "d4",
    "e8",
    "e8:q=38",
)
DIMS = (24, 64, 80)
REF = ReferenceBackend()
SCALAR, E8, RAW = (page_layout(c, 64, 32) for c in ("scalar:b=3", "e8", "raw"))

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture(scope="module")
def cuda() -> Backend:
    return Backend(launcher=HostLauncher())


def vectors(layout, pages: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(pages, layout.tokens, layout.head_dim, generator=generator)


def strided(x: torch.Tensor) -> dict[str, torch.Tensor]:
    n, p, d = x.shape
    wide = torch.zeros(2 * n, p + 8, 3, d, dtype=x.dtype)
    wide[::2, 4:-4, 1] = x
    doubled = torch.zeros(n, p, 2 * d, dtype=x.dtype)
    doubled[:, :, ::2] = x
    odd = torch.zeros(n * p * d + 1, dtype=x.dtype)
    odd[1:] = x.flatten()
    return {
        "gaps": wide[::2, 4:-4, 1],
        "tokens first": x.transpose(0, 1).contiguous().transpose(0, 1),
        "channels first": x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "channels apart": doubled[:, :, ::2],
        "off by one element": odd[1:].view(n, p, d),
    }


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    view = torch.int32 if a.dtype == torch.float32 else torch.int16
    return a.dtype == b.dtype and torch.equal(a.view(view), b.view(view))


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("codec", CODECS)
def test_bytes_and_numbers_are_the_references(cuda, codec, d) -> None:
    layout = page_layout(codec, d, 16)
    x = vectors(layout)
    body = cuda.encode_tensor(x, layout)
    assert np.array_equal(body.numpy(), REF.encode(x.numpy(), layout))
    for basis in ("vectors", "coefficients"):
        want = REF.decode(body.numpy(), layout, basis=basis)
        assert equal_bits(cuda.decode_tensor(body, layout, basis=basis), torch.from_numpy(want))
        assert np.array_equal(cuda.decode(body.numpy().tobytes(), layout, basis=basis), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", list(strided(torch.zeros(4, 32, 64))))
@pytest.mark.parametrize("layout", [SCALAR, RAW], ids=str)
def test_strides_do_not_matter(cuda, layout, name, dtype) -> None:
    x = vectors(layout).to(dtype)
    seen = strided(x)[name]
    before = seen.clone()
    body = cuda.encode_tensor(seen, layout)
    assert np.array_equal(body.numpy(), REF.encode(x.float().numpy(), layout))
    assert torch.equal(seen, before)
    # Read back into the same strides: other numbers around them stay.
    target = strided(torch.full_like(x, 5.0))[name]
    got = cuda.decode_tensor(body, layout, out=target)
    assert got is target
    assert equal_bits(target, torch.from_numpy(REF.decode(body.numpy(), layout)).to(dtype))


def test_a_repeated_page_of_stride_zero(cuda) -> None:
    one = vectors(SCALAR, 1)
    body = cuda.encode_tensor(one.expand(3, -1, -1), SCALAR)
    assert torch.equal(body, cuda.encode_tensor(one, SCALAR).expand(3, -1))


def test_float64_is_rounded_once(cuda) -> None:
    x = vectors(RAW).double() * (1 + 1e-12)
    body = cuda.encode_tensor(x, RAW)
    assert torch.equal(body, cuda.encode_tensor(x.float(), RAW))
    assert torch.equal(cuda.decode_tensor(body, RAW, dtype=torch.float64), x.float().double())


def test_no_pages_launch_nothing(cuda) -> None:
    seen = len(cuda._calls._launcher.seen)
    assert cuda.encode_tensor(vectors(SCALAR, 0), SCALAR).shape == (0, SCALAR.nbytes)
    assert cuda.decode(b"", SCALAR).shape == (0, 32, 64)
    assert len(cuda._calls._launcher.seen) == seen


def test_bodies_that_are_not_aligned_are_written_and_read(cuda) -> None:
    x = vectors(SCALAR)
    want = cuda.encode_tensor(x, SCALAR)
    loose = torch.full((8, SCALAR.nbytes + 3), 7, dtype=torch.uint8)
    rows = loose[::2, 3:]
    assert cuda.encode_tensor(x, SCALAR, out=rows) is rows
    assert torch.equal(rows, want)
    assert bool((loose[1::2] == 7).all() and (loose[:, :3] == 7).all())
    assert torch.equal(cuda.decode_tensor(rows, SCALAR), cuda.decode_tensor(want, SCALAR))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 3e38])
def test_a_refused_vector_leaves_out_alone(cuda, value) -> None:
    x = vectors(SCALAR)
    x[3, 17, 5] = value
    out = torch.full((4, SCALAR.nbytes), 9, dtype=torch.uint8)
    with pytest.raises(RangeError, match="page 3, token 17"):
        cuda.encode_tensor(x, SCALAR, out=out)
    assert bool((out == 9).all())


def test_the_first_nan_is_named_before_a_gain_out_of_range(cuda) -> None:
    x = vectors(SCALAR)
    x[0, 3], x[2, 9, 1], x[1, 30, 63] = 1e38, float("nan"), float("-inf")
    with pytest.raises(RangeError, match=r"\[num\.input\.finite\].*page 1, token 30"):
        cuda.encode_tensor(x, SCALAR)
    x[1:] = 0
    with pytest.raises(RangeError, match=r"\[scale\.byte\.range\].*page 0, token 3"):
        cuda.encode_tensor(x, SCALAR)


def test_a_malformed_page_leaves_out_alone(cuda) -> None:
    pages = cuda.encode_tensor(vectors(E8), E8)
    pages[3] = 0xFF
    out = torch.full((4, 32, 64), 2.5)
    with pytest.raises(Malformed, match=r"\[e8\.index\.range\]"):
        cuda.decode_tensor(pages, E8, out=out)
    assert bool((out == 2.5).all())


def test_wrong_tensors_are_refused(cuda) -> None:
    x = vectors(SCALAR)
    with pytest.raises(ShapeError, match=r"num\.input\.device"):
        cuda.encode_tensor(x.to("meta"), SCALAR)
    with pytest.raises(ShapeError, match=r"page\.shape\.exact"):
        cuda.encode_tensor(x[:, :16], SCALAR)
    with pytest.raises(ShapeError, match=r"page\.shape\.exact"):
        cuda.encode_tensor(x, SCALAR, out=torch.empty(4, 3, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"num\.input\.widen"):
        cuda.encode_tensor(x.int(), SCALAR)
    with pytest.raises(ShapeError, match=r"num\.input\.widen"):
        cuda.encode(x.double().numpy(), SCALAR)
    with pytest.raises(Malformed, match=r"page\.length\.exact"):
        cuda.decode_tensor(torch.zeros(4, SCALAR.nbytes + 1, dtype=torch.uint8), SCALAR)
    with pytest.raises(UsageError, match=r"decode\.basis\.known"):
        cuda.decode_tensor(torch.zeros(1, SCALAR.nbytes, dtype=torch.uint8), SCALAR, basis="rows")
    body = cuda.encode_tensor(x, SCALAR)
    with pytest.raises(ShapeError, match=r"page\.shape\.exact.*overlap"):
        cuda.decode_tensor(body, SCALAR, out=torch.zeros(1, 32, 64).expand(4, -1, -1))


def test_a_codec_without_kernels_is_refused_with_the_reason(cuda, monkeypatch) -> None:
    monkeypatch.setattr("kakeya_fast.cuda.params._SOURCE", {})
    assert not cuda.supports(SCALAR).ok
    with pytest.raises(Unsupported, match=r"\[backend\.codec\.offered\] no CUDA code"):
        cuda.encode_tensor(vectors(SCALAR), SCALAR)
