"""Mutants of codecs with tables: what remains after the centre, its gain, codes and places."""

from __future__ import annotations

import numpy as np
from patching import Mutant, OtherNumpy, patched

from kakeya_ref import chains, rotation, scaling
from kakeya_ref.codecs import turbo
from kakeya_ref.errors import Malformed, RangeError
from kakeya_ref.skeletons import narrow16, widen16

true = {
    "largest": chains.largest,
    "places": chains.places,
    "reciprocal_of": scaling.reciprocal_of,
    "encode": turbo.encode,
}


def last_largest(magnitude, n):
    """The largest, the highest place on ties."""
    found = true["largest"](magnitude[..., ::-1], n)
    return np.sort(magnitude.shape[-1] - 1 - found, axis=-1)


class LastOfEqualResiduals(Mutant):
    rule = "skeleton.place.largest"
    codecs = ("skeleton",)
    patches = ((chains, "largest", last_largest),)


class LastOfEqualOutliers(Mutant):
    rule = "turbo.out.largest"
    codecs = ("turbo",)
    patches = ((chains, "largest", last_largest),)


class SignedOutliers(Mutant):
    rule = "turbo.out.largest"
    codecs = ("turbo",)
    patches = ((turbo, "np", OtherNumpy(abs=lambda z: z)),)


class OutlierOneOff(Mutant):
    """Puts an outlier one place after its own."""

    rule = "turbo.decode.product"
    codecs = ("turbo",)
    patches = ((chains, "places", lambda f, n, rule: (true["places"](f, n, rule) + 1) % n),)


class AnyOrderOfPlaces(Mutant):
    rule = "skeleton.place.ascending"
    codecs = ("skeleton",)

    @staticmethod
    def places(fields, count, rule):
        at = fields.astype(np.int64)
        if (at >= count).any():
            raise Malformed(rule, "a place too large")
        return at


AnyOrderOfPlaces.patches = ((chains, "places", AnyOrderOfPlaces.places),)


class RepeatedOutliersAreTaken(Mutant):
    rule = "turbo.out.ascending"
    codecs = ("turbo",)

    @staticmethod
    def places(fields, count, rule):
        at = fields.astype(np.int64)
        if (at >= count).any() or (np.diff(at, axis=-1) < 0).any():
            raise Malformed(rule, "descending, or too large")
        return at


RepeatedOutliersAreTaken.patches = ((chains, "places", RepeatedOutliersAreTaken.places),)


class OwnLevelsThresholdsOfTheNormal(Mutant):
    """Takes the levels of the table, and the thresholds of N(0, 1)."""

    rule = "turbo.levels.midpoint"
    codecs = ("turbo",)

    @staticmethod
    def quantiser(part, b):
        levels, thresholds = turbo.lloyd_max(b)
        return (part.levels if part.levels.size else levels), thresholds


OwnLevelsThresholdsOfTheNormal.patches = (
    (turbo, "_quantiser", OwnLevelsThresholdsOfTheNormal.quantiser),
)


class ResidualTieGoesUp(Mutant):
    rule = "turbo.code.boundary"
    codecs = ("turbo",)
    patches = (
        (turbo, "np", OtherNumpy(searchsorted=lambda a, v, side: np.searchsorted(a, v, "right"))),
    )


class ScaleTimesRootW(Mutant):
    """Scales by the root of the width, as if the transform had not: the first historic fault."""

    rule = "turbo.residual.gain"
    codecs = ("turbo",)

    @staticmethod
    def encode(x, layout, tables):
        root = np.float32(np.sqrt(turbo.residual_width(layout.codec)))
        with_root = ((turbo, "reciprocal_of", lambda byte: true["reciprocal_of"](byte) * root),)
        with patched(with_root):
            return true["encode"](x, layout, tables)


ScaleTimesRootW.patches = ((turbo, "encode", ScaleTimesRootW.encode),)


class GainIsNeverRead(Mutant):
    """Decodes every residual at one size: the second historic fault of the scale."""

    rule = "turbo.residual.gain"
    codecs = ("turbo",)
    patches = ((turbo, "gain_of", lambda byte: np.ones(byte.shape, np.float32)),)


class PaddedWithTheLast(Mutant):
    """Pads the residual with its last number."""

    rule = "turbo.residual.padded"
    codecs = ("turbo",)

    @staticmethod
    def encode(x, layout, tables):
        rank = layout.codec.integer("rank")

        def rotate(rest, seed):
            more = rest.shape[1] - rank
            return rotation.rotate(np.pad(rest[:, :rank], [(0, 0), (0, more)], "edge"), seed)

        with patched(((turbo, "rotate", rotate),)):
            return true["encode"](x, layout, tables)


PaddedWithTheLast.patches = ((turbo, "encode", PaddedWithTheLast.encode),)


class StoredOverflowSaturates(Mutant):
    rule = "skeleton.value.range"
    codecs = ("skeleton",)

    @staticmethod
    def stored(x, store, rule):
        top = widen16(np.array([0x7BFF if store == "f16" else 0x7F7F], np.uint16), store)[0]
        if not np.isfinite(x).all():
            raise RangeError(rule, "beyond float32")
        return narrow16(np.clip(x, -top, top), store)


StoredOverflowSaturates.patches = ((chains, "stored", StoredOverflowSaturates.stored),)


class StoredOverflowDecodes(Mutant):
    """Reads an infinity as the largest number."""

    rule = "turbo.value.finite"
    codecs = ("turbo",)

    @staticmethod
    def widen(bits, store):
        top, wide = (65504.0 if store == "f16" else 3e38), widen16(bits, store)
        return np.nan_to_num(wide, nan=0.0, posinf=top, neginf=-top).astype(np.float32)


StoredOverflowDecodes.patches = (
    (chains, "widen16", StoredOverflowDecodes.widen),
    (turbo, "widen16", StoredOverflowDecodes.widen),
)
