"""Commands in processes of their own, with a time limit and the end of what they said."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

NO_GPU = 3
TIMED_OUT = 124
TAIL = 1500


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    code: int
    seconds: float
    tail: str


def command(words: Sequence[str], seconds: float) -> Outcome:
    """Run to the end or to the limit; exit code 124 says that the limit came first."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, said = TIMED_OUT, (late.stdout or b"").decode("utf-8", "replace")
    return Outcome(code, time.monotonic() - begun, said[-TAIL:])


def python(words: Sequence[str], seconds: float) -> Outcome:
    """:func:`command` with this interpreter."""
    return command((sys.executable, *words), seconds)


def no_gpu(why: Exception) -> int:
    """Say that there is none, and why; the exit code of a benchmark that needs one."""
    print(f"no GPU that the CUDA backend can use: {why}", file=sys.stderr)
    return NO_GPU
