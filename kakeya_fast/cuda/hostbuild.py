"""The kernels as a shared library for this machine: built once, kept, called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from kakeya_fast.cuda import attend_plan, params
from kakeya_fast.env import cache_dir
from kakeya_ref.errors import Unsupported
from kakeya_ref.types import PageLayout

LOG = logging.getLogger("kakeya")
RULE = "backend.name.explicit"
COMPILERS = ("c++", "g++", "clang++")
# No contraction and no fast-math: what a compiler may not do to fp32 is part of the format.
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fno-fast-math"),
    *("-Wall", "-Wextra", "-Werror"),
)

_CODECS = {"raw": 0, "fp8": 1, "int": 2, "scalar": 3, "d4": 4, "e8": 5, "trellis": 6, "query": 7}
_FIELDS = ("D", "P", "KIND", "VECTORS", "B", "G", "CHANNEL", "Q", "STORED", "UNBIASED")
ATTEND_ARGUMENTS = 42  # pointers too are words of 8 bytes
_lock = threading.Lock()


class Plan(ctypes.Structure):
    """``Plan`` of kernels/plan.cuh, where the numbers are the macros of a device build."""

    _fields_ = [(name, ctypes.c_int) for name in _FIELDS]


def run(
    layout: PageLayout, defines: tuple[str, ...], entry: str, n_pages: int, args: tuple[int, ...]
) -> None:
    """Run a kernel on the calling thread; other Python threads run meanwhile.

    Rule: num.subnormal.kept

    Parameters
    ----------
    defines : tuple of str
        What :func:`kakeya_fast.cuda.params.defines` gives.
    entry : str
        Name of the kernel.
    args : tuple of int
        Its arguments, pointers as integers.

    Raises
    ------
    Unsupported
        The library cannot be built, or this thread flushes subnormal numbers.
    """
    lib = library()
    if lib.kakeya_host_flushes(ctypes.c_float.from_buffer_copy(b"\1\0\0\0")):
        raise Unsupported("num.subnormal.kept", "this thread flushes subnormal numbers to zero")
    given = dict(d.removeprefix("-DKAKEYA_").split("=") for d in defines)
    plan = Plan(*(int(given.get(name, 0)) for name in _FIELDS))
    blocks, threads = params.launch(layout, n_pages)
    head = (_CODECS[layout.codec.id], int("check" in entry), ctypes.byref(plan))
    call = lib.kakeya_host_encode if "ENCODE" in given else lib.kakeya_host_decode
    call(*head, blocks * threads // params.WARP, *args)


def start(
    entry: str, numbers: tuple[int, ...], grid: tuple[int, int, int], args: tuple[int, ...]
) -> None:
    """Run a kernel of attention on the calling thread.

    Parameters
    ----------
    entry : str
        Name of the kernel.
    numbers : tuple of int
        A :class:`kakeya_fast.cuda.attend_plan.Numbers`.
    args : tuple of int
        Arguments of the device's entry, pointers and bits of floats as integers.
    """
    plan = (ctypes.c_int * len(numbers))(*numbers)
    _attends(library())[entry](plan, *grid, *args)


def shared(numbers: tuple[int, ...]) -> int:
    """Bytes of shared memory that the kernel source reckons with."""
    return int(library().kakeya_host_attend_shared((ctypes.c_int * len(numbers))(*numbers)))


def _attends(lib: ctypes.CDLL) -> dict[str, Any]:
    return {
        attend_plan.ENTRY: lib.kakeya_host_attend,
        attend_plan.TURN: lib.kakeya_host_turn_queries,
    }


@cache
def _load(path: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(path))
    word, pointer = ctypes.c_longlong, ctypes.c_void_p
    head = [ctypes.c_int, ctypes.c_int, pointer, word]
    lib.kakeya_host_encode.argtypes = [
        *head, pointer, word, word, word, pointer, pointer, pointer, word, pointer, word, pointer
    ]  # fmt: skip
    lib.kakeya_host_decode.argtypes = [
        *head, pointer, word, pointer, pointer, pointer, pointer, word, word, word, word, pointer
    ]  # fmt: skip
    lib.kakeya_host_encode.restype = lib.kakeya_host_decode.restype = None
    lib.kakeya_host_flushes.argtypes = [ctypes.c_float]
    for kernel in _attends(lib).values():
        kernel.argtypes = [pointer, *[word] * (3 + ATTEND_ARGUMENTS)]
        kernel.restype = None
    lib.kakeya_host_attend_shared.argtypes = [pointer]
    lib.kakeya_host_attend_shared.restype = word
    return lib


def library() -> ctypes.CDLL:
    """The library, built now if it is not kept from before.

    Raises
    ------
    Unsupported
        No C++ compiler, it refuses the source, or the folder cannot be written.
    """
    with _lock:
        return _load(_built())


def _built() -> Path:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise Unsupported(RULE, f"cuda-host needs a C++ compiler, one of {', '.join(COMPILERS)}")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(version + " ".join(FLAGS).encode())
    for source in sorted(params.SOURCES.iterdir()):
        if source.suffix in (".cuh", ".cpp"):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    path = cache_dir() / f"cuda-host-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        try:
            _build(compiler, path)
        except OSError as error:
            raise Unsupported(
                RULE, f"host kernels cannot be kept ({error}); set KAKEYA_CACHE_DIR"
            ) from error
    return path


def _build(compiler: str, path: Path) -> None:
    begun = time.perf_counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed into place: another process may be reading or writing the same file.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        sources = sorted(params.SOURCES.glob("*.cpp"))
        objects = [str(Path(folder) / f"{source.stem}.o") for source in sources]
        # Side by side: each takes tens of seconds.
        each = [
            _started(compiler, *FLAGS, "-c", str(source), "-o", made_of)
            for source, made_of in zip(sources, objects, strict=True)
        ]
        said = [one.communicate()[1] for one in each]
        if not any(one.returncode for one in each):
            each = [_started(compiler, "-shared", *objects, "-o", str(made))]
            said = [each[0].communicate()[1]]
        if any(one.returncode for one in each):
            raise Unsupported(RULE, f"{compiler} refuses the kernels: {''.join(said)[:2000]}")
        os.replace(made, path)
    LOG.info("compiled %s in %.1f s", path.name, time.perf_counter() - begun)


def _started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
