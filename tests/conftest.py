"""One tiny model folder for all tests of a run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "quality"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny random Llama and its tokenizer."""
    from tinymodel import make_tiny

    return make_tiny(tmp_path_factory.mktemp("models") / "tiny-llama")
