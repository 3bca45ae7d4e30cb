"""What a run found, as data, as JSON and as text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPORT_SCHEMA = 1
SHOWN = 12
LINE = 300
DRAWN = re.compile(r"^Draw \d+ \((.+?)\): (.+)$", re.MULTILINE)


@dataclass
class Failure:
    """One case that failed.

    ``detail`` holds the worst page and the hex of both sides where bytes or floats were compared.
    """

    check: str
    case: str
    rules: tuple[str, ...]
    message: str
    command: str
    detail: dict[str, Any] = field(default_factory=dict)
    expected: bool = False


@dataclass
class Tally:
    """Cases of one check."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def ran(self) -> int:
        """Cases that said something."""
        return self.passed + self.failed


@dataclass
class Report:
    """Outcome of one run of the suite."""

    format: str
    suite: str
    manifest: str
    profile: str
    seed: int
    backend: str
    target: str
    backend_profile: str
    backend_version: str
    offers: dict[str, list[str]]
    checks: dict[str, Tally] = field(default_factory=dict)
    per_codec: dict[str, dict[str, Tally]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    shortfalls: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def unexpected(self) -> list[Failure]:
        """Failures that the expected file does not name."""
        return [f for f in self.failures if not f.expected]

    @property
    def ran(self) -> int:
        """Cases that said something, over all checks."""
        return sum(t.ran for t in self.checks.values())

    @property
    def exit_code(self) -> int:
        """0 conforms, 1 fails, 2 wrong expected file, 3 ran less than the manifest demands."""
        if self.problems:
            return 2
        if self.unexpected:
            return 1
        return 3 if self.shortfalls else 0

    def to_json(self) -> str:
        """The report as JSON text."""
        data = asdict(self) | {
            "schema": REPORT_SCHEMA,
            "exit_code": self.exit_code,
            "cases": self.ran,
        }
        return json.dumps(data, indent=1, sort_keys=True)

    def write(self, path: str | Path) -> None:
        """Write the JSON report."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    def to_text(self) -> str:
        """The report for a terminal, one line per area, then the failures."""
        offers = " ".join(self.offers) or "none"
        features = " ".join(sorted({f for fs in self.offers.values() for f in fs})) or "none"
        version = f" {self.backend_version}" if self.backend_version else ""
        lines = [
            f"kakeya-kv {self.format} · suite {self.suite} · manifest {self.manifest} · "
            f"profile {self.profile} · seed {self.seed}",
            f'backend  {self.target or "(object)"} "{self.backend}{version}" '
            f"({self.backend_profile})   codecs {offers}   features {features}",
            *self._area_lines(),
        ]
        lines += self._failure_lines()
        lines += [f"EXPECTED FILE  {text}" for text in self.problems]
        lines += [f"TOO FEW  {text}" for text in self.shortfalls]
        verdict = {
            0: "conforms",
            1: "does not conform",
            2: "expected file is wrong",
            3: "ran too little to say",
        }
        lines.append(
            f"{verdict[self.exit_code]}: {self.ran} cases of {len(self._that_ran())} checks "
            f"in {self.seconds:.1f} s"
        )
        return "\n".join(lines)

    def _that_ran(self) -> list[str]:
        return [name for name, tally in self.checks.items() if tally.ran]

    def _failure_lines(self) -> Iterable[str]:
        """The first failure of every check, in full; the others are counted."""
        per_check: dict[str, list[Failure]] = {}
        for failure in self.unexpected:
            per_check.setdefault(failure.check, []).append(failure)
        for failures in list(per_check.values())[:SHOWN]:
            yield from _failure_lines(failures[0])
            if len(failures) > 1:
                yield f"        … and {len(failures) - 1} more cases of this check"
        if len(per_check) > SHOWN:
            yield f"… and {len(per_check) - SHOWN} more checks; all of them with --json"

    def _area_lines(self) -> Iterable[str]:
        expected = Counter(f.check for f in self.failures if f.expected)
        areas: dict[str, Counter[str]] = {}
        for name, tally in self.checks.items():
            area = areas.setdefault(area_of(name), Counter())
            area.update(
                checks=1 if tally.ran else 0,
                passed=tally.passed,
                failed=tally.failed - expected[name],
                expected=expected[name],
                skipped=tally.skipped,
            )
        for name, count in sorted(areas.items()):
            if not count["passed"] + count["failed"] + count["expected"]:
                yield f"{name:<10}    –  not offered"
                continue
            parts = [f"{count['passed']:>6} passed"]
            parts += [f"{count[k]} {k}" for k in ("failed", "expected", "skipped") if count[k]]
            yield f"{name:<10} {'   '.join(parts)}   ({count['checks']} checks)"


def area_of(check: str) -> str:
    """``decode`` of ``check_decode__repeats``."""
    return check.removeprefix("check_").partition("__")[0]


def _draws(f: Failure) -> str:
    """Names and seeds of a drawn case; its layout stands in the message."""
    found = DRAWN.findall(f.detail.get("draws", ""))
    return ", ".join(f"{name} {value}" for name, value in found if "Layout(" not in value)


def _failure_lines(f: Failure) -> list[str]:
    rules = " ".join(f"[{r}]" for r in f.rules)
    # A foreign exception can be pages long; the JSON report has more of it.
    message = " ".join(f.message.split())
    short = message if len(message) <= LINE else message[:LINE] + " …"
    lines = [f"FAILED  {f.check}   {rules}   {f.case}", f"        {short}"]
    if draws := _draws(f):
        lines.append(f"        drawn  {draws}")
    if "got" in f.detail:
        lines += [f"        got  {f.detail['got']}", f"        want {f.detail['want']}"]
    return [*lines, f"        {f.command}"]
