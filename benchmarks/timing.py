"""The clock of the benchmarks: interleaved samples, medians and percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Spread:
    """Seconds of one thing measured several times."""

    p20: float
    median: float
    p80: float
    samples: int


def race(
    runners: Mapping[str, Callable[[], object]],
    clock: Callable[[], float],
    min_seconds: float,
    min_samples: int,
) -> dict[str, Spread]:
    """Time several things in turn, round after round, until there is enough of each.

    Interleaving lets a disturbance of the machine fall on all of them alike, so that their
    ratios mean more than their times.

    Parameters
    ----------
    runners
        Each is called once untimed first: compilation, page faults and caches are not counted.
    clock
        ``CLOCKS["wall"]``, or ``CLOCKS["cpu"]``: time this process held a core, which other work
        on the machine stretches little; of use with one thread only.
    min_seconds
        Total time of the rounds, at least.
    min_samples
        Rounds, at least.
    """
    for run in runners.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    began = clock()
    rounds = 0
    while rounds < min_samples or clock() - began < min_seconds:
        for name, run in runners.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
        rounds += 1
    return {name: _spread(values) for name, values in seconds.items()}


def _spread(values: list[float]) -> Spread:
    p20, median, p80 = (float(v) for v in np.percentile(values, [20, 50, 80]))
    return Spread(p20, median, p80, len(values))
