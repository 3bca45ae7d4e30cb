"""Small cases of every codec under compute-sanitizer: ``python -m benchmarks.gpu_sanitizer``.

Run by itself, it is the program that the sanitizer watches.
"""

from __future__ import annotations

import shutil
import sys

from benchmarks.gpu_run import Outcome, command

TOOLS = ("memcheck", "racecheck")
FOUND = 9
# (codec, head dim): a whole Hadamard block, several of them, and every width of plane.
CASES = (
    ("raw:dtype=bf16", 64),
    ("fp8", 80),
    ("int:b=3", 96),
    ("int:b=5,axis=channel", 80),
    ("scalar:b=3", 128),
    ("scalar:b=7", 96),
    ("trellis", 128),
    ("trellis:b=3", 40),
    ("query", 128),
    ("query:b=6", 40),
    ("d4", 112),
    ("e8", 128),
    ("e8:q=38", 80),
)


def tool() -> str | None:
    """Path of compute-sanitizer, where there is one."""
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )


def watch(which: str, seconds: float) -> Outcome:
    """Run the cases under one tool; exit code 0 says that it found nothing."""
    words = (tool() or "compute-sanitizer", "--tool", which, "--error-exitcode", str(FOUND))
    program = (sys.executable, "-m", "benchmarks.gpu_sanitizer")
    return command((*words, *program), seconds)


def cases() -> int:
    """Every entry of every codec on a few pages, strided, through slots; cases run."""
    import numpy as np
    import torch

    from benchmarks import gpu_tables
    from kakeya_fast.cuda.backend import Backend
    from kakeya_ref.layout import page_layout

    backend = Backend("cuda")
    for codec, d in CASES:
        layout = page_layout(codec, d, 16)
        x = torch.randn(16, 3, d, device=backend.device).transpose(0, 1)
        pool = torch.zeros(5, layout.nbytes, dtype=torch.uint8, device=backend.device)
        slots = torch.tensor([4, -1, 0], device=backend.device)
        beside = gpu_tables.of_pages(gpu_tables.beside(layout), np.array([2, 0, 1]))
        backend.append(x, layout, pool, slots, tables=beside)
        backend.read(pool, layout, slots, dtype=torch.bfloat16, tables=beside)
        backend.read(pool, layout, slots, basis="coefficients", tables=beside)
    torch.cuda.synchronize()
    return len(CASES)


if __name__ == "__main__":
    print(f"{cases()} cases")
