"""The device's Python path over the host build of the kernels, on CPU tensors."""

from __future__ import annotations

import torch

from kakeya_fast.cuda import hostbuild
from kakeya_fast.cuda.compile import Unit
from kakeya_fast.cuda.launch import Args
from kakeya_ref.types import PageLayout


class HostLauncher:
    """Runs what the GPU would be asked to run, and remembers it."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.seen: list[tuple[Unit, str, int, Args]] = []

    def run(self, unit: Unit, entry: str, layout: PageLayout, pages: int, args: Args) -> None:
        self.seen.append((unit, entry, pages, args))
        hostbuild.run(layout, unit.defines, entry, pages, args)
