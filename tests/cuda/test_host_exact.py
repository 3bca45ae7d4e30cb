"""The host build of the kernels against the reference, where layouts and numbers are awkward."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from kakeya_fast.cuda import host, params
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Malformed, RangeError, Unsupported
from kakeya_ref.layout import page_layout
from kakeya_ref.tables import lloyd_max, trellis_labels

HOST, REFERENCE = host.Backend(), ReferenceBackend()
# Head dims of one, two, three and seven Hadamard blocks, of one to four slabs, of 1 to 32 lanes.
LAYOUTS = [
    ("raw:dtype=bf16", 24, 48),
    ("fp8", 80, 16),
    ("int:b=3,g=24", 80, 48),
    ("int:b=6,g=512", 1024, 16),
    ("int:b=5,g=24,axis=channel", 24, 64),
    ("scalar:b=7", 112, 16),
    ("scalar:b=1,seed=0", 8, 32),
    ("scalar:b=3", 1016, 16),
    ("scalar:b=2", 1024, 16),
    ("trellis", 128, 32),
    ("trellis:b=1,seed=0", 8, 16),
    ("trellis:b=4", 248, 16),
    ("trellis:b=7,seed=3", 256, 16),
    ("trellis:b=3", 264, 16),
    ("trellis", 576, 32),
    ("trellis:b=5", 1016, 16),
    ("trellis:b=1,gain=unbiased", 8, 16),
    ("trellis:b=3,gain=unbiased", 256, 32),
    ("trellis:gain=unbiased", 576, 16),
    ("d4:q=110", 24, 16),
    ("d4:q=1", 512, 16),
    ("e8:q=1", 8, 16),
    ("e8:q=7", 80, 48),
    ("e8:q=110", 576, 16),
]


def awkward(pages: int, tokens: int, d: int) -> np.ndarray:
    """Vectors of very different sizes: zeros of both signs, subnormals, ties, large values."""
    rng = np.random.default_rng(d)
    x = rng.standard_normal((pages, tokens, d), dtype=np.float32)
    x *= np.exp2(rng.integers(-24, 12, (pages, tokens, 1))).astype(np.float32)
    x[0, 0], x[0, 1], x[0, 2] = 0.0, -0.0, 1e-42
    x[0, 3] = rng.integers(-4, 5, d) / 2
    x[1, 5] = rng.choice([-3e4, 3e4], d)
    return x


@pytest.mark.parametrize(("codec", "d", "tokens"), LAYOUTS)
def test_equals_the_reference(codec: str, d: int, tokens: int) -> None:
    layout = page_layout(codec, d, tokens)
    x = awkward(3, tokens, d)
    body = REFERENCE.encode(x, layout)
    np.testing.assert_array_equal(HOST.encode(x, layout), body)
    for basis in ("vectors", "coefficients"):
        want = REFERENCE.decode(body, layout, basis=basis)
        got = HOST.decode(body, layout, basis=basis)
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize(
    "codec", ["scalar", "trellis", "fp8", "int", "int:axis=channel", "raw", "e8"]
)
def test_patterns_of_16_bits_in_any_strides(codec: str) -> None:
    """What only a tensor interface can hand over: bfloat16, and strides of any kind.

    Rule: num.input.widen, encode.input.strided
    """
    layout = page_layout(codec, 48, 16)
    x = awkward(2, 16, 48) / 8
    bf16 = (x.view(np.uint32) >> 16).astype(np.uint16)
    wide = (bf16.astype(np.uint32) << 16).view(np.float32)
    body = REFERENCE.encode(wide, layout)
    spread = np.full((16, 48, 4), 0xFFFF, np.uint16)[:, ::-1, ::2]
    spread[:] = np.moveaxis(bf16, 0, 2)
    for patterns in (bf16, np.moveaxis(spread, 2, 0)):
        out = np.full_like(body, 255)
        status = host.encode(patterns, params.KINDS["bfloat16"], layout, out)
        np.testing.assert_array_equal(out, body)
        assert (status == host.NONE).all()
    half = np.full((16, 2, 48, 2), 0xFFFF, np.uint16)
    target = half[..., 1].transpose(1, 0, 2)
    host.decode(body, layout, target, params.KINDS["float16"])
    with np.errstate(over="ignore"):
        want = REFERENCE.decode(body, layout).astype(np.float16)
    np.testing.assert_array_equal(target, want.view(np.uint16))
    assert (half[..., 0] == 0xFFFF).all()


@pytest.mark.parametrize("b", range(1, 9))
def test_codes_at_every_threshold(b: int) -> None:
    """Every threshold and its neighbours, as the search tree meets them.

    Rule: scalar.code.boundary
    """
    _, thresholds = lloyd_max(b)
    heap = params.heap_order(thresholds)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    z = np.concatenate(
        [np.nextafter(thresholds, down), thresholds, np.nextafter(thresholds, up), [up, down]]
    ).astype(np.float32)
    node = np.ones(len(z), np.int64)
    for _ in range(b):
        node = 2 * node + (z > heap[node])
    np.testing.assert_array_equal(node - 2**b, (z[:, None] > thresholds).sum(1))


def test_gain_bytes_at_every_bound() -> None:
    """The byte is guessed from the bits of the gain and settled by two comparisons.

    Rule: scale.byte.midpoint, fp8.scale.up
    """
    for codec in ("scalar:seed=0", "fp8"):
        layout = page_layout(codec, 8, 16)
        bounds = params.tables(layout)[512:768].view(np.float32)[:255]
        near = [bounds, np.nextafter(bounds, np.float32(0)), np.nextafter(bounds, np.float32(9e9))]
        gain = np.concatenate(near)
        x = np.zeros((-(-len(gain) // 16), 16, 8), np.float32)
        # The rms of a single number is its size over the root of 8, the peak is its size.
        x.reshape(-1, 8)[: len(gain), 0] = gain * np.float32(8**0.5 if codec != "fp8" else 448)
        x = np.minimum(x, np.float32(1e5))
        np.testing.assert_array_equal(HOST.encode(x, layout), REFERENCE.encode(x, layout))


@pytest.mark.parametrize("codec", ["scalar", "fp8", "int", "int:axis=channel", "raw", "d4", "e8"])
def test_first_broken_vector_is_named_and_codes_as_zeros(codec: str) -> None:
    """Rule: num.input.finite, backend.error.atomic."""
    layout = page_layout(codec, 96, 32)
    x = np.ones((3, 32, 96), np.float32)
    x[1, 7, 95], x[2, 0, 0] = np.nan, np.inf
    with pytest.raises(RangeError, match=r"\[?num\.input\.finite.*page 1, token 7"):
        HOST.encode(x, layout)
    out = np.full((3, layout.nbytes), 255, np.uint8)
    status = host.encode(x, 0, layout, out, check=True)
    assert (out == 255).all()
    assert status[0] == 32 + 7
    host.encode(x, 0, layout, out)
    assert (HOST.decode(out, layout)[1, 7, 88:] == 0).all()
    np.testing.assert_array_equal(out[0], REFERENCE.encode(x[:1], layout)[0])


def test_bad_bytes_are_named_and_decode_to_zeros() -> None:
    """Rule: fp8.code.nan, e8.index.range, int.params.finite."""
    for codec, at, value in (("fp8", 32 + 5 * 64, 0x7F), ("e8:q=2", 32 + 40 * 2, 255)):
        layout = page_layout(codec, 64, 32)
        body = REFERENCE.encode(np.ones((2, 32, 64), np.float32), layout)
        bad = body.copy()
        bad[1, at] = value
        if codec != "fp8":
            bad[1, 32:] = 255
        with pytest.raises(Malformed, match="page 1, token"):
            HOST.decode(bad, layout)
        out = np.full((2, 32, 64), np.nan, np.float32)
        status = host.decode(bad, layout, out, 0, check=True)
        assert np.isnan(out).all()
        host.decode(bad, layout, out, 0)
        assert np.isfinite(out).all()
        assert status[1] >= 32
        assert (out[1, 5, :8] == 0).all()


def test_slots_and_skipped_pages() -> None:
    """Pages go to rows of a pool and come from them; a negative slot is passed over."""
    from kakeya_fast.cuda import hostbuild

    layout = page_layout("e8:q=2", 40, 16)
    x = awkward(3, 16, 40)
    want = REFERENCE.encode(x, layout)
    pool = np.full((5, layout.nbytes), 7, np.uint8)
    slots = np.array([4, -1, 1], np.int64)
    status, words = np.full(2, host.NONE, np.uint64), params.tables(layout)
    strides = [s // 4 for s in x.strides]
    args = (x.ctypes.data, *strides, words.ctypes.data, None)
    args = (*args, pool.ctypes.data, layout.nbytes)
    defines = params.defines(layout, 0, "encode")
    tail = (slots.ctypes.data, 3, status.ctypes.data)
    hostbuild.run(layout, defines, "kakeya_encode", 3, (*args, *tail))
    np.testing.assert_array_equal(pool[[4, 1]], want[[0, 2]])
    assert (pool[[0, 2, 3]] == 7).all()


def test_threads_do_not_meet() -> None:
    """Rule: encode.output.deterministic."""
    layout = page_layout("scalar:b=3", 80, 16)
    x = awkward(40, 16, 80)
    want, found = REFERENCE.encode(x, layout), []
    threads = [
        threading.Thread(target=lambda: found.append(HOST.encode(x, layout))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all((body == want).all() for body in found)


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: backend.name.explicit."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unsupported, match=r"C\+\+ compiler"):
        host.Backend()


def test_a_compiler_that_refuses_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kakeya_fast.cuda import hostbuild

    monkeypatch.setenv("KAKEYA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(hostbuild, "FLAGS", (*hostbuild.FLAGS, "-std=c++no"))
    with pytest.raises(Unsupported, match=r"refuses the kernels.*c\+\+no"):
        hostbuild.library()
    assert list(tmp_path.iterdir()) == []


def test_labels_are_those_of_the_spec() -> None:
    """The kernels have the columns as a constant, so that their tests vanish in the compiler.

    Rule: trellis.label.linear
    """
    text = (params.SOURCES / "labels.cuh").read_text("utf-8")
    packed = int(re.search(r"COLUMNS = 0x([0-9a-f]+)u", text)[1], 16)
    assert [packed >> 4 * j & 15 for j in range(8)] == [trellis_labels()[1 << j] for j in range(8)]


def test_what_has_no_kernels_is_refused() -> None:
    """Rule: backend.support.honest"""
    assert "no CUDA code" in HOST.supports(page_layout("skeleton:rank=8", 64, 16)).reason
    for codec in ("trellis", "query"):
        assert HOST.supports(page_layout(codec, 1024, 16)).ok
