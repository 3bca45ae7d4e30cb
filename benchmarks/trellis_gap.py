"""How far trellis codes stay from the bound: ``python -m benchmarks.trellis_gap``.

Mean squared error on N(0, 1) in dB above ``2^(-2b)``, with 95 % intervals over vectors, for
* the frozen tables, by bits and by length of the walk, and Lloyd-Max beside them;
* the same construction with windows of 8, 9, 10 and 12 bits, tables trained here;
* windows that take in whole codes instead of one bit (the usual bitshift trellis);
* one gain byte more or less where that lowers a vector's error (two more searches a vector).

Seeds of training and of evaluation differ. Writes ``results/trellis-gap.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.trellis_study import Walker, bitshift, labelled, train
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.tables import lloyd_max, trellis_values

RESULTS = Path(__file__).parent / "results"
TRAIN, EVALUATE = 2026, 777
# Columns of longer windows: the frozen ones, with new ones between the last two.
COLUMNS = {
    8: (8, 13, 6, 12, 4, 1, 13, 8),
    9: (8, 13, 6, 12, 4, 1, 13, 7, 8),
    10: (8, 13, 6, 12, 4, 1, 13, 7, 10, 8),
    12: (8, 13, 6, 12, 4, 1, 13, 7, 10, 3, 14, 8),
}


def gap(errors: NDArray[np.float64], bits: int) -> dict[str, Any]:
    """Gap of vectors' mean squared errors, its interval, and how many they were."""
    half = 1.96 * errors.std(ddof=1) / math.sqrt(len(errors))
    low, mean, high = (errors.mean() + h for h in (-half, 0.0, half))
    db = [round(10 * math.log10(e * 4**bits), 3) for e in (mean, low, high)]
    return {"gap_db": db[0], "low": db[1], "high": db[2], "vectors": len(errors)}


def draws(n: int, length: int, seed: int = EVALUATE) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, length)).astype(np.float32)


def squared(y: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    return ((y - found).astype(np.float64) ** 2).mean(axis=1)


def frozen(n: int) -> list[dict[str, Any]]:
    rows = []
    for bits in range(1, 9):
        walker = labelled(COLUMNS[8], trellis_values(bits))
        for length in (64, 128, 256):
            y = draws(n, length)
            rows.append({"bits": bits, "length": length} | gap(squared(y, walker.nearest(y)), bits))
        centroids, thresholds = lloyd_max(bits)
        y = draws(n, 128)
        off = squared(y, centroids[np.searchsorted(thresholds, y)])
        rows.append({"bits": bits, "length": "Lloyd-Max"} | gap(off, bits))
    return rows


def windows(n: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for window, columns in COLUMNS.items():
        for bits in (1, 2, 3):
            walker = train(labelled(columns, trellis_values(bits)), rounds, TRAIN)
            y = draws(n, 128)
            rows.append({"window": window, "bits": bits} | gap(squared(y, walker.nearest(y)), bits))
    for bits in (2, 3):
        walker = train(bitshift(8, bits, TRAIN), 4 * rounds, TRAIN)
        y = draws(n, 128)
        row = {"window": "8, whole codes", "bits": bits}
        rows.append(row | gap(squared(y, walker.nearest(y)), bits))
    return rows


def gains(n: int) -> list[dict[str, Any]]:
    """The codec's own gain byte against the best of three, on vectors of any size."""
    rows = []
    for bits in (1, 2, 3, 4):
        walker: Walker = labelled(COLUMNS[8], trellis_values(bits))
        y = draws(n, 128) * np.exp2(np.random.default_rng(5).random((n, 1))).astype(np.float32)
        size = (y.astype(np.float64) ** 2).mean(axis=1)
        byte, tried = gain_byte(rms(y)).astype(np.int64), []
        for near in (0, -1, 1):
            moved = (byte + near).astype(np.uint8)
            z = walker.nearest(y * reciprocal_of(moved)[:, None])
            tried.append(squared(y, z * gain_of(moved)[:, None]) / size)
        best = np.minimum.reduce(tried)
        for name, errors in (("nearest byte", tried[0]), ("best of three", best)):
            rows.append({"bits": bits, "gain": name} | gap(errors, bits))
    return rows


def markdown(data: dict[str, Any]) -> str:
    def table(title: str, rows: list[dict[str, Any]], names: list[str]) -> list[str]:
        lines = ["", f"## {title}", "", "| " + " | ".join([*names, "dB", "95 %", "vectors"]) + " |"]
        lines.append("| " + " | ".join(["---"] * (len(names) + 3)) + " |")
        for r in rows:
            told = [str(r[name]) for name in names]
            told += [f"{r['gap_db']:.2f}", f"{r['low']:.2f} … {r['high']:.2f}", str(r["vectors"])]
            lines.append("| " + " | ".join(told) + " |")
        return lines

    lines = ["# Trellis codes and the bound", "", (__doc__ or "").split("\n\n")[1]]
    lines += table("The tables of the format", data["frozen"], ["bits", "length"])
    lines += table("Windows, tables trained alike", data["windows"], ["window", "bits"])
    lines += table("The gain byte", data["gains"], ["bits", "gain"])
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    n, rounds = args.vectors, args.rounds
    data = {"frozen": frozen(n), "windows": windows(n, rounds), "gains": gains(n)}
    (RESULTS / "trellis-gap.json").write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    (RESULTS / "trellis-gap.md").write_text(markdown(data), "utf-8")


if __name__ == "__main__":
    main()
