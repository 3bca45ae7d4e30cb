"""Mutants whose arithmetic is wrong: transform, gain, rounding, ties, lattices."""

from __future__ import annotations

import numpy as np
from patching import Mutant, OtherNumpy

from kakeya_ref import lattice, numerics, rotation, scaling, tables
from kakeya_ref.codecs import d4, e8, fp8, raw, scalar
from kakeya_ref.codecs import int as int_codec
from kakeya_ref.rotation import blocks, hadamard

GAINED = (scalar, d4, e8)
true = {
    "signs": tables.signs,
    "lattice_step": tables.lattice_step,
    "gain_byte": scaling.gain_byte,
    "reciprocal_of": scaling.reciprocal_of,
    "nearest_even": lattice.nearest_even,
    "nearest_e8": lattice.nearest_e8,
    "unrank_half": lattice.unrank_half,
}


def everywhere(name, replacement, modules=GAINED):
    """The same replacement in every module that imported the name."""
    return tuple((module, name, replacement) for module in modules)


def half_away(x):
    """Rounding with halves away from zero."""
    return np.trunc(x + np.copysign(np.float32(0.5), x))


def unscaled(y):
    """Hadamard without its constant."""
    out, start = hadamard(y), 0
    for n in blocks(y.shape[1]):
        out[:, start : start + n] *= np.float32(np.sqrt(n))
        start += n
    return out


class HadamardWithoutConstant(Mutant):
    rule = "hadamard.scale.once"
    patches = ((rotation, "hadamard", unscaled),)


class HadamardTimesRootN(Mutant):
    rule = "hadamard.scale.once"
    codecs = ("e8",)
    patches = everywhere(
        "unrotate",
        lambda y, seed: rotation.unrotate(y, seed) * np.float32(np.sqrt(y.shape[1])),
    )


class SmallestBlockFirst(Mutant):
    rule = "hadamard.blocks.largest-first"
    patches = ((rotation, "blocks", lambda d: blocks(d)[::-1]),)


class SignsFromBitZero(Mutant):
    rule = "signs.splitmix64.top-bit"

    @staticmethod
    def signs(seed, d):
        flips, state = np.ones(d, dtype=np.float32), seed
        for i in range(d if seed else 0):
            state, out = tables.splitmix64(state)
            flips[i] = -1.0 if out & 1 else 1.0
        return flips


SignsFromBitZero.patches = ((rotation, "signs", SignsFromBitZero.signs),)


class SeedZeroFlips(Mutant):
    rule = "signs.seed.zero"
    patches = ((rotation, "signs", lambda seed, d: true["signs"](seed or 2**32, d)),)


class SignsBehindTheTransform(Mutant):
    rule = "rotation.order.forward"
    patches = (
        *everywhere("rotate", lambda x, seed: hadamard(x) * true["signs"](seed, x.shape[1])),
        *everywhere("unrotate", lambda y, seed: hadamard(y * true["signs"](seed, y.shape[1]))),
    )


def left_to_right(a):
    """The sum a plain loop makes."""
    return np.cumsum(a, axis=-1, dtype=np.float32)[..., -1]


class NumpySum(Mutant):
    rule = "num.sum.halving"
    codecs = ("e8",)
    patches = ((scaling, "halving_sum", lambda a: a.sum(axis=-1)),)


class SumFromLeftToRight(Mutant):
    rule = "num.sum.halving"
    patches = ((scaling, "halving_sum", left_to_right),)


class WiderIntermediates(Mutant):
    rule = "num.fp32.no-fma"
    codecs = ("scalar", "e8")

    @staticmethod
    def rotate(x, seed):
        out, start = x.astype(np.float64) * true["signs"](seed, x.shape[1]), 0
        for n in blocks(x.shape[1]):
            h = np.ones((1, 1))
            while len(h) < n:
                h = np.block([[h, h], [h, -h]])
            out[:, start : start + n] = out[:, start : start + n] @ h / np.sqrt(n)
            start += n
        return out.astype(np.float32)


WiderIntermediates.patches = everywhere("rotate", WiderIntermediates.rotate)


def dividing(x, layout):
    """``scalar.encode`` with a division where the grid has a reciprocal."""
    y = rotation.rotate(x.reshape(-1, layout.head_dim), layout.codec.integer("seed"))
    scale = true["gain_byte"](scaling.rms(y))
    gain = scaling.gain_of(scale)[:, None]
    _, thresholds = tables.lloyd_max(layout.codec.integer("b"))
    codes = np.searchsorted(thresholds, y / np.where(gain == 0, np.float32(1), gain), side="left")
    codes = np.where(scale[:, None] == 0, 0, codes)
    return {"scales": scale.astype(np.uint64), "codes": codes.astype(np.uint64)}


class DividesByTheGain(Mutant):
    rule = "scale.byte.reciprocal"
    patches = ((scalar, "encode", dividing),)


class ScaleAppliedTwice(Mutant):
    rule = "scalar.decode.product"
    patches = ((scalar, "gain_of", lambda byte: scaling.gain_of(byte) * scaling.gain_of(byte)),)


class MidpointTieGoesUp(Mutant):
    rule = "scale.byte.midpoint"

    @staticmethod
    def gain_byte(gain):
        true["gain_byte"](gain)  # its refusal
        found = np.searchsorted(tables.gain_midpoints()[1:256], gain, side="right")
        return found.astype(np.uint8)


MidpointTieGoesUp.patches = everywhere("gain_byte", MidpointTieGoesUp.gain_byte)


class ArithmeticMidpoints(Mutant):
    rule = "scale.byte.midpoint"
    codecs = ("d4",)

    @staticmethod
    def gain_byte(gain):
        true["gain_byte"](gain)
        s = tables.gain_grid()
        middles = (s[:-1] + s[1:]) * np.float32(0.5)
        return np.searchsorted(middles, gain, side="left").astype(np.uint8)


ArithmeticMidpoints.patches = everywhere("gain_byte", ArithmeticMidpoints.gain_byte)


def saturated_gain_byte(gain):
    """The top byte for any gain that is too large."""
    return true["gain_byte"](np.minimum(np.nan_to_num(gain), tables.gain_midpoints()[256]))


class LargeGainSaturates(Mutant):
    rule = "scale.byte.range"
    patches = everywhere("gain_byte", saturated_gain_byte)


class MinusZeroUnderGainZero(Mutant):
    rule = "scale.byte.zero"

    @staticmethod
    def coefficients(fields, layout):
        centroids, _ = tables.lloyd_max(layout.codec.integer("b"))
        scale = fields["scales"].reshape(-1, layout.tokens, 1).astype(np.uint8)
        codes = fields["codes"].reshape(-1, layout.tokens, layout.head_dim)
        return centroids[codes] * scaling.gain_of(scale)


MinusZeroUnderGainZero.patches = ((scalar, "coefficients", MinusZeroUnderGainZero.coefficients),)


class ThresholdTieGoesUp(Mutant):
    rule = "scalar.code.boundary"

    @staticmethod
    def search(a, v, side="left"):
        return np.searchsorted(a, v, side="right")


ThresholdTieGoesUp.patches = ((scalar, "np", OtherNumpy(searchsorted=ThresholdTieGoesUp.search)),)


class IntHalvesAway(Mutant):
    rule = "num.round.half-even"
    codecs = ("int",)
    patches = ((int_codec, "np", OtherNumpy(rint=half_away)),)


class IntChannelsForTokens(Mutant):
    rule = "int.group.axis"
    codecs = ("int",)

    @staticmethod
    def group_of(layout):
        p, d, g = layout.tokens, layout.head_dim, layout.codec.integer("g")
        token, channel = np.indices((p, d))
        if layout.codec["axis"] == "token":
            return token * -(-d // g) + channel % -(-d // g)
        return token // g * d + channel


IntChannelsForTokens.patches = ((int_codec, "_group_of", IntChannelsForTokens.group_of),)


class Bf16Truncates(Mutant):
    rule = "raw.encode.nearest"
    codecs = ("raw",)
    patches = ((raw, "round_bf16", lambda x, rule: x.view(np.uint16)[..., 1::2].copy()),)


class Fp8HalvesAway(Mutant):
    rule = "fp8.code.round"
    codecs = ("fp8",)

    @staticmethod
    def round_e4m3(x):
        values = numerics.e4m3_values()[:0x7F]
        middles = (values[:-1] + values[1:]) * np.float32(0.5)
        code = np.searchsorted(middles, np.minimum(np.abs(x), np.float32(448)), side="right")
        return (code | np.where(np.signbit(x), 0x80, 0)).astype(np.uint8)


Fp8HalvesAway.patches = ((fp8, "round_e4m3", Fp8HalvesAway.round_e4m3),)


class LatticeTieGoesLast(Mutant):
    rule = "e8.nearest.tie"
    codecs = ("e8",)

    @staticmethod
    def argmax(a, axis=None):
        return a.shape[axis] - 1 - np.argmax(np.flip(a, axis), axis=axis)


LatticeTieGoesLast.patches = ((lattice, "np", OtherNumpy(argmax=LatticeTieGoesLast.argmax)),)


class LatticeHalvesAway(Mutant):
    rule = "num.round.half-even"
    codecs = ("d4",)
    patches = ((lattice, "np", OtherNumpy(rint=half_away)),)


class LatticeExactGoesDown(Mutant):
    rule = "d4.nearest.tie"
    codecs = ("d4",)

    @staticmethod
    def nearest_even(w, lo, hi):
        # An error of exactly zero moves down instead of up: flip every sign, twice.
        c, cost = true["nearest_even"](-w, -hi, -lo)
        exact = ((w - np.rint(w)) == 0).all(axis=1, keepdims=True)
        kept, _ = true["nearest_even"](w, lo, hi)
        return np.where(exact, -c, kept), cost


LatticeExactGoesDown.patches = ((lattice, "nearest_even", LatticeExactGoesDown.nearest_even),)


class ClampAfterRound(Mutant):
    rule = "e8.nearest.inside"
    codecs = ("e8",)

    @staticmethod
    def nearest_even(w, lo, hi):
        c, cost = true["nearest_even"](w, -(2**30), 2**30)
        return np.clip(c, lo, hi), cost


ClampAfterRound.patches = ((lattice, "nearest_even", ClampAfterRound.nearest_even),)


class CosetTieGoesHalf(Mutant):
    rule = "e8.coset.tie"
    codecs = ("e8",)

    @staticmethod
    def nearest_e8(z, q):
        whole, cost = true["nearest_even"](z, -q, q)
        shifted, cost_half = true["nearest_even"](z - np.float32(0.5), -q, q - 1)
        half = cost_half <= cost
        return half, np.where(half[:, None], shifted, whole)


CosetTieGoesHalf.patches = ((lattice, "nearest_e8", CosetTieGoesHalf.nearest_e8),)


class WrongCosetOffset(Mutant):
    rule = "e8.index.bijective"
    codecs = ("e8",)
    patches = ((lattice, "unrank_half", lambda rank, q: true["unrank_half"](rank, q) - 1),)


class StepOfTheNextQ(Mutant):
    rule = "e8.step.table"
    codecs = ("e8",)
    patches = everywhere("lattice_step", lambda i, q: true["lattice_step"](i, q % 110 + 1), (e8,))


class IndexWrapsAround(Mutant):
    rule = "e8.index.range"
    codecs = ("e8",)

    @staticmethod
    def check_range(index, count, rule):
        np.remainder(index, np.uint64(count), out=index)


IndexWrapsAround.patches = ((lattice, "check_range", IndexWrapsAround.check_range),)


class AnyIndexIsTaken(Mutant):
    rule = "d4.index.range"
    codecs = ("d4",)
    patches = ((lattice, "check_range", lambda index, count, rule: None),)


class TwoUlpsOff(Mutant):
    rule = "num.level.ulp"
    codecs = ("scalar", "fp8", "int")

    def decode(self, pages, layout, **options):
        return super().decode(pages, layout, **options) * np.float32(1 + 2**-21)
