"""The ``kakeya`` command. Importing this loads nothing optional."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: run the command line, or say which extra is missing."""
    try:
        from kakeya_fast.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"kakeya needs {error.name}: pip install 'kakeya-kv[cli]'")
    app()
