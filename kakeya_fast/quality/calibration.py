"""Calibrated tables of a model from named texts, which are written into the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kakeya_fast.quality.texts import Passage, Text, passages
from kakeya_ref.errors import UsageError

if TYPE_CHECKING:
    from kakeya_fast.hf.calibrate import Statistics
    from kakeya_fast.hf.keytables import KeyTables
    from kakeya_fast.quality.models import Loaded


def passages_of(loaded: Loaded, texts: Sequence[Text], tokens: int, ctx: int) -> list[Passage]:
    """Passages of ``ctx`` tokens, ``tokens`` in all, as many from each text.

    Raises
    ------
    UsageError
        No text, one that is too short, or fewer tokens than a passage has.
    """
    each = tokens // (ctx * max(1, len(texts)))
    if not texts or each < 1:
        raise UsageError(
            "query.calibrate.text", f"{tokens} tokens of {len(texts)} texts in passages of {ctx}"
        )
    found = []
    for text in texts:
        found += passages(loaded.tokens(text.text), loaded.prefix, ctx, each)
    return found


def statistics_of(
    loaded: Loaded,
    texts: Sequence[Text],
    tokens: int,
    ctx: int,
    step: Callable[[], None] = lambda: None,
) -> Statistics:
    """Moments of keys and queries over passages of these texts."""
    from kakeya_fast.hf.calibrate import statistics

    some = passages_of(loaded, texts, tokens, ctx)
    return statistics(loaded.model, [list(p.ids) for p in some], step)


def calibrated(
    loaded: Loaded,
    texts: Sequence[Text],
    *,
    frame: int,
    tokens: int,
    ctx: int,
    context: int,
    step: Callable[[], None] = lambda: None,
    found: Statistics | None = None,
    **options: float,
) -> KeyTables:
    """Tables for frames of that many tokens; the texts' hashes are kept with them.

    Parameters
    ----------
    found : Statistics, optional
        Moments that are at hand already.
    options
        As of :func:`kakeya_fast.hf.calibrate.tables`: ``near``, ``far``, ``ridge``, ``span``.
    """
    from kakeya_fast.hf.calibrate import tables

    if found is None:
        found = statistics_of(loaded, texts, tokens, ctx, step)
    made = tables(loaded.model, found, frame=frame, context=context, **options)
    about = {"texts": {t.name: t.sha256 for t in texts}, "ctx": ctx, **options}
    return replace(made, made=made.made | about)
