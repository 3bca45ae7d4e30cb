"""Reads the spec as data: rules, fenced examples, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "spec"
RULE = re.compile(r"^\*\*\[([a-z0-9]+(?:\.[a-z0-9-]+)+)\]\*\* ", re.M)
MENTION = re.compile(r"\[([a-z0-9]+(?:\.[a-z0-9-]+)+)\](?!\()")
FENCE = re.compile(r"^```kakeya id=(\S+) rules=(\S+)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Example:
    """A fenced block: what is given, and what is claimed, in order."""

    id: str
    rules: tuple[str, ...]
    given: dict[str, str]
    claims: dict[str, str]


def pages() -> list[Path]:
    return sorted(SPEC.glob("**/*.md"))


def rules() -> dict[str, list[Path]]:
    """Every rule, and the pages that state it."""
    out: dict[str, list[Path]] = {}
    for page in pages():
        for name in RULE.findall(page.read_text("utf-8")):
            out.setdefault(name, []).append(page)
    return out


def examples() -> list[Example]:
    out = []
    for page in pages():
        for name, names, body in FENCE.findall(page.read_text("utf-8")):
            given, claims = {}, {}
            for line in body.strip().splitlines():
                key, _, value = line.removeprefix("->").partition("=")
                (claims if line.startswith("->") else given)[key.strip()] = value.strip()
            out.append(Example(name, tuple(names.split(",")), given, claims))
    return out


def prose(page: Path) -> str:
    """A page without fenced blocks and quote blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    return "\n".join(line for line in text.splitlines() if not line.startswith(">"))
