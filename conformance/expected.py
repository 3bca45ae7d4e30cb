"""Known failures, kept by the third party in a TOML file of its own: ``[check_name] reason=…``."""

from __future__ import annotations

import tomllib
from pathlib import Path

from kakeya_conformance.model import SuiteUsage


def read_expected(path: str | Path, known: set[str]) -> dict[str, str]:
    """Check name -> reason.

    Rule: conformance.expected.strict

    Rule: conformance.expected.strict

    Raises
    ------
    SuiteUsage
        The file does not read, an entry names no check, or gives no reason.
    """
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SuiteUsage(f"cannot read {path}: {error}") from error
    for name, entry in table.items():
        if name not in known:
            raise SuiteUsage(f"{path}: no check is called {name}")
        if not isinstance(entry, dict) or not str(entry.get("reason", "")).strip():
            raise SuiteUsage(f"{path}: [{name}] gives no reason")
    return {name: str(entry["reason"]) for name, entry in table.items()}
