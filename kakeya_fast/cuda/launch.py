"""What runs kernels on a device."""

from __future__ import annotations

import threading
from typing import Any, Protocol

import torch

from kakeya_fast.cuda import compile as compiler
from kakeya_fast.cuda import params
from kakeya_fast.cuda.compile import RULE, Unit
from kakeya_ref.errors import Unsupported, UsageError
from kakeya_ref.types import PageLayout

NULL = 0
STATIC = 48 * 1024  # bytes of shared memory that every kernel may have
SHARED_OPTIN = 97  # cudaDevAttrMaxSharedMemoryPerBlockOptin
Args = tuple[int, ...]


class Launcher(Protocol):
    """What runs kernels.

    The CUDA one is below; the tests run the same calls through the host build of the kernels.
    """

    device: torch.device
    processors: int  # multiprocessors of the device
    shared: int  # bytes of shared memory that a block may have

    def run(self, unit: Unit, entry: str, layout: PageLayout, pages: int, args: Args) -> None:
        """Queue one kernel on the current stream; does not wait for it."""

    def load(self, unit: Unit) -> None:
        """Compile and load the kernels of a unit, so that they can be started while capturing."""

    def start(
        self,
        unit: Unit,
        entry: str,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        args: Args,
    ) -> None:
        """Queue a kernel of a loaded unit, with dynamic shared memory, on the current stream."""


class CupyLauncher:
    """Kernels compiled by NVRTC, loaded and started by CuPy on torch's current stream.

    Rule: backend.name.explicit

    Parameters
    ----------
    device : torch.device
        A CUDA device, with its index.

    Raises
    ------
    Unsupported
        CuPy or NVRTC is not installed, or the device cannot be used.
    """

    def __init__(self, device: torch.device) -> None:
        nvrtc: Any = compiler.load_nvrtc()
        import cupy

        self.device, self._cupy = device, cupy
        major, minor = torch.cuda.get_device_capability(device)
        self.arch = compiler.architecture((major, minor), tuple(nvrtc.getSupportedArchs()))
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count
        self.shared = cupy.cuda.runtime.deviceGetAttribute(SHARED_OPTIN, device.index)
        self._kernels: dict[tuple[Unit, str], Any] = {}
        self._streams: dict[int, Any] = {}
        self._thread = threading.local()
        self._lock = threading.Lock()

    def run(self, unit: Unit, entry: str, layout: PageLayout, pages: int, args: Args) -> None:
        """Queue one kernel; see :class:`Launcher`."""
        kernel = self._kernels.get((unit, entry))
        if kernel is None:
            refuse_while_capturing(self.device, str(layout))
            self._load(unit)
            kernel = self._kernels[unit, entry]
        blocks, threads = params.launch(layout, max(1, pages))
        self._start(kernel, (blocks, 1, 1), threads, args)

    def load(self, unit: Unit) -> None:
        """Compile and load; see :class:`Launcher`."""
        self.kernel(unit, unit.entries[0])

    def start(
        self,
        unit: Unit,
        entry: str,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        args: Args,
    ) -> None:
        """Queue one kernel; see :class:`Launcher`."""
        kernel = self._kernels[unit, entry]
        if shared > STATIC and kernel.max_dynamic_shared_size_bytes < shared:
            kernel.max_dynamic_shared_size_bytes = shared
        self._start(kernel, grid, threads, args, shared)

    def kernel(self, unit: Unit, entry: str) -> Any:
        """A kernel as CuPy holds it, with its registers and local memory as attributes."""
        if (unit, entry) not in self._kernels:
            self._load(unit)
        return self._kernels[unit, entry]

    def _start(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        threads: int,
        args: Args,
        shared: int = 0,
    ) -> None:
        pointer = torch.cuda.current_stream(self.device).cuda_stream
        stream = self._streams.get(pointer)
        if stream is None:
            stream = self._cupy.cuda.Stream.from_external(_Stream(pointer))
            self._streams[pointer] = stream
        # Every call of a decode step comes by here, and most have nothing to switch.
        if getattr(self._thread, "known", False) and (
            torch.cuda.current_device() == self.device.index
        ):
            with stream:
                kernel(grid, (threads,), args, shared_mem=shared)
            return
        with torch.cuda.device(self.device):
            # A thread that has not used CUDA yet has no context, and launching needs one.
            self._cupy.cuda.runtime.setDevice(self.device.index)
            self._thread.known = True
            with stream:
                kernel(grid, (threads,), args, shared_mem=shared)

    def _load(self, unit: Unit) -> None:
        with self._lock, torch.cuda.device(self.device):
            if (unit, unit.entries[0]) in self._kernels:
                return
            module = self._cupy.RawModule(path=str(compiler.build(unit, self.arch)))
            for entry in unit.entries:
                self._kernels[unit, entry] = module.get_function(entry)


class _Stream:
    """A stream as CuPy takes those of other libraries."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


def cuda_device(name: str | torch.device) -> torch.device:
    """A CUDA device with its index.

    Rule: backend.name.explicit

    Raises
    ------
    Unsupported
        Not a CUDA device, or torch does not reach it.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise Unsupported(RULE, f"{name!r} is no device: {error}") from error
    if device.type != "cuda":
        raise Unsupported(RULE, f"cuda runs on cuda, not on {device}")
    if not torch.cuda.is_available():
        raise Unsupported(
            RULE,
            f"torch {torch.__version__} sees no CUDA device (built for CUDA: {torch.version.cuda})",
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise Unsupported(RULE, f"there are {torch.cuda.device_count()} CUDA devices, no {device}")
    return torch.device("cuda", index)


def refuse_while_capturing(device: torch.device, what: str) -> None:
    """Refuse work that a graph capture does not allow.

    Rule: backend.graph.prepared
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise UsageError(
            "backend.graph.prepared", f"call prepare() for {what} before the capture begins"
        )
