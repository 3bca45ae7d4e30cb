"""Small pieces of Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

MIB = 2**20


def k(tokens: int) -> str:
    """A context in words of 1024."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


def size(nbytes: int) -> str:
    """A number of bytes in the unit that suits it."""
    return f"{nbytes / MIB:.1f} MiB" if nbytes < 2**30 else f"{nbytes / 2**30:.2f} GiB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def wrapped(lines: Sequence[str], width: int = 110) -> str:
    """A page: runs of plain lines become paragraphs; tables, heads, lists and pictures stay."""
    out: list[str] = []
    run: list[str] = []
    for line in [*lines, ""]:
        if line and not line.startswith(("|", "#", "!", "* ")):
            run.append(line.strip())
            continue
        if run:
            out += textwrap.wrap(
                " ".join(run), width, break_long_words=False, break_on_hyphens=False
            )
            run = []
        out.append(line)
    return "\n".join(out).rstrip() + "\n"
