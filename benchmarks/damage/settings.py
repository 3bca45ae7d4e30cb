"""What the damage report measures: texts, tables and settings, most important first."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.damage.moments import moments, readers_of
from benchmarks.damage.trials import Known
from kakeya_fast.env import cache_dir
from kakeya_fast.hf.calibrate import Statistics, added
from kakeya_fast.quality.calibration import calibrated, passages_of, statistics_of
from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.texts import Text, load_text

# Of every calibration text: that many tokens, in passages of so many.
TOKENS, CTX = 16384, 2048
# Longest context the tables are made for.
CONTEXT = 8192
MIXED, REFERENCE = ("workshop-a", "manual"), ("manual",)
# Every key and query counts alike, whatever its errors would do.
ALIKE: dict[str, Any] = {"alike": 1.0}
# Tables by name: texts, and what differs from frames of 32.
TABLES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    # As `kakeya calibrate` makes them: keys and queries count by what their errors do.
    "moved": (MIXED, {}),
    "moved1": (MIXED, {"frame": 1}),
    "moved128": (MIXED, {"frame": 128}),
    "fifth": (MIXED, {"alike": 0.2}),
    "moved-prose": (("workshop-a",), {}),
    "moved-code": (("code-a",), {}),
    "moved-portuguese": (("portuguese-a",), {}),
    "f32": (MIXED, ALIKE),
    "f1": (MIXED, ALIKE | {"frame": 1}),
    "f128": (MIXED, ALIKE | {"frame": 128}),
    "f512": (MIXED, ALIKE | {"frame": 512}),
    "f2048": (MIXED, ALIKE | {"frame": 2048}),
    # One frame for all positions: statistics of the first 2048 of them.
    "absolute": (MIXED, ALIKE | {"frame": 1 << 20, "span": 2048}),
    "reference": (REFERENCE, ALIKE),
    "prose": (("workshop-a",), ALIKE),
    "code": (("code-a",), ALIKE),
    "portuguese": (("portuguese-a",), ALIKE),
    "russian": (("russian-a",), ALIKE),
    # Where queries stand, and what bounds directions that no query took.
    "near": (MIXED, ALIKE | {"far": 0.0}),
    "far": (MIXED, ALIKE | {"far": 1.0}),
    "close": (MIXED, ALIKE | {"near": 32}),
    "ridge3": (MIXED, ALIKE | {"ridge": 1e-3}),
    "ridge1": (MIXED, ALIKE | {"ridge": 1e-1}),
    # What two cores learn in minutes.
    "short": (("manual-a",), ALIKE | {"tokens": 8192}),
}
# (keys, values, tables)
Row = tuple[str, str, str]
BOTH: tuple[Row, ...] = (
    ("scalar:b=2", "scalar:b=2", ""),
    ("scalar:b=3", "scalar:b=3", ""),
    ("scalar:b=4", "scalar:b=4", ""),
    ("scalar:b=5", "scalar:b=5", ""),
    ("scalar:b=6", "scalar:b=6", ""),
    # KIVI's layout, which needs no calibration.
    ("int:b=2,g=32,axis=channel", "int:b=2,g=32", ""),
    ("query:b=2", "trellis:b=2", "f32"),
    ("query:b=2.5", "trellis:b=2", "f32"),
    ("query:b=3", "trellis:b=3", "f32"),
    ("query:b=4", "trellis:b=4", "f32"),
    ("query:b=2", "trellis:b=2", "moved"),
    ("query:b=2.5", "trellis:b=2", "moved"),
    ("query:b=3", "trellis:b=3", "moved"),
    ("query:b=4", "trellis:b=4", "moved"),
    ("query:b=2", "trellis:b=1,gain=unbiased", "moved"),
    ("query:b=2", "trellis:b=2,gain=unbiased", "moved"),
    ("query:b=2.5", "trellis:b=2,gain=unbiased", "moved"),
    ("query:b=3", "trellis:b=2,gain=unbiased", "moved"),
    ("query:b=3", "trellis:b=3,gain=unbiased", "moved"),
    ("query:b=4", "trellis:b=4,gain=unbiased", "moved"),
)
KEYS: tuple[Row, ...] = (
    ("scalar:b=2", "raw", ""),
    ("scalar:b=3", "raw", ""),
    ("scalar:b=4", "raw", ""),
    ("query:b=2", "raw", "f32"),
    ("query:b=2.5", "raw", "f32"),
    ("query:b=3", "raw", "f32"),
    ("query:b=2", "raw", "moved"),
    ("query:b=3", "raw", "moved"),
    ("query:b=2,f=1", "raw", "moved1"),
    ("query:b=3,f=1", "raw", "moved1"),
    ("query:b=2,f=128", "raw", "moved128"),
    ("query:b=2,f=1", "raw", "f1"),
    ("query:b=2,f=128", "raw", "f128"),
    ("query:b=2", "raw", "reference"),
    ("query:b=3", "raw", "reference"),
    ("query:b=3,f=1", "raw", "f1"),
    ("query:b=2,f=1048576", "raw", "absolute"),
)
VALUES: tuple[Row, ...] = (
    ("raw", "scalar:b=2", ""),
    ("raw", "trellis:b=2", ""),
    ("raw", "trellis:b=2,gain=unbiased", ""),
)
# Tables by frames and by one frame for all positions, at long contexts.
FAR: tuple[Row, ...] = (
    ("query:b=2", "raw", "moved"),
    ("query:b=3", "raw", "moved"),
    ("query:b=2", "raw", "f32"),
    ("query:b=2,f=1048576", "raw", "absolute"),
    ("query:b=3", "raw", "f32"),
    ("query:b=3,f=1048576", "raw", "absolute"),
)
LONG: tuple[Row, ...] = (
    *FAR,
    ("scalar:b=2", "raw", ""),
    ("scalar:b=3", "raw", ""),
    ("query:b=2", "raw", "near"),
    ("query:b=2", "raw", "far"),
)
# On books, which have room for more passages.
BOOKS: tuple[Row, ...] = (
    *FAR,
    ("query:b=2,f=512", "raw", "f512"),
    ("query:b=2,f=2048", "raw", "f2048"),
)
# Choices, on a text of neither the calibration nor the results.
LEARNED: tuple[Row, ...] = (
    *((f"query:b={b}", "raw", t) for b in (2, 3) for t in ("f32", "ridge1", "moved", "fifth")),
    ("raw", "trellis:b=2", ""),
    ("raw", "trial:looked=yes,metric=no", ""),
    ("raw", "trellis:b=2,gain=unbiased", ""),
    ("raw", "trellis:b=1", ""),
    ("raw", "trellis:b=1,gain=unbiased", ""),
    ("raw", "trellis:b=3", ""),
    ("raw", "trellis:b=3,gain=unbiased", ""),
    ("raw", "scalar:b=2", ""),
    ("raw", "even:scalar:b=2", ""),
    ("trellis:b=2", "raw", ""),
    ("trellis:b=2,gain=unbiased", "raw", ""),
    ("trial:looked=yes,looking=yes", "raw", ""),
    ("trial:looked=yes,looking=yes,even=yes", "raw", ""),
    ("trial:b=3,looked=yes,looking=yes", "raw", ""),
    ("trial:b=3,looked=yes,looking=yes,even=yes", "raw", ""),
)


def foreign(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    """Tables of a text's own kind and of another, with the codec that needs none."""
    rows: list[Row] = []
    for b in (2, 3):
        rows.append((f"scalar:b={b}", "raw", ""))
        rows += [(f"query:b={b}", "raw", tables) for pair in pairs for tables in pair]
    return tuple(rows)


# Own tables and foreign ones, by text.
KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "code-b": (("code", "prose"), ("moved-code", "moved-prose")),
    "workshop-b": (("prose", "code"), ("moved-prose", "moved-code")),
    # Against tables from English alone.
    "portuguese-b": (("portuguese", "f32"), ("moved-portuguese", "moved")),
    "russian-b": (("russian", "f32"),),
}
OPEN: tuple[Row, ...] = (
    ("query:b=2", "raw", "f32"),
    ("query:b=2", "raw", "near"),
    ("query:b=2", "raw", "far"),
    ("query:b=2", "raw", "close"),
    ("query:b=2", "raw", "ridge3"),
    ("query:b=2", "raw", "ridge1"),
    ("query:b=2,f=512", "raw", "f512"),
    *((f"trial:{what}", "raw", "") for what in (
        "", "band=16", "band=32", "gain=0", "steps=0", "gain=4,steps=1", "quantiser=lloyd",
        "quantiser=walk", "metric=no", "turn=no", "shrink=0.01", "shrink=0.1", "adapt=32",
        "adapt=1024", "looked=yes", "looking=yes", "looked=yes,looking=yes",
    )),
    ("raw", "trellis:b=2", ""),
    *(("raw", f"trial:{what}", "") for what in (
        "metric=no", "", "shrink=1,metric=no", "looked=yes,metric=no", "looked=yes",
    )),
    # The same bits, more of them on one stream or the other.
    ("query:b=2.5", "trellis:b=2", "f32"),
    ("query:b=1.5", "trellis:b=3", "f32"),
    ("query:b=3", "trellis:b=2", "f32"),
    ("query:b=2", "trellis:b=3", "f32"),
)  # fmt: skip
SHORT: tuple[Row, ...] = (
    ("query:b=3", "trellis:b=3", "short"),
    ("query:b=2", "trellis:b=2", "short"),
    ("query:b=2.5", "trellis:b=2", "short"),
    ("query:b=3", "raw", "short"),
    ("query:b=2", "raw", "short"),
)
# Tokens of a passage, number of passages, text, rows.
PARTS: dict[str, tuple[int, int, str, tuple[Row, ...]]] = {
    "main": (1024, 16, "workshop-b", BOTH + KEYS + VALUES),
    "long": (8192, 4, "workshop-b", LONG),
    "books": (8192, 16, "books", BOOKS),
    "code": (1024, 16, "code-b", foreign(*KINDS["code-b"])),
    "prose": (1024, 16, "workshop-b", foreign(*KINDS["workshop-b"])),
    "portuguese": (1024, 16, "portuguese-b", foreign(*KINDS["portuguese-b"])),
    "russian": (1024, 16, "russian-b", foreign(*KINDS["russian-b"])),
    "learned": (1024, 16, "books", LEARNED),
    "open": (1024, 8, "workshop-b", OPEN),
    "short": (1024, 16, "workshop-b", SHORT),
}


def name_of(row: Row) -> str:
    """``keys/values@tables``."""
    return f"{row[0]}/{row[1]}" + (f"@{row[2]}" if row[2] else "")


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
        options = {"frame": 32, "tokens": TOKENS} | options
        some = [f"{text} {options['tokens']}" for text in texts]
        for text, key in zip(texts, some, strict=True):
            if key not in moments:
                moments[key] = statistics_of(loaded, [half(text)], options["tokens"], CTX)
        made = calibrated(
            loaded, [half(text) for text in texts], ctx=CTX, context=CONTEXT,
            found=added([moments[key] for key in some]), **options,
        )  # fmt: skip
        replace(made, made=made.made | {"options": options}).save(path)
    return found


def table_folder() -> Path:
    """Where the tables of the measurement are kept."""
    return cache_dir() / "tables"


def make_trials(loaded: Loaded, folder: Path) -> Known:
    """Moments of a model for codecs that are not in the format; kept beside the tables."""
    path = folder / f"{loaded.name}-trials.pickle"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        texts = [half(name) for name in MIXED]
        found = added([statistics_of(loaded, [text], TOKENS, CTX) for text in texts])
        windows = [p for t in texts for p in passages_of(loaded, [t], TOKENS, CTX)]
        attended = moments(loaded.model, found.ropes, [list(p.ids) for p in windows])
        draft = path.with_suffix(".part")
        draft.write_bytes(pickle.dumps((found, attended, readers_of(loaded.model))))
        draft.replace(path)
    known = Known(*pickle.loads(path.read_bytes()))
    known.device = loaded.model.device
    return known
