"""How ``spec/tables.json`` was made. The file is normative; this script only explains it.

``python -m benchmarks.derive_tables --check`` recomputes every table and reports the largest
difference from the frozen one; it never writes over an existing file.
"""

from __future__ import annotations

import argparse
import json
import math
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
from scipy import optimize
from scipy.special import ndtr

from kakeya_ref.lattice import nearest_e8, nearest_even

TABLES = Path(__file__).resolve().parent.parent / "spec" / "tables.json"
getcontext().prec = 50


def nearest_f32(value: Decimal) -> np.float32:
    """Correctly rounded fp32 of a decimal (float64 in between could round twice)."""
    guess = np.float32(float(value))
    around = [np.nextafter(guess, np.float32(s * np.inf)) for s in (-1, 1)] + [guess]
    return min(around, key=lambda f: abs(Decimal(float(f)) - value))


def gain() -> dict[str, np.ndarray]:
    """Grid ``2^((b-128)/8)`` and midpoints ``2^((b-128.5)/8)``."""

    def power(eighths: Decimal) -> np.float32:
        return nearest_f32(Decimal(2) ** (eighths / 8))

    grid = [np.float32(0)] + [power(Decimal(b - 128)) for b in range(1, 256)]
    mids = [np.float32(0)] + [power(Decimal(b) - Decimal("128.5")) for b in range(1, 257)]
    return {"grid": np.array(grid), "midpoints": np.array(mids)}


def _pdf(t: np.ndarray) -> np.ndarray:
    return np.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def lloyd_max(b: int) -> tuple[np.ndarray, np.ndarray]:
    """Fixed point of Lloyd's two conditions for N(0, 1), by Newton on the positive half."""
    n = 2 ** (b - 1)

    def cells(c: np.ndarray) -> np.ndarray:
        t = np.concatenate([[0.0], (c[1:] + c[:-1]) / 2, [np.inf]])
        # Upper tails keep full relative precision in the outermost cells.
        return (_pdf(t[:-1]) - _pdf(t[1:])) / (ndtr(-t[:-1]) - ndtr(-t[1:]))

    # Companding start: quantiles of the density proportional to pdf^(1/3), i.e. N(0, 3).
    u = (np.arange(n) + 0.5) / (2 * n)
    start = math.sqrt(3) * np.array(
        [optimize.brentq(lambda z, p=p: ndtr(z) - 0.5 - p, 0, 20) for p in u]
    )
    c = optimize.root(lambda v: cells(v) - v, start, method="hybr", tol=1e-15).x
    for _ in range(200):
        c = cells(c)
    centroids = np.concatenate([-c[::-1], c])
    return centroids, (centroids[1:] + centroids[:-1]) / 2


def lattice_step(codec_id: str, q: int, blocks: np.ndarray) -> float:
    """Step per unit rms with the least mean squared error on N(0, 1), to four digits."""
    n = blocks.shape[1]

    def error(step: float) -> float:
        z = (blocks / np.float32(step)).astype(np.float32)
        if n == 8:
            half, c = nearest_e8(z, q)
            point = c + 0.5 * half[:, None]
        else:
            point = nearest_even(z, -q, q)[0]
        return float(np.mean((point * step - blocks) ** 2))

    # The cube's edge sits near 2.0 sigma at q = 1 and moves out slowly with q.
    guess = (1.6 + 0.75 * math.log2(q + 1)) / q
    found = optimize.minimize_scalar(
        error, bounds=(guess * 0.4, guess * 2.0), method="bounded", options={"xatol": guess * 1e-3}
    )
    return float(f"{found.x:.4g}")


def lattice_steps(codec_id: str, count: int) -> list[np.ndarray]:
    """Steps for q = 1..110, smoothed where sampling noise exceeds the trend."""
    n = {"d4": 4, "e8": 8}[codec_id]
    blocks = np.random.default_rng(2026).standard_normal((count, n)).astype(np.float32)
    qs = np.array([*range(1, 13), 14, 16, 19, 22, 26, 32, 38, 44, 52, 64, 76, 92, 110])
    edge = np.array([lattice_step(codec_id, int(q), blocks) * q for q in qs])
    # Between the measured q the edge q * step is a smooth function of log q.
    every = np.interp(np.log(np.arange(1, 111)), np.log(qs), edge) / np.arange(1, 111)
    out = []
    for step in every:
        kappa = np.float32(f"{step:.4g}")
        out.append(np.array([kappa, nearest_f32(1 / Decimal(float(kappa)))], dtype=np.float32))
    return out


def derive(count: int) -> dict[str, object]:
    """All tables as little-endian fp32 hex."""

    def hexed(a: np.ndarray) -> str:
        return np.asarray(a).astype("<f4").tobytes().hex()

    return {
        "format": "0.1",
        "encoding": "little-endian IEEE 754 binary32, hexadecimal",
        "gain": {k: hexed(v) for k, v in gain().items()},
        "lloyd_max": {
            str(b): dict(zip(("centroids", "thresholds"), map(hexed, lloyd_max(b)), strict=True))
            for b in range(1, 9)
        },
        "lattice_step": {c: [hexed(s) for s in lattice_steps(c, count)] for c in ("d4", "e8")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, never write")
    parser.add_argument("--blocks", type=int, default=60_000, help="Gaussian blocks per step fit")
    args = parser.parse_args()
    new = derive(args.blocks)
    if not args.check:
        if TABLES.exists():
            raise SystemExit(f"{TABLES.name} is frozen; use --check")
        TABLES.write_text(json.dumps(new, indent=1) + "\n")
        return
    old = json.loads(TABLES.read_text())
    same = {k: old[k] == new[k] for k in ("gain", "lloyd_max", "lattice_step")}
    print(json.dumps(same))
    raise SystemExit(0 if all(same.values()) else 1)


if __name__ == "__main__":
    main()
