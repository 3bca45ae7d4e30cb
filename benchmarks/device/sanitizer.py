"""Small cases of every codec under compute-sanitizer: ``python -m benchmarks.device.sanitizer``.

Run by itself, it is the program that the sanitizer watches.
"""

from __future__ import annotations

import shutil
import sys
from typing import Any

from benchmarks.device.run import Outcome, command

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
    ("trellis:gain=unbiased", 64),
    ("trellis", 576),
    ("query", 128),
    ("query:b=6", 40),
    ("query:b=2.5", 264),
    ("d4", 112),
    ("e8", 128),
    ("e8:q=38", 80),
)
ATTENDED = ("scalar:b=3", "trellis:b=2")


def tool() -> str | None:
    """Path of compute-sanitizer, where there is one."""
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )


def watch(which: str, seconds: float) -> Outcome:
    """Run the cases under one tool; exit code 0 says that it found nothing."""
    words = (tool() or "compute-sanitizer", "--tool", which, "--error-exitcode", str(FOUND))
    program = (sys.executable, "-m", "benchmarks.device.sanitizer")
    return command((*words, *program), seconds)


def cases() -> int:
    """Every entry of every codec on a few pages, strided, through slots; cases run."""
    import numpy as np
    import torch

    from benchmarks.device import tables as gpu_tables
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
    attend(backend)
    torch.cuda.synchronize()
    return len(CASES) + len(ATTENDED)


def attend(backend: Any) -> None:
    """Attention over a few pages by several blocks, with a partial over other tokens."""
    import torch

    from kakeya_ref.layout import page_layout
    from kakeya_ref.types import Paged

    device, (batch, heads, pages) = backend.device, (2, 2, 40)
    count = batch * heads * pages
    slots = torch.randperm(count, device=device).int().view(batch, heads, pages)
    first = (torch.arange(pages, device=device, dtype=torch.int32) * 32).repeat(batch, 1)
    origin = torch.full((batch,), 32 * pages, device=device)
    table = Paged(slots, first, torch.full_like(first, 32), first + 32, origin, 2)
    for codec in ATTENDED:
        layouts = (page_layout(codec, 128, 32),) * 2
        pool = torch.randint(100, (count, layouts[0].nbytes), dtype=torch.uint8, device=device)
        q = torch.randn(batch, heads, 6, 128, device=device, dtype=torch.bfloat16)
        other = torch.randn(q.shape, device=device), torch.randn(q.shape[:3], device=device)
        backend.attend_tensor(q, pool, pool, layouts, table, 0.1, other=other)


if __name__ == "__main__":
    print(f"{cases()} cases")
