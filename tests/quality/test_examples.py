"""The examples in the docstrings of the quality modules run."""

import doctest
import importlib

import pytest

MODULES = ("depth", "layers", "setting", "stats", "table", "texts")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"kakeya_fast.quality.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
