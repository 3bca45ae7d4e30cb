"""The power-on self-test lets nothing through that reads or writes other bytes."""

import pickle

import numpy as np
import pytest
import torch

from kakeya_fast import dispatch, get_backend, registry, selftest
from kakeya_fast.bridge import with_tensors
from kakeya_fast.hf import policy
from kakeya_fast.proved import Proved
from kakeya_fast.registry import BackendInfo
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Unsupported
from kakeya_ref.layout import page_layout
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
def test_a_codec_is_proved_once_before_its_first_use(monkeypatch):
    runs, real = [], selftest.prove
    monkeypatch.setattr(selftest, "prove", lambda b, c: runs.append((b.name, c)) or real(b, c))
    get_backend("torch")
    backend = get_backend("torch")
    assert runs == [("torch", "raw")]
    layout = page_layout("scalar", 64, 16)
    for _ in range(2):
        backend.encode(np.ones((1, 16, 64), np.float32), layout)
    assert backend.supports(layout).ok
    assert runs == [("torch", "raw"), ("torch", "scalar")]
    # Wherever a copy goes, it proves itself anew.
    pickle.loads(pickle.dumps(backend)).decode(bytes(layout.nbytes), layout)
    assert runs[2:] == [("torch", "scalar")]


class FlipsScalar(Flips):
    """Right in every codec but one."""

    name = "flips-scalar"

    def encode(self, x, layout, **rest):
        right = layout.codec.id != "scalar"
        return (
            ReferenceBackend.encode(self, x, layout, **rest)
            if right
            else Flips.encode(self, x, layout, **rest)
        )


@pytest.mark.parametrize("how", ["encode", "decode", "encode_tensor", "decode_tensor"])
def test_a_failed_codec_is_refused_and_no_other(how, caplog):
    """Rule: backend.selftest.first"""
    backend = with_tensors(Proved(FlipsScalar(), "cpu"))
    backend.prove_first()
    bad, good = page_layout("scalar", 64, 16), page_layout("int", 64, 16)
    x = torch.ones(1, 16, 64)
    given = {
        "encode": lambda layout: x.numpy(),
        "decode": lambda layout: bytes(layout.nbytes),
        "encode_tensor": lambda layout: x,
        "decode_tensor": lambda layout: torch.zeros(1, layout.nbytes, dtype=torch.uint8),
    }[how]
    for _ in range(2):
        with pytest.raises(Unsupported, match="flips-scalar differs in page of frozen vector"):
            getattr(backend, how)(given(bad), bad)
    getattr(backend, how)(given(good), good)
    told = backend.supports(bad)
    assert not told.ok
    assert "differs in page of frozen vector" in told.reason
    assert backend.supports(good).ok


def test_a_cache_takes_the_next_backend_for_a_codec_that_fails(monkeypatch, caplog):
    monkeypatch.setattr(
        registry,
        "BACKENDS",
        (
            BackendInfo("flips-scalar", ("cpu",), ("cpu",), (), f"{__name__}:FlipsScalar"),
            next(i for i in registry.BACKENDS if i.name == "torch"),
        ),
    )
    monkeypatch.setattr(dispatch, "_ready", {})
    monkeypatch.delenv("KAKEYA_BACKEND", raising=False)
    policy._backend.cache_clear()
    try:
        for name, taken in (("scalar", "torch"), ("int", "flips-scalar")):
            layout = page_layout(name, 64, 32)
            assert policy._serving("auto", "cpu", (layout, layout)).name == taken
    finally:
        policy._backend.cache_clear()
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warned) == 1
    assert "refused: flips-scalar differs" in warned[0]


@pytest.mark.parametrize("how", ["attend", "prepare"])
def test_every_call_with_a_layout_waits_for_the_proof(how):
    class Broken(Flips):
        def attend(self, *given, bias=None):
            raise AssertionError("reached")

        def prepare(self, layout):
            raise AssertionError("reached")

    backend, layout = Proved(Broken(), "cpu"), page_layout("scalar", 64, 16)
    given = ((layout, layout),) if how == "attend" else (layout,)
    with pytest.raises(Unsupported, match="differs in page"):
        getattr(backend, how)(*given)
