"""Pages built field by field, straight from the layout table: a second writer of the bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.types import PageLayout

U8 = NDArray[np.uint8]
Fields = Mapping[str, NDArray[np.uint64]]


def field_names(layout: PageLayout) -> dict[str, tuple[int, int]]:
    """Name of every field -> (fields per page, bits per field)."""
    out: dict[str, tuple[int, int]] = {}
    for plane in layout.planes:
        name = plane.name.rstrip("0123456789")
        out[name] = (plane.rows * plane.row, plane.shift + plane.width)
    return out


def build(layout: PageLayout, fields: Fields, padding: int = 0) -> U8:
    """Pages holding these fields.

    Rule: page.plane.aligned, page.plane.split, page.plane.strided, page.byte.little-endian

    Parameters
    ----------
    fields : name -> (N, fields per page) uint64
    padding : int
        Byte to put where the encoder would write zero.

    Returns
    -------
    (N, layout.nbytes) uint8
    """
    n = len(next(iter(fields.values())))
    out = np.full((n, layout.nbytes), padding, dtype=np.uint8)
    for plane in layout.planes:
        values = fields[plane.name.rstrip("0123456789")].reshape(n, plane.rows, plane.row)
        part = (values >> np.uint64(plane.shift)) & np.uint64(2**plane.width - 1)
        target = np.zeros((n, plane.rows, plane.row * plane.width // 8), dtype=np.uint8)
        if plane.width >= 8:
            size = plane.width // 8
            for k in range(size):
                target[:, :, k::size] = (part >> np.uint64(8 * k)) & np.uint64(255)
        else:
            stride = plane.row * plane.width // 8
            for i in range(plane.row):
                bit = (i // stride) * plane.width
                target[:, :, i % stride] |= (part[:, :, i] << np.uint64(bit)).astype(np.uint8)
        out[:, plane.offset : plane.offset + plane.nbytes] = target.reshape(n, plane.nbytes)
    return out


def padding_mask(layout: PageLayout) -> NDArray[np.bool_]:
    """True for the bytes of a page that no plane uses."""
    mask = np.ones(layout.nbytes, dtype=bool)
    for plane in layout.planes:
        mask[plane.offset : plane.offset + plane.nbytes] = False
    return mask


def valid_count(layout: PageLayout) -> dict[str, int]:
    """How many values of each field mean something: the lattice index has fewer than its bits."""
    from kakeya_ref.layout import LATTICE_BLOCK, lattice_count

    counts = {name: 2**bits for name, (_, bits) in field_names(layout).items()}
    if layout.codec.id in LATTICE_BLOCK:
        counts["index"] = lattice_count(layout.codec)
    return counts


def random_fields(
    layout: PageLayout, n: int, rng: np.random.Generator
) -> dict[str, NDArray[np.uint64]]:
    """Fields of pages that every decoder accepts, each value as likely as any other."""
    counts = valid_count(layout)
    fields = {}
    for name, (per_page, _) in field_names(layout).items():
        values = rng.integers(0, counts[name], (n, per_page), dtype=np.uint64)
        fields[name] = accepted(layout, name, values)
    return fields


def accepted(layout: PageLayout, name: str, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same values with the few patterns that a codec forbids moved to their neighbour."""
    one = np.uint64(1)
    if name == "step":
        values = values & np.uint64(0x7FFF)
    if name in ("lo", "step") or (name == "values" and layout.codec["dtype"] == "f16"):
        return np.where((values & np.uint64(0x7C00)) == 0x7C00, values & ~np.uint64(0x400), values)
    if name == "values":
        shift = np.uint64(23 if layout.codec["dtype"] == "f32" else 7)
        full = ((values >> shift) & np.uint64(255)) == 255
        return np.where(full, values ^ (one << shift), values)
    if name == "codes" and layout.codec.id == "fp8":
        return np.where((values & np.uint64(0x7F)) == 0x7F, values ^ one, values)
    return values


def forbidden(layout: PageLayout) -> list[tuple[str, int, str]]:
    """(field, value, rule) of the values that no encoder writes."""
    codec = layout.codec
    if codec.id == "raw":
        top = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}[str(codec["dtype"])]
        sign = {"f32": 1 << 31}.get(str(codec["dtype"]), 1 << 15)
        return [
            ("values", v, "raw.code.finite") for v in (top, top | sign, top | 1, top | sign | 1)
        ]
    if codec.id == "fp8":
        return [("codes", 0x7F, "fp8.code.nan"), ("codes", 0xFF, "fp8.code.nan")]
    if codec.id == "int":
        endless = [("lo", v, "int.params.finite") for v in (0x7C00, 0xFC00, 0x7E00)]
        return endless + [
            ("step", v, "int.params.finite") for v in (0x7C00, 0x7E00, 0xBC00, 0x8000)
        ]
    counts, widths = valid_count(layout), field_names(layout)
    rule = f"{codec.id}.index.range"
    if "index" not in counts or counts["index"] == 2 ** widths["index"][1]:
        return []
    return [("index", v, rule) for v in (counts["index"], 2 ** widths["index"][1] - 1)]
