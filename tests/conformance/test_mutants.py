"""The suite's own exam: every wrong backend fails, by a check that names the rule it breaks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kakeya_conformance import run_checks

sys.path.insert(0, str(Path(__file__).parent))

import mutants_bytes
import mutants_conduct
import mutants_numbers

# A check that names many rules would excuse any failure.
NARROW = 12


def mutants():
    found = []
    for module in (mutants_numbers, mutants_bytes, mutants_conduct):
        for item in vars(module).values():
            if isinstance(item, type) and item.__module__ == module.__name__:
                found.append(item)
    return found


def test_there_are_enough_mutants():
    assert len(mutants()) >= 14


@pytest.mark.parametrize("mutant", mutants(), ids=lambda m: m.__name__)
def test_mutant_is_caught_by_its_rule(mutant):
    report = run_checks(mutant(), profile="quick", codecs=mutant.codecs)
    assert report.exit_code == 1
    caught = [f for f in report.failures if mutant.rule in f.rules and len(f.rules) <= NARROW]
    assert caught, {f.check: f.message for f in report.failures}
    assert all("--only" in f.command for f in caught)
