"""A GPU benchmark under way: what is known so far, the time left, and the files it becomes.

A result file belongs to a device and has several runs: each adds what is missing, and every figure
says which run it is of. So a run that is cut off has lost nothing, and the next one goes on.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, resume
from benchmarks.device import plan as gpu_plan
from benchmarks.device.run import command
from benchmarks.device.table import markdown, verdicts
from kakeya_fast.cuda.compile import sources_hash

# Seconds that a part may take, and that it should have: what parts after it should have is left to
# them, as far as the run is that long.
LIMITS = {
    "compile": (60, 15),
    "step": (25, 20),
    "prefill": (25, 15),
    "bandwidth": (75, 50),
    "conform": (90, 60),
    "sanitizer": (60, 20),
}


# What tells an entry of each list of figures from the others.
KEYS = {"rows": ("d", "codec", "shape"), "step": ("codec",), "prefill": ("tokens",)}


class Record:
    """One run.

    Parameters
    ----------
    out : Path
        Folder of the result files.
    minutes : float
        Of the whole run, at most.
    commit : str, optional
        What is measured, where the checkout itself cannot say.
    again : bool
        Measure what this device's file has of the same kernels once more.

    Raises
    ------
    Unsupported
        There is no GPU that the backend can use.
    """

    def __init__(
        self, out: Path, minutes: float, commit: str | None = None, *, again: bool = False
    ) -> None:
        from kakeya_fast.cuda.backend import Backend
        from kakeya_fast.cuda.launch import CupyLauncher, cuda_device

        self.launcher = CupyLauncher(cuda_device("cuda"))
        self.backend = Backend(launcher=self.launcher)
        told = machine.describe() | {"driver": driver()}
        told["versions"] |= libraries()
        told["commit"] = commit or told["commit"]
        self.enter(out, minutes, describe(self.backend.device), told, again=again)

    def enter(
        self,
        out: Path,
        minutes: float,
        device: dict[str, Any],
        told: dict[str, Any],
        *,
        again: bool,
    ) -> None:
        """Begin a run on a device, after those of its file."""
        self.out, self.minutes, self.begun = out, minutes, time.monotonic()
        self.failed, self.again = False, again
        self.parts = list(LIMITS)
        self.behind: subprocess.Popen[str] | None = None
        self.name = "gpu-" + slug(device["name"])
        self.path = out / f"{self.name}.json"
        self.result: dict[str, Any] = {"device": device, "runs": [], **{name: [] for name in KEYS}}
        if self.path.exists():
            self.result |= json.loads(self.path.read_text("utf-8"))
        self.run = told | {"kernels": sources_hash()[:12], "checks": [], "not_run": []}
        self.result["runs"].append(self.run)

    def has(self, where: str, **key: Any) -> bool:
        """Whether a figure of these kernels is there and not to be measured again."""
        found = self._find(where, key)
        return found is not None and self._counts(self.result["runs"][found["run"]])

    def knows(self, where: str, **key: Any) -> bool:
        """Whether a figure of any kernels is there."""
        return self._find(where, key) is not None

    def passed(self, check: str) -> bool:
        """Whether a check went well with these kernels, and is not to be made again."""
        return any(
            text.startswith(check)
            for run in self.result["runs"]
            if self._counts(run)
            for text in run["checks"]
        )

    def _counts(self, run: dict[str, Any]) -> bool:
        return run is self.run or (not self.again and run["kernels"] == self.run["kernels"])

    def _find(self, where: str, key: dict[str, Any]) -> dict[str, Any] | None:
        known = self.result[where]
        return next((x for x in known if all(x[k] == key[k] for k in KEYS[where])), None)

    def add(self, where: str, found: dict[str, Any]) -> None:
        """Enter a figure, in place of an older one, and save."""
        old = self._find(where, found)
        if old is not None:
            self.result[where].remove(old)
        self.result[where].append(found | {"run": len(self.result["runs"]) - 1})
        self.save()

    def begin(self) -> None:
        """Have the kernels of the suite drawn and compiled beside what comes first."""
        from benchmarks.device.conform import begin

        self.behind = begin(self.launcher.arch, "standard")

    def seconds(self, part: str) -> float:
        """How long a part may take from now on.

        Parts of this run that come later get their due, or what there is in proportion.
        """
        left = 60 * self.minutes - (time.monotonic() - self.begun)
        later = self.parts[self.parts.index(part) :] if part in self.parts else [part]
        due = sum(LIMITS[name][1] for name in later)
        share = LIMITS[part][1] * min(1.0, left / due)
        return min(LIMITS[part][0], max(share, left - (due - LIMITS[part][1])))

    def say(self, text: str, *, ok: bool) -> None:
        """Enter the outcome of a check."""
        self.failed |= not ok
        self.run["checks"].append(text if ok else f"**failed**: {text}")
        print(text if ok else f"FAILED: {text}", flush=True)

    def leave(self, text: str) -> None:
        """Enter what did not happen."""
        self.run["not_run"].append(text)
        print(f"not run: {text}", flush=True)

    def save(self) -> None:
        """Write what is known so far: JSON, and the table beside it."""
        self.run["seconds"] = time.monotonic() - self.begun
        for where, key in KEYS.items():
            self.result[where].sort(key=lambda x, key=key: gpu_plan.place(*(x[k] for k in key)))
        kept = short(self.result)
        kept["targets"] = verdicts(kept)
        resume.save(self.path, kept)
        self.path.with_suffix(".md").write_text(markdown(kept), "utf-8")


def describe(device: Any) -> dict[str, Any]:
    """What the table says about a GPU."""
    import torch

    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "processors": found.multi_processor_count,
        "memory": found.total_memory,
        "l2": getattr(found, "L2_cache_size", 0),
    }


def driver() -> str:
    """Version of the driver."""
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        return command(query, 20).tail.split()[0]
    except (OSError, IndexError):
        return "unknown"


def libraries() -> dict[str, str]:
    """Versions of what compiles and starts kernels."""
    import cupy
    import torch

    from kakeya_fast.cuda.compile import load_nvrtc

    nvrtc: Any = load_nvrtc()
    version = ".".join(str(part) for part in nvrtc.getVersion())
    return {"cuda": torch.version.cuda or "none", "cupy": cupy.__version__, "nvrtc": version}


def slug(name: str) -> str:
    """``nvidia-h100-80gb-hbm3`` of a device's name, for file names."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def last(text: str) -> str:
    """The last line that says something, paths apart."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "/" not in line]
    return lines[-1] if lines else "said nothing"


def short(value: Any) -> Any:
    """Floats to four digits: more is noise, and result files stay small."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: short(one) for key, one in value.items()}
    return [short(one) for one in value] if isinstance(value, list) else value
