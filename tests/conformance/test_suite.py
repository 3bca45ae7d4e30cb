"""The suite as a program: exit codes, expected failures, floors, report, selection, faces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kakeya_conformance import all_checks, floors, load_backend, run_checks
from kakeya_conformance.cli import main
from kakeya_conformance.model import Check, SuiteUsage, check
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Unsupported, UsageError
from kakeya_ref.types import Support

MINIMAL = "kakeya_conformance.examples.minimal_backend:Backend"


class RawOnly(ReferenceBackend):
    """Announces ``raw`` and nothing else."""

    def supports(self, layout):
        ok = layout.codec.id == "raw"
        return Support(ok, reason="" if ok else "raw only")

    def decode(self, pages, layout, **options):
        if layout.codec.id != "raw":
            raise Unsupported("backend.codec.offered", "raw only")
        return super().decode(pages, layout, **options)

    def encode(self, x, layout, **options):
        if layout.codec.id != "raw":
            raise Unsupported("backend.codec.offered", "raw only")
        return super().encode(x, layout, **options)


class Reader(RawOnly):
    """Decodes only."""

    def supports(self, layout):
        ok = layout.codec.id == "raw"
        return Support(ok, frozenset({"decode"}), "" if ok else "raw only")

    def encode(self, x, layout, **options):
        raise Unsupported("backend.codec.offered", "reads only")


class OneShape(ReferenceBackend):
    """What a first device kernel offers: one head dim, one page size."""

    def supports(self, layout):
        ok = (layout.head_dim, layout.tokens) == (128, 32) and layout.codec.id in ("scalar", "e8")
        return Support(ok, reason="" if ok else "head dim 128 and 32 tokens only")

    def decode(self, pages, layout, **options):
        self.known(layout)
        return super().decode(pages, layout, **options)

    def encode(self, x, layout, **options):
        self.known(layout)
        return super().encode(x, layout, **options)

    def known(self, layout):
        answer = self.supports(layout)
        if not answer.ok:
            raise Unsupported("backend.codec.offered", answer.reason)


class Nothing(ReferenceBackend):
    """Offers nothing at all."""

    def supports(self, layout):
        return Support(False, frozenset(), "nothing is offered")


class WrongRaw(RawOnly):
    """Loses the last bit."""

    def decode(self, pages, layout, **options):
        return super().decode(pages, layout, **options) * np.float32(1.0000001)


def test_the_minimal_example_conforms():
    report = run_checks(MINIMAL)
    assert report.exit_code == 0, report.to_text()
    assert report.offers == {"raw": ["decode", "encode"]}


def test_a_backend_of_one_shape_is_tried_at_that_shape():
    report = run_checks(OneShape())
    assert report.exit_code == 0, report.to_text()
    assert report.offers == {c: ["decode", "encode"] for c in ("scalar", "e8")}
    assert report.checks["check_encode__agrees_with_reference"].passed == 30
    # No head dim with exact ties is offered, so those checks have nothing to say.
    assert "head dim" in report.skipped["check_scale__sums_by_halving"]


def test_a_wrong_backend_is_1_with_rule_bytes_and_command():
    report = run_checks(WrongRaw())
    assert report.exit_code == 1
    failure = next(f for f in report.failures if f.check == "check_decode__legal_pages_agree")
    assert "raw.decode.exact" in failure.rules
    assert "e8.decode.product" not in failure.rules
    assert failure.detail["got"] != failure.detail["want"]
    assert "--only check_decode__legal_pages_agree" in failure.command
    assert "FAILED  check_decode__legal_pages_agree" in report.to_text()


def test_a_backend_that_offers_nothing_is_3():
    report = run_checks(Nothing(), only="check_encode__repeats")
    assert report.ran == 0
    assert report.exit_code == 3


def test_a_whole_run_of_nothing_is_3_too():
    assert run_checks(Nothing()).exit_code == 3


def test_an_only_that_selects_nothing_is_3():
    assert run_checks(RawOnly(), only="no such thing").exit_code == 3


def test_fewer_cases_than_the_floor_is_3(monkeypatch):
    """Rule: conformance.floor.ran"""
    many = {"raw": {f: {"checks": 1, "cases": 10**6} for f in ("decode", "encode")}}
    monkeypatch.setattr(floors, "floors", lambda: many)
    report = run_checks(RawOnly())
    assert not report.unexpected
    assert report.exit_code == 3
    assert "the manifest demands 1000000" in " ".join(report.shortfalls)


def test_changed_vectors_are_3(monkeypatch):
    """Rule: conformance.vectors.frozen"""
    monkeypatch.setattr(floors, "manifest_problems", lambda: ("v1/raw/values.json differs",))
    assert run_checks(RawOnly(), only="check_encode__repeats").exit_code == 3


def test_a_reader_is_not_asked_to_write():
    report = run_checks(Reader())
    assert report.exit_code == 0, report.to_text()
    assert report.offers == {"raw": ["decode"]}
    assert report.checks["check_encode__repeats"].ran == 0
    assert "encode     " in report.to_text()
    assert "not offered" in report.to_text()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["no.such.module:Backend"], 2),
        (["math:pi"], 2),
        (["nosuchname"], 2),
        ([MINIMAL, "--expected", "/no/such/file"], 2),
        ([MINIMAL, "--only", "check_encode__repeats"], 0),
        ([MINIMAL, "--only", "no such thing"], 3),
        (["--list"], 0),
    ],
)
def test_exit_codes_of_the_command(words, code, capsys):
    assert main(words) == code
    said = capsys.readouterr()
    assert said.out or said.err


@pytest.mark.parametrize("words", [[MINIMAL, "--profile", "huge"], [MINIMAL, "--codec", "mp3"]])
def test_wrong_options_leave_with_2(words):
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2


def test_the_module_runs_from_anywhere_on_a_loose_file(tmp_path):
    (tmp_path / "loose.py").write_text(
        "from kakeya_ref.backend import ReferenceBackend\n"
        "class Backend(ReferenceBackend):\n"
        "    name = 'loose'\n"
        "    def encode(self, x, layout, **options):\n"
        "        return super().encode(x, layout, **options)[:, :-1]\n"
    )
    only = ["--only", "check_encode__rate_is_the_bytes", "--codec", "raw"]
    run = subprocess.run(
        [sys.executable, "-m", "kakeya_conformance", "loose:Backend", *only],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert "[rate.bytes.true]" in run.stdout


def expected(tmp_path, text):
    path = tmp_path / "expected.toml"
    path.write_text(text)
    return str(path)


def test_expected_failures_are_forgiven(tmp_path):
    failing = {f.check for f in run_checks(WrongRaw()).failures}
    text = "\n".join(f'[{name}]\nreason = "last bit"' for name in failing)
    report = run_checks(WrongRaw(), expected=expected(tmp_path, text))
    assert report.exit_code == 0, report.to_text()
    assert all(f.expected for f in report.failures)
    assert "expected" in report.to_text()


def test_an_expected_failure_that_passes_is_an_error(tmp_path):
    """Rule: conformance.expected.strict"""
    path = expected(tmp_path, '[check_encode__repeats]\nreason = "none"')
    report = run_checks(RawOnly(), expected=path)
    assert report.exit_code == 2
    assert "passes" in report.problems[0]


def test_an_expected_failure_that_never_runs_is_an_error(tmp_path):
    path = expected(tmp_path, '[check_signs__seeds_over_the_whole_range]\nreason = "none"')
    assert run_checks(RawOnly(), expected=path).exit_code == 2
    assert run_checks(RawOnly(), expected=path, codecs=["raw"]).exit_code == 0


@pytest.mark.parametrize(
    "text", ['[check_no__such]\nreason = "x"', "[check_encode__repeats]\n", "not toml ["]
)
def test_a_wrong_expected_file_is_refused(tmp_path, text):
    with pytest.raises(SuiteUsage):
        run_checks(RawOnly(), expected=expected(tmp_path, text))


def test_the_example_expected_file_names_a_check():
    from kakeya_conformance.expected import read_expected

    path = Path(floors.__file__).parent / "examples" / "expected.toml"
    assert read_expected(path, {c.name for c in all_checks()})


def test_the_json_report_says_what_ran(tmp_path):
    path = tmp_path / "report.json"
    only = ["--only", "check_encode__repeats"]
    assert main([MINIMAL, *only, "--json", str(path), "--seed", "7"]) == 0
    data = json.loads(path.read_text())
    assert data["schema"] == 1
    assert data["seed"] == 7
    assert data["profile"] == "quick"
    assert (data["backend"], data["backend_profile"]) == ("minimal", "exact")
    assert data["backend_version"] == "1"
    assert len(data["manifest"]) == 12
    assert data["format"]
    assert data["suite"]
    assert data["cases"] == data["checks"]["check_encode__repeats"]["passed"] > 0
    assert data["exit_code"] == 0


def test_the_same_seed_gives_the_same_cases():
    a, b = (run_checks(RawOnly(), only="check_encode__agrees", seed=3) for _ in range(2))
    assert a.checks == b.checks
    broken = [run_checks(WrongRaw(), only="legal_pages", seed=s).failures for s in (3, 3)]
    assert broken[0] == broken[1]


def test_a_frozen_vector_can_be_run_alone():
    report = run_checks("ref", only="e8.page.001")
    assert report.exit_code == 0
    assert report.ran == 2


def test_every_check_is_named_and_says_its_claim():
    names = [c.name for c in all_checks()]
    assert names == sorted(set(names))
    for each in all_checks():
        assert each.rules, each.name
        assert each.sentence.endswith("."), each.name


def test_a_check_without_a_claim_is_refused():
    with pytest.raises(ValueError, match="says its claim"):

        @check(rules=["x.y.z"], level="bits")
        def check_nothing__said(t):
            assert t


def test_loader_takes_names_classes_instances_and_factories():
    assert load_backend("ref")[0].name == "ref"
    assert load_backend(ReferenceBackend)[1] == "kakeya_ref.backend:ReferenceBackend"
    assert load_backend(ReferenceBackend())[0].profile == "exact"
    assert load_backend(lambda: ReferenceBackend())[1] == ""
    with pytest.raises(UsageError, match=r"backend\.name\.explicit"):
        load_backend(object())


def test_pytest_face_runs_the_same_checks(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from kakeya_conformance import parametrize_with_checks\n"
        f"@parametrize_with_checks({MINIMAL!r})\n"
        "def test_kakeya(check):\n"
        "    check()\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:]
    passed = int(run.stdout.split(" passed")[0].split()[-1])
    assert passed >= 60


def test_checks_hold_no_tolerance_and_no_pytest():
    folder = Path(floors.__file__).parent / "checks"
    sources = [p.read_text() for p in folder.glob("*.py")]
    assert len(sources) > 5
    for text in sources:
        assert "import pytest" not in text
        assert "allclose" not in text
        assert "1e-" not in text


def test_every_named_rule_stands_in_the_spec():
    import re
    from importlib.resources import files

    root = Path(str(files("kakeya_spec").joinpath("core.md"))).parent
    stated = {
        name
        for page in root.rglob("*.md")
        for name in re.findall(r"\*\*\[([a-z0-9.-]+)\]\*\*", page.read_text("utf-8"))
    }
    named = {rule for each in all_checks() for rule in each.rules}
    assert named - stated == set()


def test_check_type_is_exported():
    assert isinstance(all_checks()[0], Check)


def absent() -> None:
    """A backend whose device is not there."""
    raise Unsupported("backend.name.explicit", "no such device")


def test_a_backend_that_cannot_be_made_is_said_in_a_line(capsys):
    """Rule: backend.name.explicit"""
    name = f"{__name__}:absent"
    assert main([name]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"[backend.name.explicit] {name} cannot be made: ")
    assert "no such device" in told
