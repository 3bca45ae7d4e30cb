"""Codecs without kernels on a device still work there, through host memory, and it is said."""

from __future__ import annotations

import logging

import pytest
import torch

from kakeya_fast.bridge import TensorBridge
from kakeya_fast.hf import policy
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Unsupported
from kakeya_ref.layout import page_layout
from kakeya_ref.types import Support

LAYOUT = page_layout("scalar:b=3", 16, 16)


class Lacking:
    """A backend of some device without the codecs asked for."""

    name = "lacking"

    def supports(self, layout):
        return Support(False, frozenset(), "no kernels")


@pytest.fixture
def lacking(monkeypatch):
    policy._through_host.cache_clear()
    yield monkeypatch.setattr(
        policy,
        "_backend",
        lambda name, device: ReferenceBackend() if device == "cpu" else Lacking(),
    )
    policy._through_host.cache_clear()


def test_the_last_resort_is_the_host_and_is_logged_once(lacking, caplog) -> None:
    """Rule: backend.auto.logged"""
    with caplog.at_level(logging.WARNING, logger="kakeya"):
        found = [policy._serving("auto", "cuda", (LAYOUT, LAYOUT)) for _ in range(2)]
    assert found[0] is found[1]
    said = [r.getMessage() for r in caplog.records if "through host memory" in r.getMessage()]
    assert len(said) == 1
    assert "[backend.auto.logged]" in said[0]
    x = torch.randn(2, 16, 16)
    body = found[0].encode_tensor(x, LAYOUT)
    assert body.numpy().tobytes() == ReferenceBackend().encode(x.numpy(), LAYOUT).tobytes()


def test_a_backend_asked_for_by_name_is_not_replaced(lacking) -> None:
    """Rule: backend.name.explicit"""
    with pytest.raises(Unsupported, match="no kernels"):
        policy._serving("lacking", "cuda", (LAYOUT, LAYOUT))


def test_the_host_route_offers_pages_in_and_out_and_no_more() -> None:
    class Wide(ReferenceBackend):
        def supports(self, layout):
            return Support(True, frozenset({"encode", "decode", "attend"}))

    assert TensorBridge(Wide()).supports(LAYOUT).features == {"encode", "decode"}
