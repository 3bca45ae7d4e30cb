"""What the damage report measures: texts, tables and settings, most important first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kakeya_fast.env import cache_dir
from kakeya_fast.quality.calibration import calibrated, statistics_of
from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.texts import Text, load_text

TOKENS, CTX = 16384, 2048
# Longest context the tables are made for.
CONTEXT = 8192
# Tables by name: texts, and what differs from frames of 32.
TABLES: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "f32": (("workshop-a", "manual-a"), {}),
    "f1": (("workshop-a", "manual-a"), {"frame": 1}),
    "f128": (("workshop-a", "manual-a"), {"frame": 128}),
    # One frame for all positions: statistics of the first 2048 of them.
    "absolute": (("workshop-a", "manual-a"), {"frame": 1 << 20, "span": 2048}),
    "prose": (("workshop-a",), {}),
    "reference": (("manual-a",), {}),
    "near32": (("workshop-a", "manual-a"), {"near": 32}),
    "near512": (("workshop-a", "manual-a"), {"near": 512}),
    "far0": (("workshop-a", "manual-a"), {"far": 0.0}),
    "far1": (("workshop-a", "manual-a"), {"far": 1.0}),
    "ridge3": (("workshop-a", "manual-a"), {"ridge": 1e-3}),
    "ridge1": (("workshop-a", "manual-a"), {"ridge": 1e-1}),
}
FRAMES = {"f1": ",f=1", "f128": ",f=128", "absolute": ",f=1048576"}


def half(name: str) -> Text:
    """``workshop-a``: the first half of a text; ``-b`` the second. Cut between paragraphs."""
    base, _, which = name.rpartition("-")
    whole = load_text(base)
    cut = whole.text.index("\n\n", len(whole.text) // 2) + 2
    part = whole.text[:cut] if which == "a" else whole.text[cut:]
    return Text(name, f"{whole.description}, {'first' if which == 'a' else 'second'} half", part)


def make_tables(loaded: Loaded, folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Table files of a model by name; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: folder / f"{loaded.name}-{name}.safetensors" for name in names}
    moments = {}
    for name, path in found.items():
        if path.exists():
            continue
        texts, options = TABLES[name]
        read = [half(text) for text in texts]
        if texts not in moments:
            moments[texts] = statistics_of(loaded, read, TOKENS, CTX)
        calibrated(
            loaded, read, frame=int(options.get("frame", 32)), tokens=TOKENS, ctx=CTX,
            context=CONTEXT, found=moments[texts], span=int(options.get("span", 0)),
            **{k: v for k, v in options.items() if k in ("near", "far", "ridge")},
        ).save(path)  # fmt: skip
    return found


def table_folder() -> Path:
    """Where the tables of the measurement are kept."""
    return cache_dir() / "tables"


def query(b: str, values: str, name: str, paths: dict[str, Path]) -> str:
    """Setting of keys of ``b`` bits with tables of that name."""
    return f"query:b={b}{FRAMES.get(name, '')}/{values}@tables={paths[name]}"


def main_settings(paths: dict[str, Path]) -> list[str]:
    """Both streams, keys alone, values alone, and what was asked about calibration."""
    found = ["scalar:b=2", "scalar:b=3", "scalar:b=4"]
    found += [
        query(k, f"trellis:b={v}", "f32", paths)
        for k, v in (("3", 3), ("2.5", 2), ("2", 2), ("3", 2), ("4", 4))
    ]
    found += [query("2", "trellis:b=2", "f1", paths), query("3", "trellis:b=3", "f1", paths)]
    found += [query("3", "scalar:b=3", "f32", paths)]
    found += [f"scalar:b={b}/raw" for b in (2, 3, 4)]
    found += [query(b, "raw", "f32", paths) for b in ("2", "2.5", "3", "4")]
    found += [query(b, "raw", name, paths) for name in ("f1", "f128") for b in ("2", "3")]
    found += [f"trellis:b={b}/raw" for b in (2, 3)]
    found += [f"raw/{codec}:b={b}" for codec in ("scalar", "trellis") for b in (2, 3)]
    found += [query(b, "raw", name, paths) for name in ("reference", "prose") for b in ("2", "3")]
    choices = ("absolute", "near32", "near512", "far0", "far1", "ridge3", "ridge1")
    found += [query("2", "raw", name, paths) for name in choices]
    return found


def foreign_settings(paths: dict[str, Path]) -> list[str]:
    """Keys alone on the other text: own, foreign and mixed calibration."""
    found = ["scalar:b=2/raw", "scalar:b=3/raw"]
    names = ("f32", "prose", "reference")
    return found + [query(b, "raw", name, paths) for name in names for b in ("2", "3")]


def long_settings(paths: dict[str, Path]) -> list[str]:
    """Keys alone over a long context."""
    found = ["scalar:b=2/raw", "scalar:b=3/raw"]
    names = ("f32", "absolute", "f1", "f128")
    return found + [query(b, "raw", name, paths) for name in names for b in ("2", "3")]


def greedy_settings(paths: dict[str, Path]) -> list[str]:
    """Both streams, for generation."""
    return [
        "scalar:b=3",
        query("3", "trellis:b=3", "f32", paths),
        query("2.5", "trellis:b=2", "f32", paths),
        "scalar:b=4",
    ]
