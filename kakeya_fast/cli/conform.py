"""``kakeya conform``: the conformance suite on a backend."""

from __future__ import annotations

import subprocess
import sys

import typer


def conform(ctx: typer.Context) -> None:
    """Judge a backend: kakeya conform my_package.module:Backend [options of the suite]."""
    # Another process: the suite never shares an interpreter with the fast code it may judge.
    done = subprocess.run([sys.executable, "-m", "kakeya_conformance", *ctx.args])
    raise typer.Exit(done.returncode)
