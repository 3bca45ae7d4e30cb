"""Conformance suite for backends of the Kakeya KV-cache format.

One command, no pytest: ``python -m kakeya_conformance my_pkg.backend:Backend``.
Inside a pytest run: :func:`parametrize_with_checks`. As a function: :func:`run_checks`.
"""

from kakeya_conformance.faces import parametrize_with_checks
from kakeya_conformance.loader import load_backend
from kakeya_conformance.model import Check, Nonconforming, all_checks, check
from kakeya_conformance.report import Report
from kakeya_conformance.runner import run_checks

SUITE_VERSION = "0.2.0"

__all__ = [
    "SUITE_VERSION",
    "Check",
    "Nonconforming",
    "Report",
    "all_checks",
    "check",
    "load_backend",
    "parametrize_with_checks",
    "run_checks",
]
