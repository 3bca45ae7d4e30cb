"""Mutants of ``query``: bits, gain, walk and row of bits."""

from __future__ import annotations

import numpy as np
from patching import Mutant

from kakeya_ref import bands, chains, trellis
from kakeya_ref.codecs import query

true = {
    "widths": bands.widths,
    "pack": bands.pack,
    "unpack": bands.unpack,
    "rms": query.rms,
    "search": trellis.search,
    "synthesise": chains.synthesise,
    "project": chains.project,
}


class LastBandOfEquals(Mutant):
    """Gives a bit to the last of bands that save alike."""

    rule = "query.bits.greedy"
    codecs = ("query",)

    @staticmethod
    def widths(spread, total):
        # A hair more for later bands settles ties only.
        return true["widths"](
            spread * (1 + np.arange(len(spread), dtype=np.float32) * 2**-22), total
        )

    patches = ((bands, "widths", widths.__func__),)


class EvenBits(Mutant):
    """Shares the bits out evenly, whatever the spread."""

    rule = "query.bits.greedy"
    codecs = ("query",)
    patches = ((bands, "widths", lambda s, n: true["widths"](np.ones_like(s), n)),)


class LeastBitFirst(Mutant):
    """Writes and reads the row of bits from the lowest bit of each byte."""

    rule = "query.row.bits"
    codecs = ("query",)

    @staticmethod
    def swap(rows):
        return np.packbits(np.unpackbits(rows, axis=1, bitorder="little"), axis=1)

    patches = (
        (bands, "pack", lambda c, w: LeastBitFirst.swap(true["pack"](c, w))),
        (bands, "unpack", lambda r, w: true["unpack"](LeastBitFirst.swap(r), w)),
    )


class GainOfAll(Mutant):
    """Takes the gain as if silent bands were zeros among the components."""

    rule = "query.gain.active"
    codecs = ("query",)
    patches = (
        (query, "rms", lambda y: true["rms"](np.concatenate([y, np.zeros_like(y)], axis=1))),
    )


class LetsItClip(Mutant):
    """Leaves what is beyond a table at its last number."""

    rule = "query.gain.reach"
    codecs = ("query",)
    patches = ((query, "_reach", lambda y, width: np.zeros(len(y), np.float32)),)


class EveryCodeAlone(Mutant):
    """Starts the walk anew in the middle."""

    rule = "query.code.trellis"
    codecs = ("query",)

    @staticmethod
    def search(z, width, weight):
        half = len(width) // 2
        parts = [
            true["search"](z[:, s], width[s], weight[s]) for s in (slice(half), slice(half, None))
        ]
        return np.concatenate(parts, axis=1)

    patches = ((trellis, "search", search.__func__),)


class ForgottenMean(Mutant):
    """Decodes without the mean."""

    rule = "query.decode.synthesis"
    codecs = ("query",)

    @staticmethod
    def synthesise(c, part, rule):
        return true["synthesise"](c, part, rule) - part.mean

    patches = ((chains, "synthesise", synthesise.__func__),)


class UnweightedWalk(Mutant):
    """Counts errors of all components alike."""

    rule = "query.code.trellis"
    codecs = ("query",)
    patches = ((trellis, "search", lambda z, bits, weight: true["search"](z, bits)),)
