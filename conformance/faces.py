"""The pytest face: ``@parametrize_with_checks(Backend())`` over a test that calls its argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kakeya_conformance.layouts import announced
from kakeya_conformance.loader import load_backend
from kakeya_conformance.oracle import Oracle
from kakeya_conformance.runner import Case, cases, run_case
from kakeya_conformance.trial import Trial


def checks_of(backend: str | object, profile: str = "quick", seed: int = 0) -> list[Case]:
    """Every case that the backend's announcements select."""
    loaded, target = load_backend(backend)
    base = Trial(loaded, target, Oracle(), seed)
    return list(cases(base, announced(loaded), profile))


def parametrize_with_checks(
    backend: str | object, *, profile: str = "quick", seed: int = 0
) -> Callable[[Callable[..., Any]], Any]:
    """A ``pytest.mark.parametrize`` decorator that passes ``check``, a callable without arguments.

    Examples
    --------
    ::

        @parametrize_with_checks("my_pkg.backend:Backend")
        def test_kakeya(check):
            check()
    """
    import pytest

    from kakeya_conformance.model import NotApplicable

    def runnable(case: Case) -> Callable[[], None]:
        def call() -> None:
            try:
                run_case(case)
            except NotApplicable as reason:
                pytest.skip(str(reason))

        return call

    found = checks_of(backend, profile, seed)
    ids = [f"{case.check.name}[{case.label}]" for case in found]
    return pytest.mark.parametrize("check", [runnable(case) for case in found], ids=ids)
