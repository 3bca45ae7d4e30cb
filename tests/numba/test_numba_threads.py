"""Threads, thread state, compiled code and where it is kept."""

from __future__ import annotations

import ast
import contextlib
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

import kakeya_fast.numba_cpu as package
from kakeya_fast.numba_cpu import Backend, cachedir, jit, team, threads
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
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(NUMBA.encode(x, layout), body)
        np.testing.assert_array_equal(NUMBA.decode(body, layout), y)
    finally:
        numba.set_num_threads(before)


@pytest.fixture(params=["torch's", "ours"])
def two_threads(request, monkeypatch: pytest.MonkeyPatch):
    """Whose threads share the work; at most two of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    ours = request.param == "ours"
    if ours:
        monkeypatch.setattr(team, "borrow", lambda: None)
    elif team.borrow() is None:
        pytest.skip("this torch does not lend its threads")
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_all_work_is_done_wherever_and_the_first_error_is_raised() -> None:
    seen: dict[int, int] = {}

    def work(i: int) -> int:
        seen[i] = threading.get_ident()
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        return i * i

    assert threads.share(5, work) == [0, 1, 4, 9, 16]
    assert set(seen) == set(range(5))
    assert len(set(seen.values())) >= 2
    done = []

    def fail(i: int) -> None:
        done.append(i)
        if i == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        threads.share(3, fail)
    assert sorted(done) == [0, 1, 2], "nobody is still at work when the call returns"


def test_a_child_does_not_wait_for_the_threads_of_its_parent() -> None:
    """Needs a process of its own: pytest's should not be forked."""
    script = (
        "import os, torch, numpy as np\n"
        "from kakeya_fast.numba_cpu import team, threads\n"
        "torch.set_num_threads(2)\n"
        "assert threads.share(2, lambda i: i) == [0, 1]\n"
        "if not (child := os.fork()):\n"
        "    os._exit(threads.share(3, lambda i: i) != [0, 1, 2] or team.borrow() is not None)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


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
    assert cachedir.kernel_dir("raw").parent == Path("chosen")
    source = Path(package.__file__).parent
    assert not list(source.rglob("*.nbi"))
    assert not list(source.rglob("*.nbc"))


def test_an_edit_makes_new_only_what_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: cachedir.kernel_dir(name) for name in ("raw", "lattice", "scalar", "attend")}
    real = cachedir._source
    edited = lambda name: real(name) + "# edited" * (name == "nearest")  # noqa: E731
    monkeypatch.setattr(cachedir, "_source", edited)
    after = {name: cachedir.kernel_dir(name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"lattice"}
    assert cachedir.kernel_dir("attend", "lattice") != cachedir.kernel_dir("attend")


def test_imports_are_those_that_python_sees() -> None:
    folder = Path(package.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    for name in modules:
        seen = set()
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(a.name.startswith(package.__name__) for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level
                if node.module == package.__name__:
                    seen |= {a.name for a in node.names}
                elif node.module.startswith(package.__name__ + "."):
                    seen.add(node.module.rpartition(".")[2])
        assert set(cachedir._imports(name)) == seen <= modules


def test_a_kernel_is_found_again_whatever_was_compiled_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAKEYA_CACHE_DIR", str(tmp_path))
    for kind in (np.float32, np.float64):
        jit.Kernel(_double)(np.ones(4, kind), np.empty(4, kind), 4)
    assert len(list(tmp_path.rglob("*.nbi"))) == len(list(tmp_path.rglob("*.nbc"))) == 2
    again = jit.Kernel(_double)
    target = np.empty(4)
    assert again(np.ones(4), target, 4) == 4
    assert target.tolist() == [2.0] * 4
    assert again.dispatcher.stats.cache_hits == {next(iter(again.dispatcher.overloads)): 1}


def _double(source, target, count):
    for i in range(count):
        target[i] = 2 * source[i]
    return count


_double.__module__ = jit.__name__  # as if it stood there
