"""Two refusals of the cache that no ordinary model reaches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kakeya_ref import Support, Unsupported, parse_codec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from kakeya_fast.hf import interface, policy  # noqa: E402


def test_a_backend_that_only_reads_is_refused(monkeypatch) -> None:
    """Rule: cache.backend.offers"""
    reader = SimpleNamespace(
        name="reader", supports=lambda layout: Support(True, frozenset({"decode"}))
    )
    monkeypatch.setattr(policy, "_backend", lambda name, device: reader)
    plan = policy.Policy(parse_codec("scalar"), parse_codec("e8"))
    with pytest.raises(Unsupported, match=r"^\[cache.backend.offers\] reader"):
        plan.open("cpu", plan.layouts(64, 64))


def test_a_module_without_eager_attention_is_refused() -> None:
    """Rule: cache.attend.base"""
    with pytest.raises(Unsupported, match=r"^\[cache.attend.base\].*Linear"):
        interface.base_forward(torch.nn.Linear(1, 1), "eager")
