"""The power-on self-test lets nothing through that reads or writes other bytes."""

import numpy as np
import pytest

from kakeya_fast import dispatch, get_backend, registry, selftest
from kakeya_fast.registry import BackendInfo
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Unsupported
from kakeya_ref.registry import codec_ids
from kakeya_ref.types import Support


class Flips(ReferenceBackend):
    """Writes one wrong bit."""

    name = "flips"

    def encode(self, x, layout, **rest):
        body = super().encode(x, layout, **rest)
        body[-1, layout.planes[-1].offset] ^= 1
        return body


class Drifts(ReferenceBackend):
    """Reads coefficients with one of them a unit in the last place off."""

    name = "drifts"

    def decode(self, pages, layout, **rest):
        y = super().decode(pages, layout, **rest)
        y[-1, -1, -1] = np.nextafter(y[-1, -1, -1], np.float32(1))
        return y


class Coarse(ReferenceBackend):
    """Bounded, reads well, but writes the pages of other numbers."""

    name = "coarse"
    profile = "bounded"

    def encode(self, x, layout, **rest):
        return super().encode(x * x.dtype.type(0.9), layout, **rest)


class Crashes(ReferenceBackend):
    name = "crashes"

    def decode(self, pages, layout, **rest):
        raise IndexError("far out")


class ScalarOnly(ReferenceBackend):
    name = "scalar-only"

    def supports(self, layout):
        return Support(
            layout.codec.id == "scalar", reason="" if layout.codec.id == "scalar" else "no"
        )


class Nothing(ReferenceBackend):
    name = "nothing"

    def supports(self, layout):
        return Support(False, frozenset(), "nothing at all")


@pytest.mark.parametrize("broken", [Flips, Drifts, Coarse, Crashes, Nothing])
def test_broken_backend_is_refused(broken):
    with pytest.raises(Unsupported, match=rf"\[backend.selftest.first\] {broken.name}"):
        selftest.power_on(broken())


def test_reader_with_one_codec_passes():
    assert selftest.power_on(ScalarOnly()) >= 2


@pytest.mark.parametrize("profile", ["exact", "bounded"])
def test_right_backend_passes_with_work_done(monkeypatch, profile):
    backend = ReferenceBackend()
    monkeypatch.setattr(backend, "profile", profile, raising=False)
    assert selftest.power_on(backend) >= 2 * len(codec_ids())


def test_every_codec_has_cases_with_wide_vectors():
    """Over few numbers most mistakes of a rotation or of a chain do not show."""
    for codec_id in codec_ids():
        dims = [case["head_dim"] for case in selftest.cases(codec_id)]
        assert len(dims) == len(set(dims)) >= 2
        assert max(dims) >= 96


def test_test_that_ran_nothing_is_a_failure(monkeypatch):
    monkeypatch.setattr(selftest, "cases", lambda codec_id: ())
    with pytest.raises(Unsupported, match="no frozen vector of raw was run"):
        selftest.power_on(ReferenceBackend())


@pytest.fixture
def _broken_first(monkeypatch):
    row = BackendInfo("flips", ("cpu",), ("cpu",), (), f"{__name__}:Flips")
    good = next(i for i in registry.BACKENDS if i.name == "torch")
    monkeypatch.setattr(registry, "BACKENDS", (row, good))
    monkeypatch.setattr(BackendInfo, "load", _load)
    monkeypatch.setattr(dispatch, "_ready", {})
    monkeypatch.delenv("KAKEYA_BACKEND", raising=False)


_original = BackendInfo.load


def _load(self, device):
    return Flips() if self.name == "flips" else _original(self, device)


@pytest.mark.usefixtures("_broken_first")
def test_failed_selftest_is_loud_when_named_and_skipped_with_a_warning_when_not(caplog):
    with pytest.raises(Unsupported, match="flips differs in page of frozen vector"):
        get_backend("flips")
    assert get_backend().name == "torch"
    # What is merely told depends on who has asked to hear it in this process.
    warned = [r for r in caplog.records if r.levelname != "INFO"]
    assert [r.levelname for r in warned] == ["WARNING"]
    assert "flips" in warned[0].getMessage()


@pytest.mark.usefixtures("_broken_first")
def test_selftest_runs_once_per_process(monkeypatch):
    runs = []
    real = dispatch.power_on
    monkeypatch.setattr(dispatch, "power_on", lambda b: runs.append(b.name) or real(b))
    get_backend("torch")
    get_backend("torch")
    assert runs == ["torch"]
