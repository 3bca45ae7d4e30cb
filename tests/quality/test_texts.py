"""Passages are disjoint, text does not repeat itself, and unknown names are refused."""

from itertools import pairwise

import pytest

from kakeya_fast.quality.texts import load_text, passages, unique_paragraphs
from kakeya_ref.errors import UsageError


@pytest.mark.parametrize(("length", "ctx", "count"), [(100, 10, 10), (101, 10, 3), (57, 19, 3)])
def test_passages_are_disjoint_and_spread(length, ctx, count):
    found = passages(list(range(length)), [], ctx, count)
    used = [i for p in found for i in p.ids]
    assert len(found) == count
    assert len(used) == len(set(used)) == ctx * count
    assert all(p.ids[0] == p.start for p in found)
    gaps = {b.start - a.start for a, b in pairwise(found)}
    assert len(gaps) <= 1


def test_prefix_stands_first_and_counts():
    (found,) = passages(list(range(50)), [99], 10, 1)
    assert found.ids[0] == 99
    assert len(found.ids) == 10


@pytest.mark.parametrize(("ctx", "count"), [(11, 10), (10, 0), (1, 1)])
def test_too_little_text_is_refused(ctx, count):
    with pytest.raises(UsageError, match=r"text\.passages\.disjoint"):
        passages(list(range(100)), [], ctx, count)


def test_repeated_paragraphs_are_kept_once():
    assert unique_paragraphs("a b\n\nc\n\na  b\n\n\n\nd") == "a b\n\nc\n\nd\n"


def test_manual_is_long_and_does_not_repeat():
    text = load_text("manual")
    paragraphs = [" ".join(p.split()) for p in text.text.split("\n\n")]
    assert len(paragraphs) == len(set(paragraphs))
    assert len(text.text) > 250_000
    assert len(text.sha256) == 64


def test_own_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("a\n\na\n", "utf-8")
    assert load_text(str(path)).text == "a\n\na\n"


def test_unknown_text_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"text\.name\.known"):
        load_text(str(tmp_path / "none.txt"))
