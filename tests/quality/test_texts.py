"""Passages are disjoint, text does not repeat itself, and unknown names are refused."""

import struct
import types
import zipfile
from itertools import pairwise

import pytest

from kakeya_fast.quality import fetch as fetching
from kakeya_fast.quality import texts
from kakeya_fast.quality.texts import load_text, passages, unique_paragraphs
from kakeya_ref.errors import Malformed, UsageError


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


def catalogue(messages):
    """A compiled gettext catalogue (little-endian): header, two tables of (size, place), words."""
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **messages}.items())
    head, table, words = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 0, 0, 0), b"", b""
    start = 28 + 16 * len(pairs)
    for column in range(2):
        for pair in pairs:
            word = pair[column].encode()
            table += struct.pack("<2I", len(word), start + len(words))
            words += word + b"\0"
    second = struct.pack("<I", 28 + 8 * len(pairs))
    return head[:16] + second + head[20:] + table + words


def test_a_handbook_is_what_its_catalogue_says_at_length(tmp_path, monkeypatch):
    long = "ação " * 30
    said = {"b": long + "2", "a": long + "1", "c": "curta", "d" * 130: "d" * 130, "e": long + "2"}
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as wheel:
        wheel.writestr("mercurial/locale/pt_BR/LC_MESSAGES/hg.mo", catalogue(said))
    monkeypatch.setattr(texts, "fetch", lambda package: tmp_path / "wheel.whl")
    text = load_text("portuguese")
    assert text.text == f"{long}1\n\n{long}2\n"
    assert "Portuguese" in text.description


def test_options_of_a_package_reach_pip(tmp_path, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command)
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(fetching.subprocess, "run", run)
    monkeypatch.setattr(fetching, "cache_dir", lambda: tmp_path)
    with pytest.raises(Malformed, match=r"model\.fetch\.sha256"):
        fetching.fetch(texts.HANDBOOK)
    assert asked[0][-1] == texts.HANDBOOK.requirement
    assert asked[0][-7:-1] == list(texts.HANDBOOK.options)
