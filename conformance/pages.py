"""Pages built field by field, straight from the layout table: a second writer of the bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.layout import LATTICE_BLOCK, lattice_count, residual_kept, residual_width
from kakeya_ref.types import PageLayout

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
Fields = Mapping[str, U64]
# Numbers of the type `store`.
STORED16 = ("along", "proj", "value", "outvalue")


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


def read(layout: PageLayout, body: U8) -> dict[str, U64]:
    """Fields of pages: the inverse of :func:`build`, a second reader of the bytes.

    Rule: page.plane.aligned, page.plane.split, page.plane.strided, page.byte.little-endian
    """
    found: dict[str, U64] = {}
    for plane in layout.planes:
        raw = body[:, plane.offset : plane.offset + plane.nbytes].astype(np.uint64)
        rows = raw.reshape(len(body), plane.rows, -1)
        values = np.zeros((len(body), plane.rows, plane.row), dtype=np.uint64)
        if plane.width >= 8:
            for k in range(plane.width // 8):
                values |= rows[:, :, k :: plane.width // 8] << np.uint64(8 * k)
        else:
            stride, mask = plane.row * plane.width // 8, np.uint64(2**plane.width - 1)
            for i in range(plane.row):
                bit = np.uint64((i // stride) * plane.width)
                values[:, :, i] = rows[:, :, i % stride] >> bit & mask
        name = plane.name.rstrip("0123456789")
        part = values.reshape(len(body), -1) << np.uint64(plane.shift)
        found[name] = found[name] | part if name in found else part
    return found


def padding_mask(layout: PageLayout) -> NDArray[np.bool_]:
    """True for the bytes of a page that no plane uses."""
    mask = np.ones(layout.nbytes, dtype=bool)
    for plane in layout.planes:
        mask[plane.offset : plane.offset + plane.nbytes] = False
    return mask


def valid_count(layout: PageLayout) -> dict[str, int]:
    """How many values of each field mean something: some have fewer than their bits."""
    counts = {name: 2**bits for name, (_, bits) in field_names(layout).items()}
    if layout.codec.id in LATTICE_BLOCK:
        counts["index"] = lattice_count(layout.codec)
    if "seg" in counts:
        counts["seg"] = layout.codec.integer("k")
    for name, (_, below) in lists(layout).items():
        counts[name] = below
    return counts


def lists(layout: PageLayout) -> dict[str, tuple[int, int]]:
    """Fields that are lists of places -> (places per list, what they must be below).

    Rule: skeleton.place.ascending, turbo.out.ascending
    """
    names = field_names(layout)
    if "place" in names:
        return {"place": (residual_kept(layout.codec), layout.codec.integer("rank"))}
    if "outplace" in names:
        below = layout.tokens * residual_width(layout.codec)
        return {"outplace": (layout.codec.integer("out"), below)}
    return {}


def random_fields(layout: PageLayout, n: int, rng: np.random.Generator) -> dict[str, U64]:
    """Fields of pages that every decoder accepts, each value as likely as any other."""
    counts, listed = valid_count(layout), lists(layout)
    fields = {}
    for name, (per_page, _) in field_names(layout).items():
        if name in listed:
            each, below = listed[name]
            order = rng.random((n, per_page // each, below)).argsort(axis=-1)[..., :each]
            fields[name] = np.sort(order, axis=-1).reshape(n, per_page).astype(np.uint64)
            continue
        values = rng.integers(0, counts[name], (n, per_page), dtype=np.uint64)
        fields[name] = accepted(layout, name, values)
    return fields


def accepted(layout: PageLayout, name: str, values: U64) -> U64:
    """The same values with the few patterns that a codec forbids moved to their neighbour."""
    one = np.uint64(1)
    if name in STORED16 and layout.codec["store"] == "bf16":
        # Far-off exponents as well: products of legal numbers must not leave float32.
        far = (values & np.uint64(0x7F80)) >= np.uint64(160 << 7)
        return np.where(far, values & ~np.uint64(0x4000), values)
    if name in STORED16:
        return np.where((values & np.uint64(0x7C00)) == 0x7C00, values & ~np.uint64(0x400), values)
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
    if codec.id in ("skeleton", "turbo"):
        return _forbidden_beside_a_table(layout)
    rule = f"{codec.id}.index.range"
    if "index" not in counts or counts["index"] == 2 ** widths["index"][1]:
        return []
    return [("index", v, rule) for v in (counts["index"], 2 ** widths["index"][1] - 1)]


def _forbidden_beside_a_table(layout: PageLayout) -> list[tuple[str, int, str]]:
    codec, counts, found = layout.codec, valid_count(layout), []
    endless = (0x7C00, 0xFC00, 0x7C01) if codec["store"] == "f16" else (0x7F80, 0xFF80, 0x7FC0)
    for name, (_, bits) in field_names(layout).items():
        if name in STORED16:
            found += [(name, value, f"{codec.id}.value.finite") for value in endless]
        elif counts[name] < 2**bits:
            rule = {"seg": "seg.range", "place": "place.ascending", "outplace": "out.ascending"}
            ends = (counts[name], 2**bits - 1)
            found += [(name, value, f"{codec.id}.{rule[name]}") for value in ends]
    return found
