"""Running a report: passages outside, settings inside, stored after every group of settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.protocol import DEFAULTS, Options, measure_passage
from kakeya_fast.quality.report import Report, describe_text
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.texts import Text, load_text, passages
from kakeya_fast.quality.workers import measure
from kakeya_ref.errors import UsageError

# Settings that share one uncompressed forward; a cache of each is held meanwhile.
AT_ONCE = 8


def run(
    loaded: Loaded,
    text: Text,
    settings: Sequence[Setting],
    *,
    ctx: int,
    count: int,
    options: Options = DEFAULTS,
    out: Path | None = None,
    any_commit: bool = False,
    workers: int = 1,
    step: Callable[[], None] = lambda: None,
) -> Report:
    """Report of all settings on ``count`` passages of ``ctx`` tokens.

    With ``out`` it is written after every passage and group of settings, and a run of the same
    kind found there is continued (see :meth:`Report.resume` on ``any_commit``). With ``workers``
    above 1 that many processes share the work. ``step`` is called once per forward pass; there
    are :func:`steps` of them.

    Raises
    ------
    UsageError
        Text or context too short; a metric from the text that is measured
        (``quality.metric.leak``).
    """
    ids = loaded.tokens(text.text)
    windows = passages(ids, loaded.prefix, ctx, count)
    report = Report.start(loaded, text, len(ids), settings, ctx, count, options)
    sources = {s.metric: load_text(s.metric) for s in settings if s.metric}
    for name, source in sources.items():
        if source.sha256 == text.sha256:
            raise UsageError("quality.metric.leak", f"{name} cannot be its own calibration")
    report.metrics = [describe_text(source) for source in sources.values()]
    for name in {s.tables for s in settings if s.tables}:
        _refuse_leak(name, text)
    done = report.resume(out, any_commit=any_commit) if out else set()
    metrics = {}
    if len(done) < len(settings) * count:
        from kakeya_fast.quality.metric import query_metric

        metrics = {name: query_metric(loaded, source) for name, source in sources.items()}
    jobs, size = [], AT_ONCE
    if workers > 1:
        # Small enough that no process is left with the last large group.
        size = min(size, max(1, (len(settings) * count - len(done)) // (2 * workers)))
    for passage in windows:
        left = [s for s in settings if (str(s), passage.index) not in done]
        for _ in range(steps(ctx, 1, len(settings), options) - steps(ctx, 1, len(left), options)):
            step()
        jobs += [(passage, left[at : at + size]) for at in range(0, len(left), size)]
    if workers > 1 and jobs:
        found = measure(loaded, jobs, options, metrics, workers, step)
    else:
        found = (
            measure_passage(loaded.model, *job, options, metrics=metrics, step=step) for job in jobs
        )
    for scores in found:
        report.scores += scores
        if out:
            report.write(out)
    return report


def _refuse_leak(tables: str, text: Text) -> None:
    from kakeya_fast.hf import load_tables

    if text.sha256 in load_tables(tables).made.get("texts", {}).values():
        raise UsageError("quality.metric.leak", f"{tables} was calibrated on {text.name}")


def steps(ctx: int, count: int, settings: int, options: Options) -> int:
    """Forward passes of a run."""
    return -(-ctx // options.chunk) * count * (settings + -(-settings // AT_ONCE))
