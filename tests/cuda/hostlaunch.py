"""The device's Python path over the host build of the kernels, on CPU tensors."""

from __future__ import annotations

import torch

from kakeya_fast.cuda import attend_plan, hostbuild
from kakeya_fast.cuda.compile import Unit
from kakeya_fast.cuda.launch import Args
from kakeya_ref.types import PageLayout


class HostLauncher:
    """Runs what the GPU would be asked to run, and remembers it."""

    device = torch.device("cpu")
    processors, shared = 8, 227 << 10

    def __init__(self) -> None:
        self.seen: list[tuple[Unit, str, int, Args]] = []

    def run(self, unit: Unit, entry: str, layout: PageLayout, pages: int, args: Args) -> None:
        self.seen.append((unit, entry, pages, args))
        hostbuild.run(layout, unit.defines, entry, pages, args)

    def load(self, unit: Unit) -> None:
        pass

    def start(self, unit: Unit, entry: str, grid: tuple, threads: int, shared: int, args: Args):
        given = dict(d.removeprefix("-DKAKEYA_").split("=") for d in unit.defines)
        numbers = tuple(int(given[name]) for name in attend_plan.FIELDS)
        wanted = hostbuild.shared(numbers) if entry == attend_plan.ENTRY else 0
        assert entry in unit.entries
        assert (threads, shared) == (32 * int(given["WARPS"]), wanted)
        hostbuild.start(entry, numbers, grid, args)
