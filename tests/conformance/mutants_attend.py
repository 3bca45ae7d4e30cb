"""Mutants of attention over packed pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from patching import Mutant, patched

from kakeya_ref import attention

_VISIBLE, _PARTIAL, _MERGE = attention.visible, attention.partial, attention.merge


class Attending(Mutant):
    def attend(self, *given, **options):
        with patched(self.patches):
            return super().attend(*given, **options)


class WindowOneTooWide(Attending):
    rule = "attend.visible.window"

    def attend(self, *given, window=None, **options):
        return super().attend(*given, window=window and window + 1, **options)


class ShortPagesReadWhole(Attending):
    rule = "attend.visible.page"
    patches = (
        (
            attention,
            "visible",
            lambda paged, b, n, index, tokens, window: (
                _VISIBLE(paged, b, n, index, tokens, window).any(1, keepdims=True)
                & np.ones(tokens, bool)
            ),
        ),
    )


class QueriesOfSevenBits(Attending):
    rule = "attend.error.mean"

    def attend(self, q, *given, **options):
        top = np.abs(q).max(-1, keepdims=True) / 63
        return super().attend(np.round(q / top) * top, *given, **options)


class BiasForgotten(Attending):
    rule = "attend.logit"

    def attend(self, *given, bias=None, **options):
        return super().attend(*given, bias=None, **options)


class LastPartialKept(Attending):
    rule = "attend.softmax"
    patches = ((attention, "merge", lambda parts: _MERGE(parts[-2:])),)


class QueriesCentred(Attending):
    rule = "attend.row.independent"

    def attend(self, q, *given, **options):
        return super().attend(q - 0.01 * q.mean((0, 3), keepdims=True), *given, **options)


class BlindQueriesAveraged(Attending):
    rule = "attend.visible.none"
    patches = (
        (
            attention,
            "partial",
            lambda logits, v: _PARTIAL(np.where(logits == -np.inf, -60.0, logits), v),
        ),
    )


class FirstFrameForAll(Attending):
    """Scores the keys of all frames by the query of the first."""

    rule = "query.attend.frame"
    codecs = ("query",)

    def attend(self, q, k_pages, v_pages, layouts, paged, *given, **options):
        paged = replace(paged, frame=None)
        return super().attend(q, k_pages, v_pages, layouts, paged, *given, **options)


class FirstHeadsTable(Attending):
    """Reads the pages of every head beside the table of the first."""

    rule = "query.attend.frame"
    codecs = ("query",)

    def attend(self, *given, known=(None, None), **options):
        keys = known[0] and known[0][:1] * len(known[0])
        return super().attend(*given, known=(keys, None), **options)
