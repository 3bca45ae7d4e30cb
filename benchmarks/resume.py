"""Result files that a run may leave unfinished, for the next one to go on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SAME = ("device", "code")


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result, so that a run that is cut off meanwhile leaves the file of before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    fresh.replace(path)


def earlier(path: Path, result: dict[str, Any], same: Sequence[str] = SAME) -> dict[str, Any]:
    """What a file has that this run can go on with: nothing, if it is of something else."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text("utf-8"))
    return found if all(found.get(name) == result[name] for name in same) else {}


def numbered(folder: Path, stem: str, result: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The newest of numbered files if this run can go on with it, else the name of the next one."""
    numbers = [int(p.stem.removeprefix(f"{stem}-")) for p in folder.glob(f"{stem}-[0-9]*.json")]
    newest = max(numbers, default=0)
    path = folder / f"{stem}-{newest}.json"
    found = earlier(path, result)
    return (path, found) if found else (folder / f"{stem}-{newest + 1}.json", {})


def with_tables(found: dict[str, Any], entries: str, tables: str) -> dict[str, Any]:
    """What a file has less the entries, by name, that were measured with other tables of keys."""
    kept = found.get(entries, {})
    if found.get("tables") != tables:
        kept = {name: x for name, x in kept.items() if "query" not in name and "plan " not in name}
    return found | {"tables": tables, entries: kept}
