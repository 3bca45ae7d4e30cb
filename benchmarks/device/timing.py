"""The clock of the GPU benchmark: CUDA events, cold caches, interleaved samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from benchmarks.timing import Spread

LEAST = 512 << 20  # a few hundred microseconds: longer than the host takes to queue a call


class Flush:
    """Writes more than the L2 cache holds, so that the next kernel starts cold.

    It also keeps the device busy while the host queues what is timed: events then measure the
    device alone, not the time between two launches.
    """

    def __init__(self, device: torch.device) -> None:
        l2 = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        self.buffer = torch.empty(max(4 * l2, LEAST), dtype=torch.uint8, device=device)

    def __call__(self) -> None:
        self.buffer.zero_()


def race(
    runners: Mapping[str, Callable[[], object]],
    before: Callable[[], None],
    *,
    min_seconds: float,
    min_samples: int,
    max_samples: int = 200,
) -> dict[str, Spread]:
    """Time several things in turn on the current stream; seconds on the device.

    Parameters
    ----------
    runners
        Each is called twice untimed first.
    before
        Called before each sample, not timed.
    min_seconds
        Wall time of all rounds, at least; ends earlier at ``max_samples`` rounds.
    """
    for run in (*runners.values(), *runners.values()):
        run()
    torch.cuda.synchronize()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    began, rounds = time.perf_counter(), 0
    while rounds < max_samples and (
        rounds < min_samples or time.perf_counter() - began < min_seconds
    ):
        for name, run in runners.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before()
            start.record()
            run()
            end.record()
            end.synchronize()
            seconds[name].append(start.elapsed_time(end) / 1e3)
        rounds += 1
    return {name: spread(values) for name, values in seconds.items()}


def spread(values: list[float]) -> Spread:
    """Median and percentiles of samples."""
    p20, median, p80 = (float(v) for v in np.percentile(values, [20, 50, 80]))
    return Spread(p20, median, p80, len(values))
