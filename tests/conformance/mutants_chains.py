"""Mutants of codecs with tables: products, centres, lengths."""

from __future__ import annotations

import numpy as np
from patching import Mutant

from kakeya_ref import chains
from kakeya_ref.codecs import skeleton
from kakeya_ref.skeletons import narrow16, widen16

BOTH = ("skeleton", "turbo")
true = {
    "chain": chains.chain,
    "tables_of": chains.tables_of,
    "synthesise": chains.synthesise,
    "stored": chains.stored,
    "skeleton": skeleton.coefficients,
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


class MeanIsProjected(Mutant):
    """Projects vector and mean, and subtracts then."""

    rule = "skeleton.encode.project"
    codecs = ("skeleton",)

    @staticmethod
    def project(x, part, analysis):
        rows = part.basis if analysis is None else analysis
        with np.errstate(over="ignore", invalid="ignore"):
            return true["chain"](x, rows) - true["chain"](part.mean[None], rows)


MeanIsProjected.patches = ((chains, "project", MeanIsProjected.project),)


class ProductsFlushed(Mutant):
    """Flushes subnormal products to zero."""

    rule = "num.subnormal.kept"
    codecs = BOTH

    @staticmethod
    def chain(x, rows):
        out = np.zeros((len(x), len(rows)), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for i in range(x.shape[1]):
                product = x[:, i, None] * rows[:, i]
                out += np.where(np.abs(product) < np.float32(2.0**-126), 0, product)
        return out


ProductsFlushed.patches = ((chains, "chain", ProductsFlushed.chain),)


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


class LengthsRoundHalfAway(Mutant):
    rule = "num.round.half-even"
    codecs = BOTH

    @staticmethod
    def narrow(x, store):
        if store == "bf16":
            return ((np.ascontiguousarray(x).view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
        with np.errstate(over="ignore"):
            up = np.nextafter(x, np.copysign(np.float32(np.inf), x)).astype(np.float32)
        return np.where(np.isfinite(up), narrow16(up, store), narrow16(x, store))


LengthsRoundHalfAway.patches = ((chains, "narrow16", LengthsRoundHalfAway.narrow),)


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
        true["skeleton"](fields, layout, tables)  # its refusals
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
