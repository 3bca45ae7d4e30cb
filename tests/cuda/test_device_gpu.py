"""On a GPU: the reference's bytes, strides, slots, graphs, streams and threads.

Everything here is skipped where torch sees no GPU; the same Python path runs over the host build
of the kernels in the other files of this folder.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from kakeya_fast.cuda import params
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Malformed, RangeError, ShapeError, UsageError
from kakeya_ref.layout import page_layout

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

CODECS = (
    "raw",
    "raw:dtype=f16",
    "raw:dtype=bf16",
    "fp8",
    "int",
    "int:b=3,g=24,axis=channel",
    "scalar:b=1",
    "scalar:b=3,seed=7",
    "scalar:b=8",
    "trellis",
    "d4",
    "e8",
    "e8:q=38,seed=0",
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SCALAR, E8, RAW = (page_layout(c, 128, 32) for c in ("scalar:b=3", "e8", "raw"))
REF = ReferenceBackend()


@pytest.fixture(scope="module")
def cuda():
    from kakeya_fast import get_backend

    return get_backend("cuda", "cuda")


def vectors(layout, pages: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(7)
    shape = (pages, layout.tokens, layout.head_dim)
    return torch.randn(shape, generator=generator, device="cuda").to(dtype)


def reference(x: torch.Tensor, layout) -> torch.Tensor:
    return torch.from_numpy(REF.encode(x.float().cpu().numpy(), layout)).cuda()


def numbers(body: torch.Tensor, layout, dtype: torch.dtype, basis: str = "vectors") -> torch.Tensor:
    wide = torch.from_numpy(REF.decode(body.cpu().numpy(), layout, basis=basis))
    return wide.to(dtype).cuda()


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


@pytest.mark.parametrize(
    ("codec", "d"),
    [
        (codec, d)
        for codec in CODECS
        for d in (8, 64, 80, 128, 256, 576, 1024)
        if not params.refusal(page_layout(codec, d, 32))
    ],
)
def test_bytes_and_numbers_are_the_references(cuda, codec, d) -> None:
    layout = page_layout(codec, d, 32)
    for dtype in DTYPES if d in (80, 128) else DTYPES[:1]:
        x = vectors(layout, dtype=dtype)
        body = cuda.encode_tensor(x, layout)
        assert torch.equal(body, reference(x, layout))
        for basis in ("vectors", "coefficients"):
            y = cuda.decode_tensor(body, layout, basis=basis, dtype=dtype)
            assert torch.equal(bits(y), bits(numbers(body, layout, dtype, basis)))


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-70, 1e-3, 1e4])
@pytest.mark.parametrize("codec", CODECS)
def test_magnitudes_and_subnormals(cuda, codec, scale) -> None:
    """Rule: num.subnormal.kept"""
    layout = page_layout(codec, 64, 16)
    x = vectors(layout, 64) * torch.logspace(0, -3, 64, device="cuda")[:, None, None] * scale
    body = cuda.encode(x.cpu().numpy(), layout)
    assert np.array_equal(body, REF.encode(x.cpu().numpy(), layout))
    got, want = (b.decode(body, layout).view(np.uint32) for b in (cuda, REF))
    assert np.array_equal(got, want)


def strided(x: torch.Tensor) -> dict[str, torch.Tensor]:
    n, p, d = x.shape
    wide = x.new_zeros(2 * n, p + 8, 3, d)
    wide[::2, 4:-4, 1] = x
    doubled = x.new_zeros(n, p, 2 * d)
    doubled[:, :, ::2] = x
    odd = x.new_zeros(x.numel() + 1)
    odd[1:] = x.flatten()
    return {
        "gaps": wide[::2, 4:-4, 1],
        "tokens first": x.transpose(0, 1).contiguous().transpose(0, 1),
        "channels first": x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "channels apart": doubled[:, :, ::2],
        "off by one element": odd[1:].view(n, p, d),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [SCALAR, E8, RAW], ids=str)
def test_strides_do_not_matter(cuda, layout, dtype) -> None:
    x = vectors(layout, dtype=dtype)
    want = reference(x, layout)
    for name, seen in strided(x).items():
        assert torch.equal(cuda.encode_tensor(seen, layout), want), name
        target = strided(torch.full_like(x, 5.0))[name]
        cuda.decode_tensor(want, layout, out=target)
        assert torch.equal(bits(target), bits(numbers(want, layout, dtype))), name


@pytest.mark.parametrize("layout", [SCALAR, E8], ids=str)
def test_slots_of_a_pool(cuda, layout) -> None:
    """Rule: backend.pool.fits"""
    x, n = vectors(layout), layout.nbytes
    pool = torch.full((9, 2 * n), 0xA5, dtype=torch.uint8, device="cuda")
    slots = torch.tensor([8, -1, 0, 3, 5], device="cuda")
    cuda.append(x, layout, pool[:, n:], slots)
    used = slots[slots >= 0]
    assert torch.equal(pool[used, n:], reference(x, layout)[slots >= 0])
    assert bool((pool[:, :n] == 0xA5).all() and (pool[[1, 2, 4, 6, 7]] == 0xA5).all())
    y = cuda.read(pool[:, n:], layout, slots, dtype=torch.bfloat16)
    want = numbers(pool[used, n:], layout, torch.bfloat16)
    assert torch.equal(bits(y[slots >= 0]), bits(want))
    assert bool((y[1] == 0).all())
    with pytest.raises(ShapeError, match=r"backend\.pool\.fits"):
        cuda.append(x, layout, pool[:, n:], slots + 1)


def test_refusals_come_before_the_first_byte(cuda) -> None:
    """Rule: backend.error.atomic"""
    x = vectors(SCALAR)
    pool = torch.full((5, SCALAR.nbytes), 9, dtype=torch.uint8, device="cuda")
    slots = torch.arange(5, device="cuda")
    for value, rule in ((float("nan"), "num.input.finite"), (3e38, "scale.byte.range")):
        x[3, 17, 5] = value
        with pytest.raises(RangeError, match=rf"\[{rule}\].*page 3, token 17"):
            cuda.append(x, SCALAR, pool, slots)
    assert bool((pool == 9).all())
    pages = cuda.encode_tensor(vectors(E8), E8)
    pages[3] = 0xFF
    out = torch.full((5, 32, 128), 2.5, device="cuda")
    with pytest.raises(Malformed, match=r"\[e8\.index\.range\]"):
        cuda.decode_tensor(pages, E8, out=out)
    assert bool((out == 2.5).all())


@pytest.mark.parametrize("layout", [SCALAR, E8, page_layout("int", 128, 32)], ids=str)
def test_a_graph_is_captured_and_replayed(cuda, layout) -> None:
    """Rule: backend.graph.sticky, backend.graph.prepared"""
    x = vectors(layout, dtype=torch.bfloat16)
    pool = torch.zeros(8, layout.nbytes, dtype=torch.uint8, device="cuda")
    slots, y, status = torch.arange(5, device="cuda"), torch.zeros_like(x), cuda.new_status()
    cuda.prepare(layout, torch.bfloat16)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        cuda.append(x, layout, pool, slots, status=status)
        cuda.read(pool, layout, slots, out=y, status=status)
    for seed in range(3):
        x.copy_(torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
        slots.copy_((torch.arange(5) + seed) % 8)
        graph.replay()
        want = reference(x, layout)
        assert torch.equal(pool[slots], want)
        assert torch.equal(bits(y), bits(numbers(want, layout, torch.bfloat16)))
    cuda.raise_if_bad(status, layout, "encode")
    x[2, 30, 7] = float("inf")
    graph.replay()
    with pytest.raises(RangeError, match="page 2, token 30"):
        cuda.raise_if_bad(status, layout, "encode")


def test_a_capture_without_preparation_is_refused(cuda) -> None:
    """Rule: backend.graph.prepared"""
    layout = page_layout("scalar:b=5,seed=99", 104, 48)
    x = vectors(layout)
    pool = torch.zeros(5, layout.nbytes, dtype=torch.uint8, device="cuda")
    slots, status = torch.arange(5, device="cuda"), cuda.new_status()
    with pytest.raises(UsageError, match=r"\[backend\.graph\.prepared\]"):  # noqa: SIM117
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            cuda.append(x, layout, pool, slots, status=status)
    torch.cuda.synchronize()
    cuda.append(x, layout, pool, slots)
    assert torch.equal(pool, reference(x, layout))


def test_calls_run_on_the_current_stream(cuda) -> None:
    """Long work before the call on the same stream is waited for; two streams do not mix."""
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    inputs = [vectors(SCALAR, 64), vectors(SCALAR, 64) * 3]
    wants = [reference(x, SCALAR) for x in inputs]
    slots, status = torch.arange(64, device="cuda"), cuda.new_status()
    cuda.prepare(SCALAR)
    late = [torch.zeros_like(x) for x in inputs]
    pools = [torch.zeros(64, SCALAR.nbytes, dtype=torch.uint8, device="cuda") for _ in inputs]
    torch.cuda.synchronize()
    for stream, x, source, pool in zip(streams, late, inputs, pools, strict=True):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)
            x.copy_(source)
            cuda.append(x, SCALAR, pool, slots, status=status)
    torch.cuda.synchronize()
    assert all(torch.equal(pool, want) for pool, want in zip(pools, wants, strict=True))


def test_a_thread_that_never_used_the_device(cuda) -> None:
    x, found = vectors(SCALAR), []

    def work() -> None:
        found.append(cuda.encode_tensor(x, SCALAR))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert torch.equal(found[0], reference(x, SCALAR))


def test_tensors_elsewhere_are_refused(cuda) -> None:
    """Rule: num.input.device"""
    with pytest.raises(ShapeError, match=r"\[num\.input\.device\]"):
        cuda.encode_tensor(vectors(SCALAR).cpu(), SCALAR)
