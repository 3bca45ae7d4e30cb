"""The suite's own exam: every wrong backend fails, by a check that names the rule it breaks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kakeya_conformance import all_checks, run_checks
from kakeya_ref.registry import codec_ids

sys.path.insert(0, str(Path(__file__).parent))

import mutants_attend
import mutants_bytes
import mutants_chains
import mutants_conduct
import mutants_numbers
import mutants_query
import mutants_residual
import mutants_tables
import mutants_trellis

# A check that names many rules would excuse any failure.
NARROW = 10
TABLED = (mutants_chains, mutants_residual, mutants_tables)
OWN = (mutants_attend, mutants_query, mutants_trellis)
MODULES = (mutants_numbers, mutants_bytes, mutants_conduct, *OWN, *TABLED)


def mutants():
    found = []
    for module in MODULES:
        for item in vars(module).values():
            if isinstance(item, type) and item.__module__ == module.__name__:
                found += [item] if hasattr(item, "rule") else []
    return found


def test_there_are_enough_mutants():
    assert len(mutants()) >= 60
    names = {module.__name__ for module in TABLED}
    assert sum(m.__module__ in names for m in mutants()) >= 16


def accusers(mutant):
    """Names of the checks that name the broken rule, and few others."""
    for each in all_checks():
        rules = [
            r
            for r in each.rules
            if r.partition(".")[0] not in set(codec_ids()) - set(mutant.codecs)
        ]
        if mutant.rule in rules and len(rules) <= NARROW:
            yield each.name


@pytest.mark.parametrize("mutant", mutants(), ids=lambda m: m.__name__)
def test_mutant_is_caught_by_its_rule(mutant):
    tried = {}
    for name in accusers(mutant):
        report = run_checks(mutant(), only=name, codecs=mutant.codecs)
        tried[name] = report.exit_code
        if report.exit_code == 1:
            assert all(mutant.rule in f.rules for f in report.failures)
            return
    # A fault in one rounding shows on few inputs: drawn ones may miss it, a frozen one never.
    report = run_checks(mutant(), only="check_vectors__encode", codecs=mutant.codecs)
    if any(mutant.rule in f.rules for f in report.failures):
        return
    pytest.fail(f"no check that names {mutant.rule} failed: {tried}")
