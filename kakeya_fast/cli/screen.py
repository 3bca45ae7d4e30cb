"""Output shared by the commands: tables and progress on a terminal, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from kakeya_fast.quality.texts import NAMED
from kakeya_ref.errors import UsageError

# What an option that takes a text may be.
TEXTS = f"{', '.join(NAMED)} or a UTF-8 file."
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

WIDTH = 120
# One console for bars and log lines, or they overwrite each other.
ERRORS = Console(stderr=True)


def to_be_written(path: Any) -> Any:
    """Make the folder of a file, so that none is refused once the work is done; for options.

    Rule: cli.out.folder

    Raises
    ------
    UsageError
    """
    if path is not None and str(path) != "-":
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError("cli.out.folder", f"{path}: {error.strerror}") from None
        if Path(path).is_dir():
            raise UsageError("cli.out.folder", f"{path} is a folder")
    return path


def emit(data: Any) -> None:
    """``data`` as JSON on stdout."""
    typer.echo(json.dumps(data, indent=1, allow_nan=False))


def console() -> Console:
    """A console on stdout; in a pipe or a log, wide enough for every table."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        # A range broken in the middle is hard to read; everything else may wrap.
        table.add_row(*(cell.replace(", ", ",\u00a0") for cell in row))
    console().print(table)


def bar() -> Progress:
    """A progress bar on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=ERRORS,
    )
