"""Everything that needs a GPU, in one command: ``python -m benchmarks.gpu``.

Times the CUDA backend, runs the conformance suite and compute-sanitizer on it, and writes
``gpu-<device>.json``, its table (Markdown) and the suite's report. Exit code 0: all went well;
1: a check failed; 3: no GPU that the backend can use. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import gpu_plan, machine
from benchmarks.gpu_table import markdown, verdicts
from kakeya_ref.errors import Unsupported

RESULTS = Path(__file__).parent / "results"
TARGET = "kakeya_fast.cuda.backend:Backend"
NO_GPU = 3
# Seconds that a step may take, and that it leaves to the steps after it.
LIMITS = {
    "compile": (90, 300),
    "bandwidth": (170, 210),
    "step": (30, 180),
    "conformance": (330, 60),
    "sanitizer": (120, 5),
}


class Run:
    """A run under way: what is known so far, and how much time is left."""

    def __init__(self, out: Path, minutes: float) -> None:
        from kakeya_fast.cuda.backend import Backend
        from kakeya_fast.cuda.launch import CupyLauncher, cuda_device

        self.out, self.minutes, self.begun = out, minutes, time.monotonic()
        self.launcher = CupyLauncher(cuda_device("cuda"))
        self.backend = Backend(launcher=self.launcher)
        self.failed = False
        self.result: dict[str, Any] = machine.describe() | {
            "device": describe(self.backend.device),
            "checks": [],
            "not_run": [],
        }
        self.result["versions"] |= libraries()
        self.name = "gpu-" + slug(self.result["device"]["name"])

    def seconds(self, step: str) -> float:
        """How long a step may take from now on."""
        limit, reserve = LIMITS[step]
        return min(limit, 60 * self.minutes - (time.monotonic() - self.begun) - reserve)

    def say(self, text: str, *, ok: bool) -> None:
        """Enter the outcome of a check."""
        self.failed |= not ok
        self.result["checks"].append(text if ok else f"**failed**: {text}")
        print(text if ok else f"FAILED: {text}", flush=True)

    def leave(self, text: str) -> None:
        """Enter what did not happen."""
        self.result["not_run"].append(text)
        print(f"not run: {text}", flush=True)

    def save(self) -> None:
        """Write what is known so far."""
        self.result["seconds"] = time.monotonic() - self.begun
        self.result["targets"] = verdicts(self.result.get("rows", []))
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{self.name}.json"
        path.write_text(json.dumps(short(self.result), indent=1) + "\n", "utf-8")
        path.with_suffix(".md").write_text(markdown(self.result), "utf-8")


def compile_step(run: Run) -> None:
    """Kernels of the self-test and of everything that is timed; then the self-test."""
    from benchmarks.gpu_conform import Recorder, compile_all
    from kakeya_fast.cuda.compile import unit
    from kakeya_fast.selftest import power_on
    from kakeya_ref.layout import page_layout

    recorder = Recorder()
    power_on(recorder)
    timed = {
        unit(page_layout(row.codec, row.head_dim, gpu_plan.TOKENS), gpu_plan.DTYPE, direction)
        for row in gpu_plan.rows()
        for direction in ("encode", "decode")
    }
    begun = time.monotonic()
    count = compile_all(
        [*recorder.units, *sorted(timed)], run.launcher.arch, run.seconds("compile")
    )
    run.result["compile"] = count | {"seconds": time.monotonic() - begun, "arch": run.launcher.arch}
    run.result["kernels"] = {
        str(one): {
            entry: [kernel.num_regs, kernel.local_size_bytes]
            for entry in one.entries
            for kernel in (run.launcher.kernel(one, entry),)
        }
        for one in sorted(timed)
    }
    local = [
        name for name, found in run.result["kernels"].items() if any(m for _, m in found.values())
    ]
    run.say(f"{len(local)} of {len(timed)} timed kernels use local memory", ok=not local)
    try:
        run.say(f"self-test: {power_on(run.backend)} comparisons", ok=True)
    except Unsupported as error:
        run.say(f"self-test: {error}", ok=False)


def bandwidth_step(run: Run) -> None:
    """The table of rates."""
    from benchmarks.gpu_bandwidth import TooLarge, measure
    from benchmarks.gpu_timing import Flush

    flush = Flush(run.backend.device)
    run.result["rows"] = []
    for row in gpu_plan.rows():
        label = f"{row.codec} D={row.head_dim} {row.shape.name}"
        if run.seconds("bandwidth") <= 0:
            run.leave(f"{label}: no time left")
            continue
        try:
            found = measure(run.backend, row, flush, seconds=0.4)
        except TooLarge as error:
            run.leave(f"{label}: {error}")
            continue
        run.result["rows"].append(found)
        shares = " ".join(f"{w} {found[f'{w}_of_copy']:.0%}" for w in ("encode", "decode"))
        print(f"{label:<36} {shares} of a copy", flush=True)


def step_step(run: Run) -> None:
    """The append of one decode step."""
    from benchmarks.gpu_step import measure
    from benchmarks.gpu_timing import Flush

    flush = Flush(run.backend.device)
    run.result["step"] = []
    for codec in gpu_plan.CODECS:
        if run.seconds("step") <= 0:
            run.leave(f"decode step, {codec}: no time left")
            continue
        found = measure(run.backend, codec, flush, seconds=0.4)
        run.result["step"].append(found)
        print(f"step {codec:<16} {found['graph']['median'] * 1e6:.0f} us in a graph", flush=True)


def conformance_step(run: Run) -> None:
    """The suite at profile standard."""
    from benchmarks.gpu_conform import compile_all, drawn, suite

    begun, seconds = time.monotonic(), run.seconds("conformance")
    units = drawn("standard")
    count = compile_all(units, run.launcher.arch, 0.6 * seconds)
    print(f"conformance: {count['compiled']} of {count['units']} kernels compiled", flush=True)
    report = run.out / f"{run.name}-conformance.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    done = suite(TARGET, "standard", report, max(30, seconds - (time.monotonic() - begun)))
    run.result["conformance"] = count | {"exit_code": done.code, "seconds": done.seconds}
    run.say(f"conformance: {last(done.tail)}", ok=done.code == 0)
    if done.code:
        run.result["conformance"]["tail"] = done.tail
        print(done.tail, flush=True)


def sanitizer_step(run: Run) -> None:
    """Memory errors and races on small cases."""
    from benchmarks.gpu_sanitizer import TOOLS, tool, watch

    if tool() is None:
        run.leave("compute-sanitizer is not installed")
        return
    for which in TOOLS:
        if run.seconds("sanitizer") <= 10:
            run.leave(f"compute-sanitizer {which}: no time left")
            continue
        done = watch(which, run.seconds("sanitizer"))
        run.say(f"compute-sanitizer {which}: {last(done.tail)}", ok=done.code == 0)
        if done.code:
            print(done.tail, flush=True)


DO = {
    "compile": compile_step,
    "bandwidth": bandwidth_step,
    "step": step_step,
    "conformance": conformance_step,
    "sanitizer": sanitizer_step,
}


def describe(device: Any) -> dict[str, Any]:
    """What the table says about a GPU."""
    import torch

    from benchmarks.gpu_run import command

    found = torch.cuda.get_device_properties(device)
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        driver = command(query, 20).tail.split()[0]
    except (OSError, IndexError):
        driver = "unknown"
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "processors": found.multi_processor_count,
        "memory": found.total_memory,
        "l2": getattr(found, "L2_cache_size", 0),
        "driver": driver,
    }


def libraries() -> dict[str, str]:
    """Versions of what compiles and starts kernels."""
    import cupy
    import torch

    from kakeya_fast.cuda.compile import load_nvrtc

    nvrtc: Any = load_nvrtc()
    version = ".".join(str(part) for part in nvrtc.getVersion())
    return {"cuda": torch.version.cuda or "none", "cupy": cupy.__version__, "nvrtc": version}


def slug(name: str) -> str:
    """``nvidia-h100-80gb-hbm3`` of a device's name, for file names."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def last(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "said nothing"


def short(value: Any) -> Any:
    """Floats to five digits: more is noise, and result files stay small."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: short(one) for key, one in value.items()}
    return [short(one) for one in value] if isinstance(value, list) else value


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and leave")
    parser.add_argument("--only", action="append", choices=list(DO), help="these steps only")
    parser.add_argument("--minutes", type=float, default=8.5, help="of the whole run, at most")
    args = parser.parse_args(argv)
    steps = [name for name in DO if name in (args.only or DO)]
    if args.plan:
        print(gpu_plan.text(args.out.name, steps))
        return 0
    try:
        run = Run(args.out, args.minutes)
    except (ImportError, Unsupported) as error:
        print(f"no GPU that the CUDA backend can use: {error}", file=sys.stderr)
        return NO_GPU
    for name in steps:
        print(f"== {gpu_plan.STEPS[name]}", flush=True)
        if run.seconds(name) <= 0:
            run.leave(f"{gpu_plan.STEPS[name]}: no time left")
        else:
            DO[name](run)
        run.save()
    print("\n" + markdown(run.result))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
