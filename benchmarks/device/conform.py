"""The conformance suite on a GPU: kernels of every layout that it draws, then the suite.

The suite draws over a thousand layouts, and each has kernels of its own. It runs on the reference
first, which shows which, codec by codec; they are compiled on all cores; then it runs on the GPU.
Run by itself, it is the program that draws and compiles, beside what keeps the GPU busy:
``python -m benchmarks.device.conform sm_90 standard``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.device.run import Outcome, python
from kakeya_conformance.runner import run_checks
from kakeya_fast.cuda import attend_plan, params
from kakeya_fast.cuda import compile as compiler
from kakeya_fast.cuda.compile import Unit
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import codec_ids, is_resolved, parse_codec
from kakeya_ref.types import PageLayout, Support


class Recorder(ReferenceBackend):
    """The reference, offering what the GPU offers, noting what it is asked for."""

    def __init__(self) -> None:
        self.units: dict[Unit, None] = {}

    def supports(self, layout: PageLayout) -> Support:
        reason = params.refusal(layout)
        if reason:
            return Support(False, frozenset(), reason)
        more = {"attend"} if not attend_plan.refusal((layout, layout)) else set()
        return Support(True, frozenset({"decode", "encode", *more}))

    def encode(self, x: Any, layout: PageLayout, **options: Any) -> Any:
        if str(getattr(x, "dtype", "")) in params.KINDS:
            self.units[compiler.unit(layout, str(x.dtype), "encode")] = None
        return super().encode(x, layout, **options)

    def decode(self, pages: Any, layout: PageLayout, **options: Any) -> Any:
        basis = options.get("basis", "vectors")
        if basis in ("vectors", "coefficients"):
            self.units[compiler.unit(layout, "float32", "decode", basis)] = None
        return super().decode(pages, layout, **options)

    def attend(self, q: Any, k: Any, v: Any, layouts: Any, *given: Any, **options: Any) -> Any:
        flags = {name: options.get(name) is not None for name in ("softcap", "window", "bias")}
        kind, rows = params.KINDS["float32"], q.shape[3]
        tuned = attend_plan.tuning(layouts, rows)
        numbers = attend_plan.numbers(layouts, kind, rows, tuned, **flags)
        made = Unit("attend.cu", numbers.defines(tuned.resident), (attend_plan.ENTRY,))
        self.units[made] = None
        return super().attend(q, k, v, layouts, *given, **options)


def drawn(profile: str, *codecs: str) -> list[Unit]:
    """What has to be compiled for a run of the suite, on these codecs or on all."""
    recorder = Recorder()
    run_checks(recorder, profile=profile, codecs=codecs)
    return list(recorder.units)


def prepare(profile: str, arch: str) -> int:
    """Draw and compile, codec by codec, on all cores; how many units."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        offered = [c for c in codec_ids() if Recorder().supports(plain(c)).ok]
        draws = [pool.submit(drawn, profile, codec) for codec in reversed(offered)]
        jobs: dict[Unit, Any] = {}
        for draw in as_completed(draws):
            for unit in draw.result():
                jobs.setdefault(unit, None)
                jobs[unit] = jobs[unit] or pool.submit(compiler.build, unit, arch)
        for job in jobs.values():
            job.result()
    return len(jobs)


def plain(codec_id: str) -> PageLayout:
    """A layout of a codec."""
    codec = parse_codec(codec_id)
    return page_layout(codec if is_resolved(codec) else f"{codec_id}:rank=8", 64, 16)


def begin(arch: str, profile: str) -> subprocess.Popen[str]:
    """:func:`prepare` in a process of its own."""
    words = (sys.executable, "-m", "benchmarks.device.conform", arch, profile)
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, **both, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str], seconds: float) -> str:
    """Wait for :func:`begin` so long at most; what it said last."""
    try:
        said, _ = process.communicate(timeout=max(1, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # and the processes that it shares its work with
        process.wait()
        return "kernels of the suite: not all compiled before it ran"
    return said.strip().rpartition("\n")[2]


def compile_all(units: list[Unit], arch: str, seconds: float) -> dict[str, int]:
    """Compile on all cores for so long at most; what is left is compiled when it is used."""
    done = 0
    # Fresh processes: this one may hold a CUDA context, which a fork would break.
    pool = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
    jobs = [pool.submit(compiler.build, unit, arch) for unit in units]
    try:
        for job in as_completed(jobs, timeout=seconds):
            job.result()
            done += 1
    except TimeoutError:
        pass
    finally:
        pool.shutdown(cancel_futures=True)
    return {"units": len(units), "compiled": done}


def suite(target: str, profile: str, report: Path, seconds: float) -> Outcome:
    """The command that a backend's author runs, in a process of its own."""
    words = ("-m", "kakeya_conformance", target, "--profile", profile, "--json", str(report))
    return python(words, seconds)


def main() -> int:
    """Draw and compile with what the timing leaves of the cores."""
    os.nice(10)
    begun = time.monotonic()
    arch, profile = sys.argv[1:]
    count = prepare(profile, arch)
    print(f"kernels of the suite: {count} units in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
