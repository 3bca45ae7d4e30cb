"""Running a report: passages outside, settings inside, stored after every passage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.protocol import DEFAULTS, Options, Setting, measure_passage
from kakeya_fast.quality.report import Report
from kakeya_fast.quality.texts import Text, passages


def run(
    loaded: Loaded,
    text: Text,
    settings: Sequence[Setting],
    *,
    ctx: int,
    count: int,
    options: Options = DEFAULTS,
    out: Path | None = None,
    step: Callable[[], None] = lambda: None,
) -> Report:
    """Report of all settings on ``count`` passages of ``ctx`` tokens.

    With ``out`` it is written after every passage, and a run of the same kind found there is
    continued. ``step`` is called once per forward pass; there are :func:`steps` of them.

    Raises
    ------
    UsageError
        Text or context too short.
    """
    ids = loaded.tokens(text.text)
    windows = passages(ids, loaded.prefix, ctx, count)
    report = Report.start(loaded, text, len(ids), settings, ctx, count, options)
    done = report.resume(out) if out else set()
    for passage in windows:
        if passage.index in done:
            for _ in range(steps(ctx, 1, len(settings), options)):
                step()
            continue
        report.scores += measure_passage(loaded.model, passage, settings, options, step=step)
        if out:
            report.write(out)
    return report


def steps(ctx: int, count: int, settings: int, options: Options) -> int:
    """Forward passes of a run."""
    return -(-ctx // options.chunk) * count * (1 + settings)
