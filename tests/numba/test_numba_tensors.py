"""Tensors, strides, output views and what is left behind after an error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kakeya_fast.numba_cpu import Backend
from kakeya_ref.errors import Malformed, RangeError, ShapeError
from kakeya_ref.layout import page_layout

NUMBA = Backend()
E8, SCALAR, RAW = (page_layout(c, 64, 32) for c in ("e8", "scalar", "raw"))


def vectors(pages: int = 4) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((pages, 32, 64), dtype=np.float32)


def strided() -> dict[str, np.ndarray]:
    x = vectors()
    wide = np.zeros((8, 40, 3, 64), np.float32)
    wide[::2, 4:36, 1] = x
    doubled = np.zeros((4, 32, 128), np.float32)
    doubled[:, :, ::2] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    return {
        "gaps": wide[::2, 4:36, 1],
        "tokens first": np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2),
        "channels apart": doubled[:, :, ::2],
        "fortran": np.asfortranarray(x),
        "backwards": np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
        "read-only": frozen,
    }


@pytest.mark.parametrize("name", list(strided()))
def test_strides_do_not_matter(name: str) -> None:
    x = strided()[name]
    before = x.copy()
    np.testing.assert_array_equal(NUMBA.encode(x, E8), NUMBA.encode(vectors(), E8))
    np.testing.assert_array_equal(x, before)


def test_a_repeated_page_of_stride_zero() -> None:
    one = torch.from_numpy(vectors(1))
    body = NUMBA.encode_tensor(one.expand(3, 32, 64), SCALAR)
    assert torch.equal(body, NUMBA.encode_tensor(one, SCALAR).expand(3, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [RAW, SCALAR], ids=str)
def test_half_tensors_are_widened(dtype: torch.dtype, layout) -> None:
    x = torch.from_numpy(vectors() * np.float32(2.0**-12)).to(dtype)  # subnormal float16 too
    x = x.transpose(0, 1).contiguous().transpose(0, 1)
    want = NUMBA.encode(x.float().numpy(), layout)
    assert np.array_equal(NUMBA.encode_tensor(x, layout).numpy(), want)


def test_float64_is_rounded_to_float32() -> None:
    x = torch.from_numpy(vectors()).double() * (1 + 1e-12)
    assert torch.equal(NUMBA.encode_tensor(x, RAW), NUMBA.encode_tensor(x.float(), RAW))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_decoding_rounds_as_torch_does(dtype: torch.dtype) -> None:
    """Random bit patterns of all magnitudes, halfway cases of both short types among them."""
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, (64, 32, 64), dtype=np.uint32)
    bits[::4] &= np.uint32(0xFFFF8000)  # ties of bfloat16
    bits[1::4] &= np.uint32(0xFFFFF000)  # ties of float16
    exponents = rng.integers(98, 146, bits.shape, dtype=np.uint32) << np.uint32(23)
    bits[1::2] = (bits[1::2] & np.uint32(0x807FFFFF)) | exponents[1::2]  # around float16's range
    x = bits.view(np.float32)
    x = torch.from_numpy(np.where(np.isfinite(x), x, np.float32(1)))
    y = NUMBA.decode_tensor(NUMBA.encode_tensor(x, RAW), RAW, dtype=dtype)
    assert y.dtype == dtype
    assert torch.equal(y, x.to(dtype))


def test_output_views_are_written_in_place() -> None:
    x = torch.from_numpy(vectors())
    pool = torch.full((8, E8.nbytes + 16), 7, dtype=torch.uint8)
    rows = pool[::2, 16:]
    assert NUMBA.encode_tensor(x, E8, out=rows) is rows
    assert torch.equal(rows, NUMBA.encode_tensor(x, E8))
    assert bool((pool[1::2] == 7).all())
    assert bool((pool[:, :16] == 7).all())
    target = torch.full((4, 2, 32, 64), 5.0, dtype=torch.bfloat16)
    view = target[:, 1]
    assert NUMBA.decode_tensor(rows, E8, out=view) is view
    assert torch.equal(view, NUMBA.decode_tensor(rows, E8, dtype=torch.bfloat16))
    assert bool((target[:, 0] == 5).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_a_refused_vector_leaves_out_alone(value: float) -> None:
    x = torch.from_numpy(vectors())
    x[3, 17, 5] = value
    out = torch.full((4, SCALAR.nbytes), 9, dtype=torch.uint8)
    with pytest.raises(RangeError, match="page 3, token 17"):
        NUMBA.encode_tensor(x, SCALAR, out=out)
    assert bool((out == 9).all())


def test_the_first_nan_is_named_before_a_gain_out_of_range() -> None:
    x = vectors()
    x[0, 3], x[2, 9, 1], x[1, 30, 63] = 1e38, np.nan, -np.inf
    with pytest.raises(RangeError, match=r"\[num\.input\.finite\].*page 1, token 30"):
        NUMBA.encode(x, SCALAR)


def test_a_malformed_page_leaves_out_alone() -> None:
    pages = NUMBA.encode_tensor(torch.from_numpy(vectors()), E8)
    pages[3] = 0xFF
    out = torch.full((4, 32, 64), 2.5)
    with pytest.raises(Malformed, match=r"\[e8\.index\.range\]"):
        NUMBA.decode_tensor(pages, E8, out=out)
    assert bool((out == 2.5).all())


def test_wrong_tensors_are_refused() -> None:
    x = torch.from_numpy(vectors())
    with pytest.raises(ShapeError, match=r"num\.input\.device"):
        NUMBA.encode_tensor(x.to("meta"), E8)
    with pytest.raises(ShapeError, match=r"page\.shape\.exact"):
        NUMBA.encode_tensor(x, E8, out=torch.empty(4, E8.nbytes + 1, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"num\.input\.widen"):
        NUMBA.encode_tensor(x.int(), E8)
    with pytest.raises(Malformed, match=r"page\.length\.exact"):
        NUMBA.decode_tensor(torch.zeros(4, E8.nbytes + 1, dtype=torch.uint8), E8)
