"""The floor: how much must have run before a green report means anything."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from kakeya_conformance.layouts import Offer
from kakeya_conformance.model import Check
from kakeya_conformance.report import Report
from kakeya_conformance.vectors import manifest_problems


def floors() -> dict[str, Any]:
    """``manifest.toml``, parsed."""
    return tomllib.loads(files("kakeya_conformance").joinpath("manifest.toml").read_text("utf-8"))


def shortfalls(
    report: Report,
    offers: Mapping[str, Offer],
    checks: Mapping[str, Check],
    filtered: bool,
) -> list[str]:
    """Reasons why the run was too small; empty when it was large enough.

    With ``--only`` the floor is one case. Otherwise every offered codec must have run, for each
    of its features, the number of checks and cases that ``manifest.toml`` demands, and the frozen
    vectors must be those of their manifest, all of them.

    Rule: conformance.floor.ran, conformance.vectors.frozen

    Rule: conformance.floor.ran, conformance.vectors.frozen
    """
    if report.ran == 0:
        return ["no case ran"]
    missing = [f"vectors: {problem}" for problem in manifest_problems()]
    if filtered:
        return missing
    for codec_id, offer in offers.items():
        ran = {name: t.ran for name, t in report.per_codec.get(codec_id, {}).items() if t.ran}
        for feature in sorted(offer.features):
            mine = {name: n for name, n in ran.items() if feature_of(checks[name]) == feature}
            floor = floors()[codec_id][feature]
            for what, got in (("checks", len(mine)), ("cases", sum(mine.values()))):
                if got < floor[what]:
                    missing.append(
                        f"{codec_id}, {feature}: {got} {what} ran, the manifest demands "
                        f"{floor[what]}"
                    )
    return missing


def feature_of(check: Check) -> str:
    """The feature that a check is counted under: the most that it needs."""
    if "attend" in check.needs:
        return "attend"
    return "encode" if "encode" in check.needs else "decode"
