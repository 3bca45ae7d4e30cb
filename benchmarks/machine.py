"""What a result file says about where it was measured."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CODE = {".py", ".cu", ".cuh", ".cpp"}
LIBRARIES = ("kakeya-kv", "numpy", "numba", "torch")


def describe() -> dict[str, Any]:
    """Machine, versions, commit and date, without names or paths of this host."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_before": list(os.getloadavg()),
        },
        "versions": {"python": platform.python_version()} | _versions(),
    }


def code() -> str:
    """A hash of the package that is measured: what it finds is of no other code."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1] / "kakeya_fast"
    for path in sorted(p for p in root.rglob("*") if p.suffix in CODE):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _cpu() -> str:
    """Model name and, since virtual machines call every CPU by one name, its widest vectors."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    lines = (line.partition(":") for line in path.read_text("utf-8").splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = fields.get("flags", "").split()
    vectors = next((f for f in ("avx512f", "avx2", "avx") if f in flags), "")
    return f"{fields.get('model name', platform.processor())} {vectors}".strip()


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _commit() -> str:
    """Commit of the checkout; ``+`` marks tracked files that differ from it."""
    root = Path(__file__).parent
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "-uno", "../kakeya_fast") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
