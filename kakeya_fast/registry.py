"""Which backends there are: a table of our own, and third parties by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from kakeya_ref.errors import Unsupported

GROUP = "kakeya.backends"
ANY = "any"


@dataclass(frozen=True)
class BackendInfo:
    """One backend by name, known without importing it.

    Attributes
    ----------
    devices : tuple of str
        Device types it runs on; ``any`` leaves the answer to the backend.
    default_devices : tuple of str
        Device types for which ``auto`` may take it.
    requires : tuple of str
        Modules it imports.
    target : str
        ``module:attribute`` of its class. Called with ``device=`` when it runs on more than
        the CPU, with nothing otherwise.
    """

    name: str
    devices: tuple[str, ...]
    default_devices: tuple[str, ...]
    requires: tuple[str, ...]
    target: str

    def missing(self) -> tuple[str, ...]:
        """Required modules that are not installed."""
        return tuple(m for m in self.requires if find_spec(m) is None)

    def refusal(self, device: str) -> str:
        """Why it cannot be loaded for a device; empty when nothing stands against it."""
        absent = self.missing()
        if absent:
            return f"needs {', '.join(absent)}, not installed"
        if ANY not in self.devices and device_type(device) not in self.devices:
            return f"runs on {', '.join(self.devices)}, not on {device}"
        return ""

    def load(self, device: str) -> Any:
        """A new instance.

        Raises
        ------
        Unsupported
            Its module does not import, or it refuses the device.
        """
        module, _, attribute = self.target.partition(":")
        try:
            make: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise Unsupported(
                "backend.name.explicit", f"{self.name}: {self.target} does not load: {error}"
            ) from error
        return make() if self.devices == ("cpu",) else make(device=device)


# Order is preference: on the CPU numba is several times faster than torch operations, and on a GPU
# own kernels read and write each byte once.
BACKENDS = (
    BackendInfo(
        "cuda", ("cuda",), ("cuda",), ("torch", "cupy"), "kakeya_fast.cuda.backend:Backend"
    ),
    BackendInfo("numba", ("cpu",), ("cpu",), ("numba",), "kakeya_fast.numba_cpu:Backend"),
    BackendInfo("torch", (ANY,), (ANY,), ("torch",), "kakeya_fast.torch_ops:Backend"),
)


def device_type(device: str) -> str:
    """``cuda`` of ``cuda:1``."""
    return device.partition(":")[0]


def find(name: str) -> BackendInfo | None:
    """A backend by name: our table first, then the entry-point group ``kakeya.backends``.

    Rule: backend.name.explicit

    Third parties are found by name only, never by ``auto``. One that runs on more than the CPU
    says so in a class attribute ``devices``.
    """
    for info in BACKENDS:
        if info.name == name:
            return info
    for point in entry_points(group=GROUP, name=name):
        try:
            devices = tuple(getattr(point.load(), "devices", ("cpu",)))
        except (ImportError, AttributeError) as error:
            raise Unsupported(
                "backend.name.explicit", f"{name}: {point.value} does not load: {error}"
            ) from error
        return BackendInfo(name, devices, (), (), point.value)
    return None


def names() -> list[str]:
    """Every name that :func:`find` knows, ours first."""
    own = [info.name for info in BACKENDS]
    return own + sorted({p.name for p in entry_points(group=GROUP)} - set(own))
