"""Threads, thread state, compiled code and where it is kept."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

import kakeya_fast.numba_cpu as package
from kakeya_fast.numba_cpu import Backend, cachedir
from kakeya_fast.numba_cpu.gain import rms
from kakeya_fast.numba_cpu.rotate import hadamard
from kakeya_fast.numba_cpu.threads import GRAIN
from kakeya_ref.errors import Unsupported
from kakeya_ref.layout import page_layout

NUMBA = Backend()
LAYOUTS = [page_layout(c, 64, 32) for c in ("raw", "fp8", "int", "scalar", "e8")]


def vectors(pages: int) -> np.ndarray:
    return np.random.default_rng(pages).standard_normal((pages, 32, 64), dtype=np.float32)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(layout) -> None:
    x = vectors(2 * GRAIN // (32 * 64) + 1)  # enough for two threads, not a multiple of them
    body = NUMBA.encode(x, layout)
    y = NUMBA.decode(body, layout)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(NUMBA.encode(x, layout), body)
        np.testing.assert_array_equal(NUMBA.decode(body, layout), y)
    finally:
        numba.set_num_threads(threads)


def test_no_pages_and_one_page() -> None:
    layout = page_layout("e8", 64, 32)
    assert NUMBA.encode(vectors(1)[:0], layout).shape == (0, layout.nbytes)
    assert NUMBA.decode(b"", layout).shape == (0, 32, 64)
    assert NUMBA.encode(vectors(1), layout).shape == (1, layout.nbytes)


def test_calls_from_several_threads_at_once() -> None:
    layout, batches = page_layout("scalar", 64, 32), [vectors(n) for n in range(3, 9)]
    want = [NUMBA.encode(x, layout) for x in batches]
    got: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        got[i] = NUMBA.encode(batches[i], layout)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, body in enumerate(want):
        np.testing.assert_array_equal(got[i], body)


def test_flushed_subnormals_are_refused_or_absent() -> None:
    """A thread that flushes must not write a page; one that does not may."""
    layout = page_layout("fp8", 64, 32)
    x = np.full((2, 32, 64), 1e-41, dtype=np.float32)
    want = NUMBA.encode(x, layout)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormal numbers")
    try:
        with contextlib.suppress(Unsupported):
            np.testing.assert_array_equal(NUMBA.encode(x, layout), want)
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(NUMBA.encode(x, layout), want)


def test_no_fused_multiply_add_is_compiled() -> None:
    """Sums of products and scaled butterflies are where a compiler would contract."""
    y, squares, gain = np.ones((64, 32), "f4"), np.ones((32, 32), "f4"), np.ones(32, "f4")
    rms(y, squares, gain)
    hadamard(y, np.array([64]), np.array([0.125], np.float32))
    for kernel in (rms, hadamard):
        for asm in kernel.inspect_asm().values():
            assert not re.search(r"\bvfn?m(add|sub)|\bfml[as]\b|\bfn?m(add|sub)\b", asm)
        for llvm in kernel.inspect_llvm().values():
            assert not re.search(r"f(mul|add|sub) (fast|contract|reassoc)", llvm)


def test_compiled_kernels_stay_out_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAKEYA_CACHE_DIR", "chosen")
    assert cachedir.kernel_dir().parent == Path("chosen")
    source = Path(package.__file__).parent
    assert not list(source.rglob("*.nbi"))
    assert not list(source.rglob("*.nbc"))


def test_numbas_own_cache_setting_is_put_back() -> None:
    before = numba.config.CACHE_DIR
    with cachedir.kernel_cache():
        assert str(cachedir.kernel_dir()) == numba.config.CACHE_DIR
    assert before == numba.config.CACHE_DIR
