"""What the damage report measures: texts, tables and settings, most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kakeya_fast.env import cache_dir
from kakeya_fast.hf.calibrate import Statistics, added
from kakeya_fast.quality.calibration import calibrated, statistics_of
from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.texts import Text, load_text

# Of every calibration text: that many tokens, in passages of so many.
TOKENS, CTX = 16384, 2048
# Longest context the tables are made for.
CONTEXT = 8192
MIXED, REFERENCE = ("workshop-a", "manual"), ("manual",)
# Tables by name: texts, and what differs from frames of 32.
TABLES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "f32": (MIXED, {}),
    "f1": (MIXED, {"frame": 1}),
    "f128": (MIXED, {"frame": 128}),
    # One frame for all positions: statistics of the first 2048 of them.
    "absolute": (MIXED, {"frame": 1 << 20, "span": 2048}),
    "reference": (REFERENCE, {}),
}
FRAMES = {"f1": ",f=1", "f128": ",f=128", "absolute": ",f=1048576"}
# (keys, values, tables)
Row = tuple[str, str, str]
MAIN: tuple[Row, ...] = (
    ("scalar:b=2", "scalar:b=2", ""),
    ("scalar:b=3", "scalar:b=3", ""),
    ("scalar:b=4", "scalar:b=4", ""),
    ("query:b=2", "trellis:b=2", "f32"),
    ("query:b=2.5", "trellis:b=2", "f32"),
    ("query:b=3", "trellis:b=3", "f32"),
    ("scalar:b=2", "raw", ""),
    ("scalar:b=3", "raw", ""),
    ("scalar:b=4", "raw", ""),
    ("query:b=2", "raw", "f32"),
    ("query:b=2.5", "raw", "f32"),
    ("query:b=3", "raw", "f32"),
    ("query:b=2,f=1", "raw", "f1"),
    ("query:b=2,f=128", "raw", "f128"),
    ("query:b=2", "raw", "reference"),
    ("query:b=3,f=1", "raw", "f1"),
    ("query:b=3", "raw", "reference"),
)
LONG: tuple[Row, ...] = (
    ("query:b=2", "raw", "f32"),
    ("query:b=2,f=1048576", "raw", "absolute"),
    ("query:b=3", "raw", "f32"),
    ("scalar:b=3", "raw", ""),
    ("query:b=3,f=1048576", "raw", "absolute"),
)


def half(name: str) -> Text:
    """``workshop-a``: the first half of a text; ``-b`` the second; others whole."""
    base, cut_off, which = name.rpartition("-")
    if not cut_off:
        return load_text(name)
    whole = load_text(base)
    cut = whole.text.index("\n\n", len(whole.text) // 2) + 2
    part = whole.text[:cut] if which == "a" else whole.text[cut:]
    return Text(name, f"{whole.description}, {'first' if which == 'a' else 'second'} half", part)


def make_tables(loaded: Loaded, names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Table files of a model by name; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: folder / f"{loaded.name}-{name}.safetensors" for name in names}
    moments: dict[str, Statistics] = {}
    for name, path in found.items():
        if path.exists():
            continue
        texts, options = TABLES[name]
        for text in texts:
            if text not in moments:
                moments[text] = statistics_of(loaded, [half(text)], TOKENS, CTX)
        options = {"frame": 32} | options
        made = calibrated(
            loaded, [half(text) for text in texts], tokens=TOKENS, ctx=CTX, context=CONTEXT,
            found=added([moments[text] for text in texts]), **options,
        )  # fmt: skip
        replace(made, made=made.made | {"options": options}).save(path)
    return found


def table_folder() -> Path:
    """Where the tables of the measurement are kept."""
    return cache_dir() / "tables"
