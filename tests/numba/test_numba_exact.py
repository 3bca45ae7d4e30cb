"""The numba kernels against the reference where blocks, ties and sizes are awkward."""

from __future__ import annotations

import numpy as np
import pytest

from kakeya_fast.numba_cpu import Backend
from kakeya_fast.numba_cpu.enumeration import rank, unrank
from kakeya_fast.numba_cpu.scalar import cell_of, plan
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Malformed
from kakeya_ref.layout import lattice_count, page_layout
from kakeya_ref.tables import lloyd_max

NUMBA, REFERENCE = Backend(), ReferenceBackend()
# Head dims with one, two and three Hadamard blocks; pages of 16, 32 and 48 tokens.
LAYOUTS = [
    ("raw:dtype=bf16", 24, 48),
    ("fp8", 80, 16),
    ("int:b=3,g=24", 80, 48),
    ("int:b=5,g=24,axis=channel", 24, 64),
    ("scalar:b=7", 112, 16),
    ("scalar:b=1,seed=0", 8, 32),
    ("trellis:b=1,seed=0", 8, 32),
    ("trellis:b=3", 1016, 16),
    ("trellis:b=8,seed=7", 24, 48),
    ("trellis:b=1,gain=unbiased", 8, 32),
    ("trellis:gain=unbiased", 96, 16),
    ("d4:q=110", 24, 16),
    ("e8:q=7", 80, 48),
    ("e8:q=110", 576, 16),
]


def awkward(pages: int, tokens: int, d: int) -> np.ndarray:
    """Vectors of very different sizes: zeros of both signs, subnormals, ties, large values."""
    rng = np.random.default_rng(d)
    x = rng.standard_normal((pages, tokens, d), dtype=np.float32)
    x *= np.exp2(rng.integers(-24, 12, (pages, tokens, 1))).astype(np.float32)
    x[0, 0], x[0, 1], x[0, 2] = 0.0, -0.0, 1e-42
    x[0, 3] = rng.integers(-4, 5, d) / 2
    x[1, 5] = rng.choice([-3e4, 3e4], d)
    return x


@pytest.mark.parametrize(("codec", "d", "tokens"), LAYOUTS)
def test_equals_the_reference(codec: str, d: int, tokens: int) -> None:
    layout = page_layout(codec, d, tokens)
    x = awkward(3, tokens, d)
    body = REFERENCE.encode(x, layout)
    np.testing.assert_array_equal(NUMBA.encode(x, layout), body)
    for basis in ("vectors", "coefficients"):
        want = REFERENCE.decode(body, layout, basis=basis)
        got = NUMBA.decode(body, layout, basis=basis)
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize("b", range(1, 9))
def test_cells_count_thresholds_exactly(b: int) -> None:
    """Every threshold, its neighbours, and numbers far outside the table."""
    _, thresholds = lloyd_max(b)
    p = plan(page_layout(f"scalar:b={b}", 64, 16))
    up, down = np.float32(np.inf), np.float32(-np.inf)
    near = (np.nextafter(thresholds, down), thresholds, np.nextafter(thresholds, up))
    far = np.array([-1e30, -20, -0.0, 0.0, 1e-42, 20, 1e30], dtype=np.float32)
    z = np.concatenate([*near, far, np.linspace(-6, 6, 10001, dtype=np.float32)])
    cell = cell_of(z, p.per_unit, p.middle, p.last)
    got = p.below[cell] + (z > p.threshold[cell])
    np.testing.assert_array_equal(got, np.searchsorted(thresholds, z, side="left"))


@pytest.mark.parametrize("q", [1, 2, 10, 37, 110])
@pytest.mark.parametrize("codec", ["d4", "e8"])
def test_unrank_against_whole_numbers(codec: str, q: int) -> None:
    """Digits of the ends of both cosets and of random indices, by Python's integers."""
    n, count = (4 if codec == "d4" else 8), lattice_count(page_layout(f"{codec}:q={q}", 8).codec)
    first_half = ((2 * q + 1) ** n + 1) // 2
    ends = [i for i in (0, 1, first_half - 1, first_half, first_half + 1, count - 1) if i < count]
    index = np.append(ends, np.random.default_rng(q).integers(0, count, 500)).astype(np.int64)
    m = len(index)
    c = np.empty((n, m), np.float32)
    unrank(index, m, q, first_half, np.empty((n // 2, m), np.int64), c)
    for v in range(m):
        assert [int(i) for i in c[:, v]] == digits(int(index[v]), q, n, first_half)
    back = np.empty(m, np.int64)
    rank(c, m, (index >= first_half).astype(np.int64), q, first_half, back)
    np.testing.assert_array_equal(back, index)


def digits(index: int, q: int, n: int, first_half: int) -> list[int]:
    half = index >= first_half
    base, value = (2 * q, 2 * (index - first_half)) if half else (2 * q + 1, 2 * index)
    found = []
    for _ in range(n):
        value, digit = divmod(value, base)
        found.append(digit)
    found.reverse()
    if half:
        found[-1] += sum(found) % 2
    return [digit - q for digit in found]


@pytest.mark.parametrize(
    ("codec", "plane", "byte", "rule"),
    [
        ("raw", "values", 0xFF, "raw.code.finite"),
        ("fp8", "codes8", 0x7F, "fp8.code.nan"),
        ("int", "lo", 0x7C, "int.params.finite"),
        ("int", "step", 0x80, "int.params.finite"),
        ("d4", "index16", 0xFF, "d4.index.range"),
        ("e8", "index32", 0xFF, "e8.index.range"),
    ],
)
def test_malformed_pages_are_named(codec: str, plane: str, byte: int, rule: str) -> None:
    layout = page_layout(codec, 64, 32)
    body = np.zeros((4, layout.nbytes), dtype=np.uint8)
    at = layout.plane(plane)
    body[2, at.offset : at.offset + at.nbytes] = byte
    if codec in ("d4", "e8"):  # the remaining bits of an index lie in the planes behind
        body[2, at.offset + at.nbytes :] = 0xFF
    with pytest.raises(Malformed, match=rf"\[{rule}\] page 2 "):
        NUMBA.decode(body, layout)
