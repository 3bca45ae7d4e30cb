"""Small machine, small models: one thread, no gradients, no network."""

import sys
from pathlib import Path

import pytest
import torch

from kakeya_fast.hf import decode, fused

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _inference():
    # Tiny tensors gain nothing from a second thread, and lose much where cores are shared.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def seen(monkeypatch):
    """What every call that might read in place returned; one that is told to refuse: None."""
    calls, refuse, inner, usable = [], [], decode.attend, fused.usable

    def watch(*given):
        calls.append(inner(*given))
        return calls[-1]

    monkeypatch.setattr(decode, "attend", watch)
    monkeypatch.setattr(fused, "usable", lambda *given: not refuse and usable(*given))
    return calls, refuse
