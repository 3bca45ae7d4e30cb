"""Where the time of an attention kernel goes: ``python -m benchmarks.device.clocks``.

Cycles of each step, in the mean over blocks, with caches as cold as in the benchmark.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.device.race import Packed, Shape
from kakeya_fast.cuda import attend_plan, params
from kakeya_fast.cuda.attend_plan import Tuning

STEPS = ("begin", "sync", "run", "sync", "share", "store", "ticket", "weigh", "merge")
TUNED = (None, Tuning(16, 2, 1, 1, 1), Tuning(8, 2, 2, 1, 0))
SOURCE = Path(__file__).with_name("clocks.cu")


class Clocked:
    """A launcher that starts the kernel with clocks in it, and keeps them."""

    def __init__(self, launcher: Any, blocks: int) -> None:
        import cupy

        self._launcher, self._cupy = launcher, cupy
        self.device, self.processors, self.shared = (
            launcher.device,
            launcher.processors,
            launcher.shared,
        )
        self.clocks = torch.zeros(blocks, 16, dtype=torch.int64, device=launcher.device)

    def load(self, unit: Any) -> None:
        """Compile it."""
        words = (*params.OPTIONS, *unit.defines, "-default-device", f"-I{params.SOURCES}")
        module = self._cupy.RawModule(code=SOURCE.read_text("utf-8"), options=words)
        self._kernel = module.get_function(attend_plan.ENTRY)

    def start(self, unit: Any, entry: str, grid: Any, threads: int, shared: int, args: Any) -> None:
        """Start it."""
        self._kernel.max_dynamic_shared_size_bytes = shared
        stream = self._cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
        with stream:
            words = (*args, self.clocks.data_ptr())
            self._kernel(grid, (threads,), words, shared_mem=shared)


def steps(launcher: Any, shape: Shape, codec: str, tuned: Tuning | None) -> str:
    """A line of cycles, of all blocks and of those that merge."""
    made = Packed(launcher, shape, (codec, codec))
    made.launcher = Clocked(launcher, 4096)
    attention = made.attention(tuned)
    for call in made.calls(attention):
        call()
    torch.cuda.synchronize()
    clocks = made.launcher.clocks
    blocks = attention.splits * shape.heads * attention.groups * shape.batch
    taken = clocks[:blocks, 1:10] - clocks[:blocks, :9]
    last = clocks[:blocks, 9] > clocks[:blocks, 0]
    mean, end = taken[:, :7].double().mean(0), taken[last].double().mean(0)
    cycles = [*mean.tolist(), *end[7:].tolist()]
    told = " ".join(f"{name} {n:.0f}" for name, n in zip(STEPS, cycles, strict=True))
    return f"{shape} {codec} {tuned and list(tuned)} n={attention.splits}: {told}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    from kakeya_fast.cuda.launch import CupyLauncher, cuda_device

    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    launcher = CupyLauncher(cuda_device("cuda"))
    for shape in (Shape(1 << 10), Shape(32 << 10), Shape(32 << 10, 8)):
        for tuned in TUNED:
            print(steps(launcher, shape, "scalar:b=3", tuned), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
