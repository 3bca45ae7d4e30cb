"""From a layout to device code: NVRTC, once for each source, set of macros and architecture.

CuPy's own compilation of sources is not used: it appends ``-ftz=true`` to the options it is given,
which flushes subnormal numbers to zero.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from kakeya_fast.cuda import params
from kakeya_fast.env import cache_dir
from kakeya_ref.errors import Unsupported
from kakeya_ref.types import PageLayout

LOG = logging.getLogger("kakeya")
RULE = "backend.name.explicit"
ENTRIES = {
    "encode": ("kakeya_encode", "kakeya_check_input"),
    "decode": ("kakeya_decode", "kakeya_check_pages"),
}


class Unit(NamedTuple):
    """What is compiled: one file of kernels under a set of macros.

    Layouts that differ only in what kernels read from tables (the seed) share a unit.
    """

    source: str
    defines: tuple[str, ...]
    entries: tuple[str, ...]

    def __str__(self) -> str:
        macros = (d.removeprefix("-DKAKEYA_") for d in self.defines)
        return f"{self.source} {' '.join(macros)}"


@lru_cache(maxsize=4096)
def unit(layout: PageLayout, dtype: str, direction: str, basis: str = "vectors") -> Unit:
    """The unit of a layout.

    Parameters
    ----------
    dtype : str
        ``float32``, ``float16`` or ``bfloat16``: of the vectors, in or out.
    direction : str
        ``encode`` or ``decode``.
    """
    defines = params.defines(layout, params.KINDS[dtype], direction, basis)
    return Unit(params.source(layout), defines, ENTRIES[direction])


def options(made: Unit) -> tuple[str, ...]:
    """Compiler options of a unit, the same for NVRTC and nvcc, without the architecture.

    Rule: num.fp32.no-fma, num.subnormal.kept
    """
    return (*params.OPTIONS, *made.defines)


@cache
def sources_hash() -> str:
    """Of every kernel source: a header changed changes all units."""
    digest = hashlib.sha256()
    for path in sorted(params.SOURCES.glob("*.cu*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def architecture(capability: tuple[int, int], supported: tuple[int, ...]) -> str:
    """NVRTC's name for a device, or for the newest one it knows if the device is newer.

    Raises
    ------
    Unsupported
        The device is older than anything this NVRTC compiles for.
    """
    wanted = 10 * capability[0] + capability[1]
    if wanted in supported:
        return f"sm_{wanted}"
    older = [arch for arch in supported if arch < wanted]
    if not older:
        raise Unsupported(RULE, f"NVRTC compiles for {supported}, the device is sm_{wanted}")
    return f"compute_{max(older)}"  # PTX, which the driver translates


def path_of(made: Unit, arch: str, version: tuple[int, int]) -> Path:
    """Where the code of a unit is kept: named by everything it depends on."""
    words = (sources_hash(), arch, *map(str, version), made.source, *options(made))
    name = hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]
    suffix = "cubin" if arch.startswith("sm_") else "ptx"
    return cache_dir() / "cuda" / f"{name}.{suffix}"


def build(made: Unit, arch: str) -> Path:
    """File with the device code of a unit, compiled now if there is none yet.

    Needs no GPU. Safe to call from several processes at once.

    Parameters
    ----------
    arch : str
        ``sm_90`` for machine code, ``compute_90`` for PTX.

    Raises
    ------
    Unsupported
        No NVRTC, it refuses the source, or the cache folder cannot be written.
    """
    nvrtc = load_nvrtc()
    path = path_of(made, arch, nvrtc.getVersion())
    if path.exists():
        return path
    begun = time.perf_counter()
    code, log = _compile(nvrtc, made, arch)
    try:
        _write(path, code)
    except OSError as error:
        raise Unsupported(
            RULE, f"compiled kernels cannot be kept ({error}); set KAKEYA_CACHE_DIR"
        ) from error
    LOG.info("compiled %s for %s in %.1f s", made, arch, time.perf_counter() - begun)
    LOG.debug("%s", log)
    return path


def load_nvrtc() -> object:
    """CuPy's binding of NVRTC.

    Raises
    ------
    Unsupported
        No CuPy, or the library behind it is not installed.
    """
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        raise Unsupported(
            RULE, f"cuda needs CuPy and NVRTC: pip install 'kakeya-kv[cuda]' ({error})"
        ) from error
    return nvrtc


def _compile(nvrtc: object, made: Unit, arch: str) -> tuple[bytes, str]:
    text = (params.SOURCES / made.source).read_text("utf-8")
    # Constant functions carry no mark of where they run; nvcc does not ask for one.
    words = (*options(made), "-default-device", f"-I{params.SOURCES}", f"-arch={arch}")
    if arch.startswith("sm_"):
        words += ("--ptxas-options=-v",)
    program = nvrtc.createProgram(text, made.source, (), ())
    try:
        try:
            nvrtc.compileProgram(program, words)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise Unsupported(RULE, f"NVRTC refuses {made} for {arch}: {error}\n{log}") from error
        code = nvrtc.getCUBIN(program) if arch.startswith("sm_") else nvrtc.getPTX(program)
        return code, nvrtc.getProgramLog(program).strip("\0 \n")
    finally:
        nvrtc.destroyProgram(program)


def _write(path: Path, code: bytes) -> None:
    # Renamed into place: another process may be reading or writing the same file.
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(code)
    os.replace(file.name, path)
