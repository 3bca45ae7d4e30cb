"""Which checks, on which cases; run them; count."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from kakeya_conformance import expected as expected_file
from kakeya_conformance import floors
from kakeya_conformance.layouts import Offer, announced
from kakeya_conformance.loader import load_backend
from kakeya_conformance.model import Check, Nonconforming, NotApplicable, SuiteUsage, all_checks
from kakeya_conformance.oracle import Oracle
from kakeya_conformance.report import Failure, Report, Tally
from kakeya_conformance.trial import Trial
from kakeya_conformance.vectors import frozen_vectors, manifest_hash
from kakeya_ref.registry import codec_ids, registry

MESSAGE = 2000  # characters of a foreign exception that the report keeps
DRAW = 160  # characters of one draw of a failing example
EXAMPLES = {"quick": 15, "standard": 60, "thorough": 1000}


@dataclass(frozen=True)
class Case:
    """One check on one case. ``examples`` is 1 except for drawn checks."""

    check: Check
    trial: Trial
    label: str
    codec_id: str
    examples: int = 1


def cases(
    trial: Trial,
    offers: dict[str, Offer],
    profile: str,
    only: str = "",
) -> Iterator[Case]:
    """Every case that the backend's announcements select; ``only`` is part of a name or an id."""
    everything = frozenset().union(*(offer.features for offer in offers.values()))
    for check in all_checks():
        named = only in check.name
        if not named and check.over != "vector":
            continue
        if check.over == "backend":
            if check.needs <= everything and any(check.concerns(c) for c in offers):
                yield Case(check, _trial(trial), "backend", "")
        elif check.over == "layout":
            for offer in filter(lambda o: check.concerns(o.codec_id), offers.values()):
                for layout in offer.layouts(trial.backend, profile):
                    if check.needs <= trial.backend.supports(layout).features:
                        one = _trial(trial, codec_id=offer.codec_id, fixed=layout)
                        yield Case(check, one, str(layout), offer.codec_id)
        elif check.over == "drawn":
            for codec_id, offer in offers.items():
                if check.concerns(codec_id) and check.needs <= offer.features:
                    one = _trial(trial, codec_id=codec_id, offer=offer, needs=check.needs)
                    yield Case(check, one, f"{codec_id}, drawn", codec_id, EXAMPLES[profile])
        else:
            yield from _vector_cases(check, trial, offers, "" if named else only)


def _vector_cases(
    check: Check, trial: Trial, offers: dict[str, Offer], only: str
) -> Iterator[Case]:
    for vector in frozen_vectors():
        codec_id = vector.layout.codec.id
        wanted = "encode" if "encode" in check.needs else "decode"
        if vector.op != wanted or only not in vector.id or codec_id not in offers:
            continue
        answer = trial.backend.supports(vector.layout)
        if answer.ok and check.needs <= answer.features:
            one = _trial(trial, codec_id=codec_id, fixed=vector.layout, frozen=vector)
            yield Case(check, one, vector.id, codec_id)


def _trial(base: Trial, **more: Any) -> Trial:
    return Trial(base.backend, base.target, base.oracle, base.seed, **more)


def run_checks(
    backend: str | object,
    *,
    profile: str = "quick",
    codecs: Iterable[str] = (),
    only: str = "",
    seed: int = 0,
    expected: str = "",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Run the suite.

    Parameters
    ----------
    backend : str or object
        ``module:attr``, an entry-point name, or a backend, its class or a factory.
    profile : "quick", "standard" or "thorough"
        15, 60 or 1000 Hypothesis examples; more fixed layouts from ``standard`` on.
    codecs : codec ids, optional
        Run these codecs only.
    only : str
        Run checks whose name, and vectors whose id, contains this text.
    seed : int
        Of every random draw: the same seed gives the same cases.
    expected : path, optional
        TOML file of known failures.

    Raises
    ------
    UsageError, SuiteUsage
        The backend does not load; an option or the expected file means nothing.
    """
    if profile not in EXAMPLES:
        raise SuiteUsage(f"no profile {profile!r}; there are {list(EXAMPLES)}")
    chosen = tuple(codecs)
    if unknown := set(chosen) - set(codec_ids()):
        raise SuiteUsage(f"no codec {sorted(unknown)}; there are {codec_ids()}")
    known = {check.name: check for check in all_checks()}
    excused = expected_file.read_expected(expected, set(known)) if expected else {}
    started = time.monotonic()
    loaded, target = load_backend(backend)
    offers = {k: v for k, v in announced(loaded).items() if not chosen or k in chosen}
    report = _empty_report(loaded, target, profile, seed, offers)
    report.checks = {name: Tally() for name in known if only in name}
    base = Trial(loaded, target, Oracle(), seed)
    for case in cases(base, offers, profile, only):
        if progress:
            progress(f"{case.check.name} {case.label}")
        _run(case, report, excused, profile)
    _settle_expected(report, excused, partial=bool(chosen or only))
    report.shortfalls = floors.shortfalls(report, offers, known, filtered=bool(only))
    report.seconds = time.monotonic() - started
    return report


def _empty_report(
    backend: Any, target: str, profile: str, seed: int, offers: dict[str, Offer]
) -> Report:
    from kakeya_conformance import SUITE_VERSION

    return Report(
        format=str(registry()["format"]),
        suite=SUITE_VERSION,
        manifest=manifest_hash(),
        profile=profile,
        seed=seed,
        backend=str(getattr(backend, "name", type(backend).__name__)),
        target=target,
        backend_profile=str(getattr(backend, "profile", "?")),
        backend_version=str(getattr(backend, "version", "")),
        offers={codec: sorted(offer.features) for codec, offer in offers.items()},
    )


def _run(case: Case, report: Report, excused: dict[str, str], profile: str) -> None:
    name = case.check.name
    tally = Tally()
    try:
        run_case(case, tally, shrink=profile != "quick")
    except NotApplicable as reason:
        report.skipped.setdefault(name, str(reason))
        tally.skipped += 1
    except Exception as error:
        tally.failed += 1
        report.failures.append(_failure(case, error, report, name in excused))
    of_codec = report.per_codec.setdefault(case.codec_id, {}) if case.codec_id else {}
    for total in (report.checks.setdefault(name, Tally()), of_codec.setdefault(name, Tally())):
        total.passed += tally.passed
        total.failed += tally.failed
        total.skipped += tally.skipped


def run_case(case: Case, tally: Tally | None = None, shrink: bool = True) -> None:
    """Run one case; what the check raises comes out.

    A drawn case counts every example that passed in ``tally``; a failure counts once.
    """
    tally = tally or Tally()
    if case.check.over != "drawn":
        case.check.body(case.trial)
        tally.passed += 1
        return
    seen = 0

    @hypothesis_seed(zlib.crc32(f"{case.trial.seed}/{case.check.name}/{case.label}".encode()))
    @settings(
        max_examples=case.examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
    )
    @given(data=st.data())
    def body(data: st.DataObject) -> None:
        nonlocal seen
        case.trial.drawer = data.draw
        case.check.body(case.trial)
        seen += 1

    try:
        body()
    except Unsatisfiable as error:
        raise NotApplicable("the backend offers no layout that this check draws") from error
    finally:
        tally.passed += seen


def _failure(case: Case, error: Exception, report: Report, excused: bool) -> Failure:
    rules = case.trial.frozen.rules if case.trial.frozen else case.check.rules
    foreign = set(codec_ids()) - {case.codec_id} if case.codec_id else set()
    rules = tuple(rule for rule in rules if rule.partition(".")[0] not in foreign)
    only = case.trial.frozen.id if case.trial.frozen else case.check.name
    codec = f" --codec {case.codec_id}" if case.codec_id else ""
    command = (
        f"python -m kakeya_conformance {report.target or 'TARGET'} --only {only}{codec} "
        f"--profile {report.profile} --seed {report.seed}"
    )
    known = isinstance(error, Nonconforming)
    message = str(error) if known else f"{type(error).__name__}: {error}"[:MESSAGE]
    detail = dict(error.detail) if isinstance(error, Nonconforming) else {}
    # Names and seeds are short; a layout says its planes as well, which nobody needs here.
    draws = [n[:DRAW] for n in getattr(error, "__notes__", []) if "Draw" in n]
    if draws:
        detail["draws"] = "\n".join(draws)[:1500]
    return Failure(case.check.name, case.label, rules, message, command, detail, excused)


def _settle_expected(report: Report, excused: dict[str, str], partial: bool) -> None:
    """An expected failure that passes, or never runs in a full run, is an error.

    Rule: conformance.expected.strict
    """
    for name in excused:
        tally = report.checks.get(name, Tally())
        if tally.ran and not tally.failed:
            report.problems.append(f"{name} is expected to fail and passes: remove the entry")
        elif not tally.ran and not partial:
            report.problems.append(f"{name} is expected to fail and did not run: remove the entry")
