"""Everything that needs a GPU, in one command: ``python -m benchmarks.gpu``.

Times the CUDA backend, runs the conformance suite and compute-sanitizer on it, and writes
``gpu-<device>.json``, its table (Markdown) and the suite's report. Exit code 0: all went well;
1: a check failed; 3: no GPU that the backend can use. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import gpu_plan
from benchmarks.gpu_record import Record, last
from kakeya_ref.errors import Unsupported

RESULTS = Path(__file__).parent / "results"
TARGET = "kakeya_fast.cuda:Backend"
NO_GPU = 3
ROW_SECONDS = 0.4


def compile_step(run: Record) -> None:
    """Kernels of the self-test and of everything that is timed; then the self-test."""
    from benchmarks.gpu_conform import Recorder, compile_all
    from kakeya_fast.cuda.compile import unit
    from kakeya_fast.selftest import power_on
    from kakeya_ref.layout import page_layout

    recorder = Recorder()
    power_on(recorder)
    timed = {
        unit(page_layout(row.codec, row.head_dim, gpu_plan.TOKENS), gpu_plan.DTYPE, direction): None
        for row in gpu_plan.rows()
        for direction in ("encode", "decode")
    }
    begun, arch = time.monotonic(), run.launcher.arch
    count = compile_all([*recorder.units, *timed], arch, run.seconds("compile"))
    run.result["compile"] = count | {"seconds": time.monotonic() - begun, "arch": arch}
    kernels = [(str(one), run.launcher.kernel(one, one.entries[0])) for one in timed]
    run.result["registers"] = {name: kernel.num_regs for name, kernel in kernels}
    spilled = [name for name, kernel in kernels if kernel.local_size_bytes]
    run.say(f"timed kernels that use local memory: {', '.join(spilled) or 'none'}", ok=not spilled)
    run.say(f"self-test: {power_on(run.backend)} comparisons", ok=True)


def bandwidth_step(run: Record) -> None:
    """The table of rates."""
    from benchmarks.gpu_bandwidth import Differs, TooLarge, measure
    from benchmarks.gpu_timing import Flush

    flush = Flush(run.backend.device)
    run.result["rows"] = []
    for row in gpu_plan.rows():
        label = f"{row.codec} D={row.head_dim} {row.shape.name}"
        if run.seconds("bandwidth") <= 0:
            run.leave(f"{label}: no time left")
            continue
        try:
            found = measure(run.backend, row, flush, ROW_SECONDS)
        except TooLarge as error:
            run.leave(f"{label}: {error}")
            continue
        except Differs as error:
            run.say(f"{error}; not timed", ok=False)
            continue
        run.result["rows"].append(found)
        shares = " ".join(f"{w} {found[f'{w}_of_copy']:.0%}" for w in ("encode", "decode"))
        print(f"{label:<36} {shares} of a copy", flush=True)


def decode_step(run: Record) -> None:
    """The append of one decode step."""
    from benchmarks.gpu_bandwidth import Differs
    from benchmarks.gpu_step import measure
    from benchmarks.gpu_timing import Flush

    flush = Flush(run.backend.device)
    run.result["step"] = []
    for codec in gpu_plan.CODECS:
        if run.seconds("step") <= 0:
            run.leave(f"decode step, {codec}: no time left")
            continue
        try:
            found = measure(run.backend, codec, flush, ROW_SECONDS)
        except Differs as error:
            run.say(f"{error}; not timed", ok=False)
            continue
        run.result["step"].append(found)
        times = [found[name]["median"] * 1e6 for name in ("together", "by_layer")]
        print(f"step {codec:<16} {times[0]:.0f} us together, {times[1]:.0f} by layer", flush=True)


def conformance_step(run: Record) -> None:
    """The suite at profile standard."""
    from benchmarks.gpu_conform import compile_all, drawn, suite

    begun, seconds = time.monotonic(), run.seconds("conformance")
    count = compile_all(drawn("standard"), run.launcher.arch, 0.6 * seconds)
    print(f"conformance: {count['compiled']} of {count['units']} kernels compiled", flush=True)
    report = run.out / f"{run.name}-conformance.json"
    done = suite(TARGET, "standard", report, max(30, seconds - (time.monotonic() - begun)))
    run.result["conformance"] = count | {"exit_code": done.code, "seconds": done.seconds}
    run.say(f"conformance: {last(done.tail)}", ok=done.code == 0)
    if done.code:
        print(done.tail, flush=True)


def sanitizer_step(run: Record) -> None:
    """Memory errors and races on small cases."""
    from benchmarks.gpu_sanitizer import TOOLS, tool, watch

    for which in TOOLS:
        if tool() is None or run.seconds("sanitizer") <= 10:
            why = "not installed" if tool() is None else "no time left"
            run.leave(f"compute-sanitizer {which}: {why}")
            continue
        done = watch(which, run.seconds("sanitizer"))
        run.say(f"compute-sanitizer {which}: {last(done.tail)}", ok=done.code == 0)
        if done.code:
            print(done.tail, flush=True)


DO = {
    "compile": compile_step,
    "bandwidth": bandwidth_step,
    "step": decode_step,
    "conformance": conformance_step,
    "sanitizer": sanitizer_step,
}


def carry_out(run: Record, steps: list[str]) -> None:
    """Every step in turn; one that breaks is entered as failed, and the next begins."""
    run.out.mkdir(parents=True, exist_ok=True)
    for name in steps:
        print(f"== {gpu_plan.STEPS[name]}", flush=True)
        if run.seconds(name) <= 0:
            run.leave(f"{gpu_plan.STEPS[name]}: no time left")
        else:
            try:
                DO[name](run)
            except Exception as error:  # the time on a GPU is short: later steps still run
                run.say(f"{name}: {type(error).__name__}: {error}", ok=False)
        run.save()


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and leave")
    parser.add_argument("--only", action="append", choices=list(DO), help="these steps only")
    parser.add_argument("--minutes", type=float, default=8.5, help="of the whole run, at most")
    parser.add_argument("--commit", help="what is measured, for a copy without its history")
    args = parser.parse_args(argv)
    steps = [name for name in DO if name in (args.only or DO)]
    if args.plan:
        print(gpu_plan.text(args.out.name, steps))
        return 0
    try:
        run = Record(args.out, args.minutes, args.commit)
    except (ImportError, Unsupported) as error:
        print(f"no GPU that the CUDA backend can use: {error}", file=sys.stderr)
        return NO_GPU
    carry_out(run, steps)
    print((args.out / f"{run.name}.md").read_text("utf-8"))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
