"""Mutants of the codecs with tables: products, centres, residuals, and the tables themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from patching import Mutant, OtherNumpy, patched

from kakeya_ref import backend, chains, rotation, scaling, skeletons
from kakeya_ref.codecs import skeleton, turbo
from kakeya_ref.errors import Malformed, RangeError
from kakeya_ref.skeletons import Skeleton, narrow16, widen16

BOTH = ("skeleton", "turbo")
true = {
    "chain": chains.chain,
    "largest": chains.largest,
    "places": chains.places,
    "parts": skeletons.parts,
    "project": chains.project,
    "tables_of": chains.tables_of,
    "synthesise": chains.synthesise,
    "as_skeleton": backend.as_skeleton,
    "stored": chains.stored,
    "gain_of": scaling.gain_of,
    "reciprocal_of": scaling.reciprocal_of,
    "segment": chains.segment,
    "coefficients": {"skeleton": skeleton.coefficients, "turbo": turbo.coefficients},
}


def fused(x, rows):
    """A chain of fused multiply-adds: the product of two fp32 numbers is exact in float64."""
    out = np.zeros((len(x), len(rows)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(x.shape[1]):
            out = (x[:, i, None].astype(np.float64) * rows[:, i] + out).astype(np.float32)
    return out


def pairwise(x, rows):
    """Products summed by halving, as a tree would."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = x[:, None, :] * rows[None]
        while found.shape[-1] > 1:
            if found.shape[-1] % 2:
                found = np.concatenate([found, np.zeros_like(found[..., :1])], axis=-1)
            found = found[..., ::2] + found[..., 1::2]
    return found[..., 0] + np.float32(0)


def blas(x, rows):
    """What a library gives."""
    with np.errstate(over="ignore", invalid="ignore"):
        return x @ rows.T


class FusedChain(Mutant):
    rule = "num.fp32.no-fma"
    codecs = BOTH
    patches = ((chains, "chain", fused),)


class FusedEncoder(FusedChain):
    """Right where it decodes."""

    rule = "skeleton.encode.project"
    codecs = ("skeleton",)

    def decode(self, pages, layout, **options):
        return super(Mutant, self).decode(pages, layout, **options)


class PairwiseChain(Mutant):
    rule = "num.chain.order"
    codecs = BOTH
    patches = ((chains, "chain", pairwise),)


class BackwardChainInTheEncoder(Mutant):
    rule = "turbo.encode.project"
    codecs = ("turbo",)
    patches = ((chains, "chain", lambda x, rows: true["chain"](x[:, ::-1], rows[:, ::-1])),)

    def decode(self, pages, layout, **options):
        return super(Mutant, self).decode(pages, layout, **options)


class LibraryProduct(Mutant):
    rule = "turbo.decode.synthesis"
    codecs = ("turbo",)
    patches = ((chains, "chain", blas),)


class MeanFirst(Mutant):
    """Starts the chain at the mean."""

    rule = "skeleton.decode.synthesis"
    codecs = ("skeleton",)

    @staticmethod
    def synthesise(c, part, rule):
        true["synthesise"](c, part, rule)  # its refusal
        ones = np.ones((len(c), 1), dtype=np.float32)
        rows = np.concatenate([part.mean[:, None], part.basis.T], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            return true["chain"](np.concatenate([ones, c], axis=1), rows)


MeanFirst.patches = ((chains, "synthesise", MeanFirst.synthesise),)


def segment(choose=np.abs, last=False, keep=widen16):
    """``chains.segment`` with another choice, another end of ties, or another rounding."""

    def found(c, part, store, rule):
        dots = chains.chain(c, part.centres)
        chains.finite(dots, rule)
        key = choose(dots)
        seg = key.shape[1] - 1 - key[:, ::-1].argmax(axis=1) if last else key.argmax(axis=1)
        length = dots[np.arange(len(c)), seg]
        bits = chains.stored(length, store, rule)
        with np.errstate(over="ignore", invalid="ignore"):
            used = length if keep is None else keep(bits, store)
            rest = c - used[:, None] * part.centres[seg]
        chains.finite(rest, rule)
        return chains.Segments(seg.astype(np.uint64), bits.astype(np.uint64), rest)

    return ((chains, "segment", found),)


class SignedCosine(Mutant):
    """The centre by the signed product, as the first generation chose it."""

    rule = "skeleton.seg.absolute"
    codecs = ("skeleton",)
    patches = segment(choose=lambda dots: dots)


class SignedCosineOfTurbo(Mutant):
    rule = "turbo.seg.absolute"
    codecs = ("turbo",)
    patches = segment(choose=lambda dots: dots)


class LastCentreOfATie(Mutant):
    rule = "skeleton.seg.absolute"
    codecs = ("skeleton",)
    patches = segment(last=True)


class OpenLoop(Mutant):
    """Subtracts the projection before it is rounded."""

    rule = "turbo.seg.absolute"
    codecs = ("turbo",)
    patches = segment(keep=None)


class OpenLoopOfSkeleton(Mutant):
    rule = "skeleton.seg.absolute"
    codecs = ("skeleton",)
    patches = segment(keep=None)


class TrendIsNotRounded(Mutant):
    """Subtracts the length along the trend before it is rounded."""

    rule = "skeleton.time.trend"
    codecs = ("skeleton",)

    @staticmethod
    def stored(x, store, rule):
        if x.ndim == 1:
            TrendIsNotRounded.exact = x
        return true["stored"](x, store, rule)

    @staticmethod
    def widen(bits, store):
        exact = TrendIsNotRounded.exact
        return exact if exact.shape == bits.shape else widen16(bits, store)

    exact = np.zeros(0, dtype=np.float32)

    def decode(self, pages, layout, **options):
        return super(Mutant, self).decode(pages, layout, **options)


TrendIsNotRounded.patches = (
    (chains, "stored", TrendIsNotRounded.stored),
    (skeleton, "widen16", TrendIsNotRounded.widen),
)


class TrendAfterTheResidual(Mutant):
    """Adds the three parts of a component in another order."""

    rule = "skeleton.decode.sum"
    codecs = ("skeleton",)

    @staticmethod
    def coefficients(fields, layout, tables):
        true["coefficients"]["skeleton"](fields, layout, tables)  # its refusals
        pages = []
        for n in range(len(fields["proj"])):
            part, _ = true["tables_of"](tables, layout, n)
            one = {name: values[n] for name, values in fields.items()}
            store, shape = str(layout.codec["store"]), (layout.tokens, len(part.basis))
            c = chains.centre_part(one, part, store, "skeleton")
            value = widen16(one["value"].astype(np.uint16), store).reshape(layout.tokens, -1)
            every = np.tile(np.arange(value.shape[1], dtype=np.uint64), layout.tokens)
            rest = np.zeros(shape, dtype=np.float32)
            at = one.get("place", every).astype(np.int64).reshape(value.shape)
            np.put_along_axis(rest, at, value, axis=1)
            c = c + rest
            if part.trend.size:
                along = widen16(one["along"].astype(np.uint16), store)
                c = c + along[:, None] * part.trend
            pages.append(chains.synthesise(c, part, "skeleton.value.finite"))
        return np.stack(pages)


TrendAfterTheResidual.patches = ((skeleton, "coefficients", TrendAfterTheResidual.coefficients),)


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


class CentreWrapsAround(Mutant):
    rule = "turbo.seg.range"
    codecs = ("turbo",)

    @staticmethod
    def centre_part(fields, part, store, rule):
        seg = fields.get("seg", np.zeros(len(fields["proj"]), np.uint64))
        wrapped = {**fields, "seg": seg % np.uint64(len(part.centres))}
        return true_centre_part(wrapped, part, store, rule)


true_centre_part = chains.centre_part
CentreWrapsAround.patches = ((chains, "centre_part", CentreWrapsAround.centre_part),)


class BasisInsteadOfAnalysis(Mutant):
    rule = "skeleton.encode.project"
    codecs = ("skeleton",)
    patches = ((chains, "project", lambda x, part, analysis: true["project"](x, part, None)),)


class AnalysisInTheDecoder(Mutant):
    """Decodes with the rows it was to encode with."""

    rule = "turbo.decode.synthesis"
    codecs = ("turbo",)

    @staticmethod
    def tables_of(tables, layout, n):
        part, analysis = true["tables_of"](tables, layout, n)
        return (part if analysis is None else replace(part, basis=analysis)), analysis


AnalysisInTheDecoder.patches = ((chains, "tables_of", AnalysisInTheDecoder.tables_of),)


class FirstTableForAll(Mutant):
    rule = "codec.table.given"
    codecs = BOTH
    patches = ((chains, "tables_of", lambda t, lay, n: true["tables_of"](t, lay, 0)),)


class TableOfTheLastCall(Mutant):
    """Remembers tables, and does without being given any."""

    rule = "codec.table.given"
    codecs = ("turbo",)

    def __init__(self):
        self.last = None

    def encode(self, x, layout, *, tables=None, **options):
        return super().encode(x, layout, tables=self.kept(tables), **options)

    def decode(self, pages, layout, *, tables=None, **options):
        return super().decode(pages, layout, tables=self.kept(tables), **options)

    def kept(self, tables):
        self.last = self.last if tables is None else tables
        return self.last


class TablesOfAnyNumber(Mutant):
    """Takes the first tables of too many."""

    rule = "codec.table.shape"
    codecs = ("skeleton",)

    @staticmethod
    def as_skeleton(tables, layout, pages):
        if isinstance(tables, Skeleton) and tables.bodies.ndim == 2 and 1 < len(tables) < pages:
            tables = Skeleton(tables.bodies[:1], None)
        return true["as_skeleton"](tables, layout, pages)


TablesOfAnyNumber.patches = ((backend, "as_skeleton", TablesOfAnyNumber.as_skeleton),)


class TableNanIsTaken(Mutant):
    rule = "codec.table.finite"
    codecs = BOTH

    @staticmethod
    def parts(body, codec, d):
        try:
            return true["parts"](body, codec, d)
        except Malformed as error:
            if error.rule != "codec.table.finite":
                raise
            return true["parts"](np.zeros_like(body), codec, d)


TableNanIsTaken.patches = ((chains, "parts", TableNanIsTaken.parts),)


class LevelsAreSorted(Mutant):
    """Mends levels that it should refuse."""

    rule = "turbo.levels.ascending"
    codecs = ("turbo",)

    @staticmethod
    def parts(body, codec, d):
        try:
            return true["parts"](body, codec, d)
        except Malformed as error:
            if error.rule != "turbo.levels.ascending":
                raise
            return true["parts"](np.zeros_like(body), codec, d)


LevelsAreSorted.patches = ((chains, "parts", LevelsAreSorted.parts),)


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
            return true_encode(x, layout, tables)


true_encode = turbo.encode
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
            return true_encode(x, layout, tables)


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


class Truncates16(Mutant):
    """Stores numbers by cutting them off."""

    rule = "skeleton.seg.absolute"
    codecs = ("skeleton",)

    @staticmethod
    def narrow(x, store):
        if store == "bf16":
            return (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16)
        near = narrow16(x, store)
        over = np.abs(widen16(near, store)) > np.abs(x)
        return np.where(over, near - np.uint16(1), near).astype(np.uint16)


Truncates16.patches = ((chains, "narrow16", Truncates16.narrow),)
