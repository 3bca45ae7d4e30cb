"""Mutants of the trellis: ties, start, end, window, labels, tables."""

from __future__ import annotations

import numpy as np
from patching import Mutant

from kakeya_ref import tables, trellis
from kakeya_ref.codecs import trellis as codec

true = {
    "values": trellis.values,
    "labels": tables.trellis_labels,
    "table": tables.trellis_values,
    "unbiased": codec._unbiased,
}


def search(z, bits, *, start=np.inf, step=np.less, end=np.argmin, pick=np.argmin):
    """The reference's search with one of its rules open."""
    labels, (m, n) = true["labels"](), z.shape
    cost = np.full((m, 128), start, dtype=np.float32)
    cost[:, 0] = 0
    upper, choice = [], []
    for i in range(n):
        off = z[:, i, None, None] - true["table"](int(bits[i])).reshape(-1, 16)
        square = off * off
        choice.append(pick(square, axis=1))
        branch = square.min(axis=1)
        both = (np.repeat(cost, 2, axis=1) + branch[:, labels]).reshape(m, 2, 128)
        upper.append(step(both[:, 1], both[:, 0]))
        cost = np.where(upper[-1], both[:, 1], both[:, 0])
    state, rows = end(cost, axis=1), np.arange(m)
    codes = np.zeros((m, n), dtype=np.uint64)
    for i in reversed(range(n)):
        window = state + 128 * upper[i][rows, state]
        codes[:, i] = 2 * choice[i][rows, labels[window]] + (state & 1)
        state = window >> 1
    return codes


def last(a, axis):
    """The last of the least instead of the first."""
    return a.shape[axis] - 1 - np.flip(a, axis).argmin(axis=axis)


class TieTakesTheUpperPredecessor(Mutant):
    codecs = ("trellis",)
    rule = "trellis.search.step"
    patches = ((trellis, "search", lambda z, bits: search(z, bits, step=np.less_equal)),)


class TieTakesTheLastState(Mutant):
    codecs = ("trellis",)
    rule = "trellis.search.end"
    patches = ((trellis, "search", lambda z, bits: search(z, bits, end=last)),)


class TieTakesTheLastValue(Mutant):
    codecs = ("trellis",)
    rule = "trellis.search.branch"
    patches = ((trellis, "search", lambda z, bits: search(z, bits, pick=last)),)


class StartsAnywhere(Mutant):
    codecs = ("trellis",)
    rule = "trellis.search.start"
    patches = ((trellis, "search", lambda z, bits: search(z, bits, start=0)),)


class GreedyWalk(Mutant):
    """Takes the best of the two branches at every step."""

    codecs = ("trellis",)
    rule = "trellis.search.step"

    @staticmethod
    def search(z, bits):
        codes, window = np.zeros(z.shape, dtype=np.uint64), np.zeros(len(z), dtype=np.int64)
        for i, b in enumerate(bits):
            table = true["table"](int(b)).reshape(-1, 16)
            low = (window * 2 % 256)[:, None] + np.arange(2)
            square = (z[:, i, None, None] - table.T[true["labels"]()[low]]) ** 2
            best = square.reshape(len(z), -1).argmin(axis=1)
            bit, u = np.divmod(best, len(table))
            codes[:, i], window = 2 * u + bit, low[np.arange(len(z)), bit]
        return codes


GreedyWalk.patches = ((trellis, "search", GreedyWalk.search),)


class WindowOfSeven(Mutant):
    """Forgets the oldest bit of the window."""

    codecs = ("trellis",)
    rule = "trellis.window.shift"
    patches = ((trellis, "trellis_labels", lambda: true["labels"]()[np.arange(256) & 127]),)


class WindowOneLate(Mutant):
    """Every value sees the codes before its own only."""

    codecs = ("trellis",)
    rule = "trellis.window.shift"

    @staticmethod
    def values(codes, bits):
        late = np.concatenate([np.zeros_like(codes[:, :1]), codes[:, :-1]], axis=1)
        return true["values"](codes & ~np.uint64(1) | late & np.uint64(1), bits)


WindowOneLate.patches = ((trellis, "values", WindowOneLate.values),)


class WindowTurnedRound(Mutant):
    """The newest bit at the top: as most libraries shift."""

    codecs = ("trellis",)
    rule = "trellis.label.linear"

    @staticmethod
    def labels():
        turned = [int(f"{w:08b}"[::-1], 2) for w in range(256)]
        return true["labels"]()[turned]


WindowTurnedRound.patches = ((trellis, "trellis_labels", WindowTurnedRound.labels),)


class ValuesByLabelFirst(Mutant):
    """Reads the table as labels of values instead of values of labels."""

    codecs = ("trellis",)
    rule = "trellis.table.values"

    @staticmethod
    def table(b):
        return np.ascontiguousarray(true["table"](b).reshape(16, -1).T).ravel()


ValuesByLabelFirst.patches = ((trellis, "trellis_values", ValuesByLabelFirst.table),)


class GainTwice(Mutant):
    codecs = ("trellis",)
    rule = "trellis.decode.product"
    patches = ((codec, "gain_of", lambda byte: tables.gain_grid()[byte] ** 2),)


class GainOfTheVectorItself(Mutant):
    """Writes the first scale byte, whatever the walk gives back."""

    codecs = ("trellis",)
    rule = "trellis.gain.unbiased"
    patches = ((codec, "_unbiased", lambda scale, z, found: scale),)


class GainByTheRoot(Mutant):
    """Makes what comes back as long as the vector, not as long along it."""

    codecs = ("trellis",)
    rule = "trellis.gain.unbiased"

    @staticmethod
    def unbiased(scale, z, found):
        size = np.sqrt((z * z).sum(1) / np.maximum((found * found).sum(1), np.float32(1e-9)))
        gain = tables.gain_grid()[scale] * size
        byte = np.searchsorted(tables.gain_midpoints()[1:256], gain)
        return np.where(scale > 0, byte.clip(1, 255), 0).astype(np.uint8)


GainByTheRoot.patches = ((codec, "_unbiased", GainByTheRoot.unbiased),)


class GainBeyondAnOctave(Mutant):
    """Raises the byte of a walk that gives back little by more than eight."""

    codecs = ("trellis",)
    rule = "trellis.gain.unbiased"
    patches = ((codec, "OCTAVE", 255),)


class GainSumsInIndexOrder(Mutant):
    codecs = ("trellis",)
    rule = "trellis.gain.unbiased"

    @staticmethod
    def unbiased(scale, z, found):
        real = codec.halving_sum
        codec.halving_sum = lambda a: np.add.accumulate(a, axis=1, dtype=np.float32)[:, -1]
        try:
            return true["unbiased"](scale, z, found)
        finally:
            codec.halving_sum = real


GainSumsInIndexOrder.patches = ((codec, "_unbiased", GainSumsInIndexOrder.unbiased),)
