"""Files stay small, and links inside the spec lead somewhere."""

from __future__ import annotations

import re

import pytest
import spectext

ROOT = spectext.ROOT
REFERENCE_FILE, REFERENCE_TOTAL, ANY_FILE = 250, 3600, 400
KINDS = ("*.py", "*.cu", "*.cuh", "*.cpp")
PARTS = ("spec", "kakeya_ref", "kakeya_fast", "conformance", "benchmarks", "tests")


def lines(path) -> int:
    return len(path.read_text("utf-8").splitlines())


def sources(part: str) -> list:
    return sorted(p for kind in KINDS for p in (ROOT / part).rglob(kind))


def test_reference_fits_in_a_head() -> None:
    sizes = {str(p.relative_to(ROOT)): lines(p) for p in sources("kakeya_ref")}
    assert {name: n for name, n in sizes.items() if n > REFERENCE_FILE} == {}
    assert 0 < sum(sizes.values()) <= REFERENCE_TOTAL


def test_no_source_file_is_long() -> None:
    sizes = {str(p.relative_to(ROOT)): lines(p) for part in PARTS for p in sources(part)}
    assert {name: n for name, n in sizes.items() if n > ANY_FILE} == {}


@pytest.mark.parametrize("page", spectext.pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(page) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8"))
    local = [t.partition("#")[0] for t in targets if not t.startswith("http")]
    assert [t for t in local if t and not (page.parent / t).exists()] == []
