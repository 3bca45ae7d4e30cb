"""Everything that needs a GPU, in one command: ``python -m benchmarks.gpu``.

Times the CUDA backend, runs the conformance suite and compute-sanitizer on it, and writes
``gpu-<device>.json``, its table (Markdown) and the suite's report. What that file has of the same
kernels already is left as it is, so a run goes on where the last one was cut off. Exit code 0: all
went well; 1: a check failed; 3: no GPU that the backend can use. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.device import plan as gpu_plan
from benchmarks.device.record import Record, last
from benchmarks.device.run import TIMED_OUT, no_gpu
from kakeya_ref.errors import Unsupported

RESULTS = Path(__file__).parent / "results"
TARGET = "kakeya_fast.cuda:Backend"
ROW_SECONDS = 0.2
STEP_SECONDS = 0.15
PREFILL_SECONDS = 1.0
LEAST_SECONDS = 20  # under a sanitizer torch alone takes this long to start


def compile_step(run: Record) -> None:
    """Kernels of the self-test and of everything that is timed; then the self-test."""
    from benchmarks.device.conform import Recorder, compile_all
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
    run.run["compile"] = count | {"seconds": time.monotonic() - begun, "arch": arch}
    kernels = [(str(one), run.launcher.kernel(one, one.entries[0])) for one in timed]
    run.run["registers"] = {name: kernel.num_regs for name, kernel in kernels}
    spilled = [name for name, kernel in kernels if kernel.local_size_bytes]
    run.say(f"timed kernels that use local memory: {', '.join(spilled) or 'none'}", ok=not spilled)
    run.say(f"self-test: {power_on(run.backend)} comparisons", ok=True)


def bandwidth_step(run: Record) -> None:
    """The table of rates."""
    from benchmarks.device.bandwidth import Differs, TooLarge, measure
    from benchmarks.device.timing import Flush

    flush = Flush(run.backend.device)
    # What was never measured comes first, then what was measured of other kernels.
    rows = [row for row in gpu_plan.rows() if not run.has("rows", **row.key)]
    rows.sort(key=lambda row: run.knows("rows", **row.key))
    end = time.monotonic() + run.seconds("bandwidth")
    for done, row in enumerate(rows):
        label = f"{row.codec} D={row.head_dim} {row.shape.name}"
        if time.monotonic() > end:
            run.leave(f"{len(rows) - done} rows of rates from {label} on: no time left")
            break
        try:
            found = measure(run.backend, row, flush, ROW_SECONDS)
        except TooLarge as error:
            run.leave(f"{label}: {error}")
            continue
        except Differs as error:
            run.say(f"{error}; not timed", ok=False)
            continue
        run.add("rows", found)
        shares = " ".join(f"{w} {found[f'{w}_of_copy']:.0%}" for w in ("encode", "decode"))
        print(f"{label:<36} {shares} of a copy", flush=True)


def decode_step(run: Record) -> None:
    """The append of one decode step."""
    from benchmarks.device.bandwidth import Differs
    from benchmarks.device.step import measure
    from benchmarks.device.timing import Flush

    flush = Flush(run.backend.device)
    codecs = [codec for codec in gpu_plan.CODECS if not run.has("step", codec=codec)]
    codecs.sort(key=lambda codec: run.knows("step", codec=codec))
    end = time.monotonic() + run.seconds("step")
    for codec in codecs:
        if time.monotonic() > end:
            run.leave(f"decode step, {codec}: no time left")
            continue
        try:
            found = measure(run.backend, codec, flush, STEP_SECONDS)
        except Differs as error:
            run.say(f"{error}; not timed", ok=False)
            continue
        run.add("step", found)
        told = {
            name: found[name]["median"] * 1e6
            for name in ("together", "gathered", "aside", "by_layer")
        }
        text = ", ".join(f"{name.replace('_', ' ')} {us:.0f} us" for name, us in told.items())
        print(f"step {codec:<16} {text}", flush=True)


def prefill_step(run: Record) -> None:
    """Encoding of a prompt's keys and values against the forward that makes them."""
    from benchmarks.device.prefill import measure
    from benchmarks.device.timing import Flush

    flush = Flush(run.backend.device)
    end = time.monotonic() + run.seconds("prefill")
    for tokens in gpu_plan.PREFILL["tokens"]:
        if run.has("prefill", tokens=tokens):
            continue
        if time.monotonic() > end:
            run.leave(f"prefill of {tokens} tokens: no time left")
            continue
        found = measure(run.backend, tokens, flush, PREFILL_SECONDS)
        run.add("prefill", found)
        layer = found["layer"]["median"]
        shares = " ".join(f"{k} {s['median'] / layer:.1%}" for k, s in found["encode"].items())
        print(f"prefill {tokens}: a layer {layer * 1e3:.2f} ms; {shares}", flush=True)


def conform_step(run: Record) -> None:
    """The suite at profile standard, once its kernels are there."""
    from benchmarks.device.conform import finish, suite

    if run.passed("conformance"):
        return
    begun, seconds = time.monotonic(), run.seconds("conform")
    if run.behind is not None:
        run.say(finish(run.behind, 0.6 * seconds), ok=run.behind.returncode == 0)
    waited = time.monotonic() - begun
    report = run.out / f"{run.name}-conformance.json"
    done = suite(TARGET, "standard", report, max(20, seconds - waited))
    run.run["conformance"] = {"exit_code": done.code, "seconds": done.seconds, "waited": waited}
    if done.code == TIMED_OUT:
        run.leave(f"conformance: not finished in {done.seconds:.0f} s")
        return
    run.say(f"conformance: {last(done.tail)}", ok=done.code == 0)
    if done.code:
        print(done.tail, flush=True)


def sanitizer_step(run: Record) -> None:
    """Memory errors and races on small cases."""
    from benchmarks.device.sanitizer import TOOLS, tool, watch

    end = time.monotonic() + run.seconds("sanitizer")
    for which in (x for x in TOOLS if not run.passed(f"compute-sanitizer {x}")):
        left = end - time.monotonic()
        if tool() is None or left <= LEAST_SECONDS:
            why = "not installed" if tool() is None else "no time left"
            run.leave(f"compute-sanitizer {which}: {why}")
            continue
        done = watch(which, left)
        if done.code == TIMED_OUT:
            run.leave(f"compute-sanitizer {which}: not finished in {done.seconds:.0f} s")
            continue
        run.say(f"compute-sanitizer {which}: {last(done.tail)}", ok=done.code == 0)
        if done.code:
            print(done.tail, flush=True)


DO = {
    "compile": compile_step,
    "step": decode_step,
    "prefill": prefill_step,
    "bandwidth": bandwidth_step,
    "conform": conform_step,
    "sanitizer": sanitizer_step,
}


def carry_out(run: Record, parts: list[str]) -> None:
    """Every part in turn; one that breaks is entered as failed, and the next begins."""
    run.out.mkdir(parents=True, exist_ok=True)
    run.parts = parts
    if "conform" in parts and run.seconds("conform") > 0 and not run.passed("conformance"):
        run.begin()
    for name in parts:
        print(f"== {gpu_plan.PARTS[name]}", flush=True)
        if run.seconds(name) <= 0:
            run.leave(f"{gpu_plan.PARTS[name]}: no time left")
        else:
            try:
                DO[name](run)
            except Exception as error:  # the time on a GPU is short: later parts still run
                run.say(f"{name}: {type(error).__name__}: {error}", ok=False)
        run.save()


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and leave")
    parser.add_argument("--part", action="append", choices=list(DO), help="these parts only")
    parser.add_argument("--minutes", type=float, default=4.0, help="of the whole run, at most")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--commit", help="what is measured, for a copy without its history")
    args = parser.parse_args(argv)
    parts = [name for name in DO if name in (args.part or DO)]
    if args.plan:
        print(gpu_plan.text(args.out.name, parts))
        return 0
    try:
        run = Record(args.out, args.minutes, args.commit, again=args.again)
    except (ImportError, Unsupported) as error:
        return no_gpu(error)
    carry_out(run, parts)
    print((args.out / f"{run.name}.md").read_text("utf-8"))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
