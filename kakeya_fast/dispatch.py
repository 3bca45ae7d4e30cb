"""From a name to a backend that has proved itself: explicit is loud, automatic is logged."""

from __future__ import annotations

import logging
import threading
from typing import Any

from kakeya_fast import env, registry
from kakeya_fast.bridge import with_tensors
from kakeya_fast.proved import Proved
from kakeya_ref.errors import KakeyaError, Unsupported

LOG = logging.getLogger("kakeya")

_ready: dict[tuple[str, str], Any] = {}
_lock = threading.Lock()


def get_backend(name: str = "auto", device: str = "cpu") -> Any:
    """A backend that passes its power-on self-test on this device, in this process.

    The first codec of the registry is tested here, every other before its first use: a backend
    may have to compile for seconds what the test calls. A codec that fails is refused, by
    ``supports`` and by every call.

    Rule: backend.name.explicit, backend.auto.logged, backend.selftest.first

    Parameters
    ----------
    name : str
        A backend's name, or ``auto``: ``KAKEYA_BACKEND`` if it is set, else the first suitable
        one of the table. Entry points (group ``kakeya.backends``) are taken by name only.
    device : str or torch.device
        ``cpu``, ``cuda``, ``cuda:1``, …

    Returns
    -------
    Backend
        One instance per name and device, with ``encode_tensor`` and ``decode_tensor``.

    Raises
    ------
    Unsupported
        A named backend that is not there, does not load or fails its first test; or no backend
        at all for ``auto``.
    """
    where = str(device)
    if name == "auto" and env.backend():
        name = env.backend()
        LOG.info("[backend.auto.logged] KAKEYA_BACKEND names %s for %s", name, where)
    return _automatic(where) if name == "auto" else _named(name, where)


def available_backends(device: str = "cpu") -> dict[str, str]:
    """Names of all known backends, each with why it cannot be loaded; empty when it can.

    Imports none of our own backends: a self-test happens in :func:`get_backend` only.
    """
    found = {}
    for name in registry.names():
        try:
            info = registry.find(name)
            found[name] = info.refusal(str(device)) if info else "vanished while looking"
        except KakeyaError as error:
            found[name] = str(error)
    return found


def _named(name: str, device: str) -> Any:
    info = registry.find(name)
    if info is None:
        raise Unsupported("backend.name.explicit", f"no backend {name!r}; {_overview(device)}")
    refusal = info.refusal(device)
    if refusal:
        raise Unsupported("backend.name.explicit", f"{name} {refusal}; {_overview(device)}")
    return _open(info, device)


def _automatic(device: str) -> Any:
    passed_over: list[str] = []
    for info in registry.BACKENDS:
        kind = registry.device_type(device)
        if kind not in info.default_devices and registry.ANY not in info.default_devices:
            continue
        refusal = info.refusal(device)
        if not refusal:
            try:
                backend = _open(info, device)
            except Exception as error:  # whatever a broken install raises, the next may work
                refusal = f"refused: {error}"
                LOG.warning("[backend.auto.logged] %s on %s %s", info.name, device, refusal)
            else:
                why = f"after {'; '.join(passed_over)}" if passed_over else "first in order"
                LOG.info("[backend.auto.logged] %s on %s, %s", info.name, device, why)
                return backend
        passed_over.append(f"{info.name} {refusal}")
    raise Unsupported(
        "backend.auto.logged",
        f"no backend for {device}: {'; '.join(passed_over) or 'none takes this device'}",
    )


def _open(info: registry.BackendInfo, device: str) -> Any:
    key = (info.name, device)
    with _lock:
        if key not in _ready:
            backend = Proved(info.load(device), device)
            backend.prove_first()
            _ready[key] = with_tensors(backend)
        return _ready[key]


def _overview(device: str) -> str:
    return ", ".join(
        f"{name}: {reason or 'available'}" for name, reason in available_backends(device).items()
    )
