"""A GPU benchmark under way: what is known so far, the time left, and the files it becomes."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.gpu_run import command
from benchmarks.gpu_table import markdown, verdicts

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

    Raises
    ------
    Unsupported
        There is no GPU that the backend can use.
    """

    def __init__(self, out: Path, minutes: float, commit: str | None = None) -> None:
        from kakeya_fast.cuda.backend import Backend
        from kakeya_fast.cuda.launch import CupyLauncher, cuda_device

        self.out, self.minutes, self.begun = out, minutes, time.monotonic()
        self.launcher = CupyLauncher(cuda_device("cuda"))
        self.backend = Backend(launcher=self.launcher)
        self.failed = False
        self.parts = list(LIMITS)
        self.behind: subprocess.Popen[str] | None = None
        self.result: dict[str, Any] = machine.describe() | {
            "device": describe(self.backend.device),
            "checks": [],
            "not_run": [],
        }
        self.result["versions"] |= libraries()
        self.result["commit"] = commit or self.result["commit"]
        self.name = "gpu-" + slug(self.result["device"]["name"])

    def begin(self) -> None:
        """Have the kernels of the suite drawn and compiled beside what comes first."""
        from benchmarks.gpu_conform import begin

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
        self.result["checks"].append(text if ok else f"**failed**: {text}")
        print(text if ok else f"FAILED: {text}", flush=True)

    def leave(self, text: str) -> None:
        """Enter what did not happen."""
        self.result["not_run"].append(text)
        print(f"not run: {text}", flush=True)

    def save(self) -> None:
        """Write what is known so far: JSON, and the table beside it."""
        self.result["seconds"] = time.monotonic() - self.begun
        self.result["targets"] = verdicts(self.result.get("rows", []))
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{self.name}.json"
        kept = short(self.result)
        path.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        path.with_suffix(".md").write_text(markdown(kept), "utf-8")


def describe(device: Any) -> dict[str, Any]:
    """What the table says about a GPU."""
    import torch

    found = torch.cuda.get_device_properties(device)
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        driver = command(query, 20).tail.split()[0]
    except (OSError, IndexError):
        driver = "unknown"
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "processors": found.multi_processor_count,
        "memory": found.total_memory,
        "l2": getattr(found, "L2_cache_size", 0),
        "driver": driver,
    }


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
