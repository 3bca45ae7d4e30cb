"""No kernel reads or writes beyond what it was given: the host build under an address sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from addresses import ATTEND, DONE, QUERY
from test_host_exact import LAYOUTS

from kakeya_fast.cuda.hostbuild import COMPILERS

HERE = Path(__file__).parent


@pytest.fixture
def sanitized() -> dict[str, str]:
    """The environment of a Python whose memory is watched."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    told = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    library = Path(told.stdout.strip())
    if not library.is_absolute():
        pytest.skip(f"{compiler} has no address sanitizer")
    options = "detect_leaks=0:alloc_dealloc_mismatch=0"
    return os.environ | {
        "LD_PRELOAD": str(library), "ASAN_OPTIONS": options, "PYTHONMALLOC": "malloc",
    }  # fmt: skip


def run(which: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / "addresses.py"), which], env=env, capture_output=True, text=True
    )


def test_kernels_stay_within_what_they_are_given(sanitized: dict[str, str]) -> None:
    done = run("whole", sanitized)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[-2] == f"{DONE} {len(ATTEND)} {len(LAYOUTS)} {len(QUERY)}"


def test_a_pool_that_is_too_short_is_caught(sanitized: dict[str, str]) -> None:
    done = run("cut", sanitized)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert DONE not in done.stdout
