"""Small machine, small models: one thread, no gradients, no network."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _inference():
    # Tiny tensors gain nothing from a second thread, and lose much where cores are shared.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield
