"""The floor: how much must have run before a green report means anything."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from kakeya_conformance.model import Check
from kakeya_conformance.report import Report
from kakeya_conformance.vectors import broken_manifest, frozen_vectors, manifest_hash


def floors() -> dict[str, Any]:
    """``manifest.toml``, parsed."""
    return tomllib.loads(files("kakeya_conformance").joinpath("manifest.toml").read_text("utf-8"))


def shortfalls(
    report: Report,
    offers: Mapping[str, frozenset[str]],
    checks: Mapping[str, Check],
    filtered: bool,
) -> list[str]:
    """Reasons why the run was too small; empty when it was large enough.

    With ``--only`` the floor is one case. Otherwise every offered codec must have run the
    number of cases that ``manifest.toml`` demands for its features, and every check that an
    offered codec and its features select must have run at least once.
    """
    if report.ran == 0:
        return ["no case ran"]
    missing = [f"vectors: {path} differs from MANIFEST.sha256" for path in broken_manifest()]
    if filtered:
        return missing
    demanded = floors()
    if manifest_hash() == "none":
        missing.append("vectors: MANIFEST.sha256 is not there")
    if len(frozen_vectors()) < demanded["vectors"]["cases"]:
        missing.append(f"vectors: found {len(frozen_vectors())}, want {demanded['vectors']}")
    for codec_id, features in offers.items():
        want = sum(demanded[feature]["cases"] for feature in features if feature in demanded)
        got = report.per_codec[codec_id].ran if codec_id in report.per_codec else 0
        if got < want:
            missing.append(f"{codec_id}: {got} cases ran, the manifest demands {want}")
    features = frozenset().union(*offers.values()) if offers else frozenset()
    ran = sum(1 for tally in report.checks.values() if tally.ran)
    want = sum(
        demanded[feature]["checks"] for feature in features | {"always"} if feature in demanded
    )
    if ran < want:
        missing.append(f"{ran} checks ran, the manifest demands {want}")
    return missing
