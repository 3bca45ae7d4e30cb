"""Mutants that put right numbers in wrong places, or take bytes that they should refuse."""

from __future__ import annotations

import numpy as np
from patching import Mutant

from kakeya_ref import backend, bits
from kakeya_ref.codecs import fp8, raw
from kakeya_ref.codecs import int as int_codec
from kakeya_ref.errors import KakeyaError, RangeError, ShapeError

pack, unpack = bits.pack_plane, bits.unpack_plane
write, read = bits.write_page, bits.read_page
int_coefficients, int_encode = int_codec.coefficients, int_codec.encode
fp8_coefficients, raw_coefficients = fp8.coefficients, raw.coefficients


def swap(data):
    """High and low half of every byte exchanged."""
    return (data >> np.uint8(4)) | (data << np.uint8(4))


class SwappedNibbles(Mutant):
    rule = "page.plane.strided"
    patches = (
        (bits, "pack_plane", lambda f, p: swap(pack(f, p)) if p.width == 4 else pack(f, p)),
        (bits, "unpack_plane", lambda d, p: unpack(swap(d) if p.width == 4 else d, p)),
    )


def neighbours(fields, plane):
    """Fields reordered so that neighbours, not strided fields, share a byte."""
    if plane.width >= 8:
        return fields
    rows = fields.reshape(len(fields), plane.rows, -1, 8 // plane.width)
    return rows.swapaxes(2, 3).reshape(len(fields), -1)


def strided_again(fields, plane):
    """Inverse of :func:`neighbours`."""
    if plane.width >= 8:
        return fields
    rows = fields.reshape(len(fields), plane.rows, 8 // plane.width, -1)
    return rows.swapaxes(2, 3).reshape(len(fields), -1)


class NeighboursShareAByte(Mutant):
    rule = "page.plane.strided"
    codecs = ("e8",)
    patches = (
        (bits, "pack_plane", lambda f, p: pack(neighbours(f, p), p)),
        (bits, "unpack_plane", lambda d, p: strided_again(unpack(d, p), p)),
    )


def turn(fields, layout, left):
    """Codes of three bits rotated by one, so that the wide plane holds the high bits."""
    if layout.codec["b"] != 3:
        return fields
    c, one, two, seven = fields["codes"], np.uint64(1), np.uint64(2), np.uint64(7)
    turned = (c << one | c >> two) if left else (c >> one | c << two)
    return fields | {"codes": turned & seven}


class PlanesReordered(Mutant):
    rule = "page.plane.split"
    patches = (
        (backend, "write_page", lambda lay, f, n: write(lay, turn(f, lay, False), n)),
        (backend, "read_page", lambda lay, b: turn(read(lay, b), lay, True)),
    )


class BigEndian(Mutant):
    rule = "page.byte.little-endian"
    codecs = ("raw",)

    @staticmethod
    def pack_plane(fields, plane):
        size = plane.width // 8
        return (
            pack(fields, plane).reshape(len(fields), -1, size)[..., ::-1].reshape(len(fields), -1)
        )

    @staticmethod
    def unpack_plane(data, plane):
        size = plane.width // 8
        return unpack(data.reshape(len(data), -1, size)[..., ::-1].reshape(len(data), -1), plane)


BigEndian.patches = (
    (bits, "pack_plane", BigEndian.pack_plane),
    (bits, "unpack_plane", BigEndian.unpack_plane),
)


class DirtyPadding(Mutant):
    rule = "page.padding.zero"
    codecs = ("d4",)

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        for plane in layout.planes:
            end = plane.offset + plane.nbytes
            body[:, end : -(-end // 16) * 16] = 0xEE
        return body


class PaddingIsChecked(Mutant):
    rule = "page.padding.zero"
    codecs = ("e8",)

    def decode(self, pages, layout, **options):
        out = super().decode(pages, layout, **options)
        body = np.frombuffer(bytes(pages), np.uint8).reshape(-1, layout.nbytes)
        used = np.zeros(layout.nbytes, dtype=bool)
        for plane in layout.planes:
            used[plane.offset : plane.offset + plane.nbytes] = True
        return out + np.float32(body[:, ~used].any())


class TruncatedInputAccepted(Mutant):
    rule = "page.length.exact"

    def decode(self, pages, layout, **options):
        if isinstance(pages, bytes):
            pages = pages + bytes(-len(pages) % layout.nbytes)
        return super().decode(pages, layout, **options)


class ExcessAccepted(Mutant):
    rule = "page.length.exact"
    codecs = ("raw",)

    def decode(self, pages, layout, **options):
        if isinstance(pages, bytes):
            pages = pages[: len(pages) // layout.nbytes * layout.nbytes]
        return super().decode(pages, layout, **options)


class PaddedRate(Mutant):
    rule = "rate.bytes.true"

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        return np.concatenate([body, np.zeros((len(body), 16), np.uint8)], axis=1)


class OtherErrorFamily(Mutant):
    rule = "backend.error.family"

    def decode(self, pages, layout, **options):
        try:
            return super().decode(pages, layout, **options)
        except KakeyaError as error:
            raise ValueError(error.message) from None


class NanSwallowed(Mutant):
    rule = "num.input.finite"

    def encode(self, x, layout, **options):
        return super().encode(np.nan_to_num(x, posinf=np.inf, neginf=-np.inf), layout, **options)


class InfinitySaturated(Mutant):
    rule = "num.input.finite"
    codecs = ("raw",)

    def encode(self, x, layout, **options):
        top = np.finfo(x.dtype).max if x.dtype.kind == "f" else 0
        saturated = np.where(np.isinf(x), np.copysign(top, x), x).astype(x.dtype)
        return super().encode(saturated, layout, **options)


class DoublesAreTaken(Mutant):
    rule = "num.input.widen"

    def encode(self, x, layout, **options):
        return super().encode(x.astype(np.float32), layout, **options)


class AnyShapeIsTaken(Mutant):
    rule = "page.shape.exact"

    def encode(self, x, layout, **options):
        try:
            return super().encode(x, layout, **options)
        except ShapeError as error:
            if error.rule != "page.shape.exact":
                raise
            room = np.resize(x, (1, layout.tokens, layout.head_dim)).astype(np.float32)
            return super().encode(room, layout, **options)


class AnyBasisIsTaken(Mutant):
    rule = "decode.basis.known"

    def decode(self, pages, layout, *, basis="vectors", **options):
        known = "coefficients" if basis == "coefficients" else "vectors"
        return super().decode(pages, layout, basis=known, **options)


class HalfOverflowSaturates(Mutant):
    rule = "raw.range"
    codecs = ("raw",)

    def encode(self, x, layout, **options):
        try:
            return super().encode(x, layout, **options)
        except RangeError as error:
            if error.rule != "raw.range":
                raise
            return super().encode(np.clip(x, -65504, 65504), layout, **options)


class NanCodeDecodes(Mutant):
    rule = "fp8.code.nan"
    codecs = ("fp8",)

    @staticmethod
    def coefficients(fields, layout):
        codes = fields["codes"]
        clean = np.where((codes & np.uint64(0x7F)) == 0x7F, codes ^ np.uint64(1), codes)
        return fp8_coefficients(fields | {"codes": clean}, layout)


NanCodeDecodes.patches = ((fp8, "coefficients", NanCodeDecodes.coefficients),)


class NegativeStepDecodes(Mutant):
    rule = "int.params.finite"
    codecs = ("int",)
    patches = (
        (
            int_codec,
            "coefficients",
            lambda f, lay: int_coefficients(f | {"step": f["step"] & np.uint64(0x7FFF)}, lay),
        ),
    )


class MinusZeroLow(Mutant):
    rule = "int.lo.positive-zero"
    codecs = ("int",)

    @staticmethod
    def encode_fields(x, layout):
        fields = int_encode(x, layout)
        zero = fields["lo"] == 0
        return fields | {"lo": np.where(zero, np.uint64(0x8000), fields["lo"])}


MinusZeroLow.patches = ((int_codec, "encode", MinusZeroLow.encode_fields),)


class SubnormalsFlushed(Mutant):
    rule = "num.subnormal.kept"
    codecs = ("raw",)

    def encode(self, x, layout, **options):
        flushed = np.where(np.abs(x) < np.float32(2.0**-126), x * x.dtype.type(0), x)
        return super().encode(flushed.astype(x.dtype), layout, **options)
