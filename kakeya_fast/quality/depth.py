"""Damage against depth: the first ``k`` layers coded, the rest exact.

If errors added up, damage would grow with the number of coded layers and no faster; if they
compounded, a codec that is harmless in every single layer could still ruin the model. Both
protocols tell it apart: under snapshot no stored number is damaged twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kakeya_fast.quality.capture import full_layers
from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.protocol import DEFAULTS, PARTS, Options
from kakeya_fast.quality.report import write_json
from kakeya_fast.quality.run import run
from kakeya_fast.quality.setting import Protocol, Setting
from kakeya_fast.quality.table import explicit
from kakeya_fast.quality.texts import Text
from kakeya_ref.errors import UsageError

FORMAT = "kakeya-depth/1"
PROTOCOLS: dict[str, tuple[Protocol, ...]] = {
    "inforward": ("inforward",),
    "snapshot": ("snapshot",),
    "both": ("inforward", "snapshot"),
}


@dataclass(frozen=True)
class Arm:
    """One measurement: a setting, how it is called, and what it stands for."""

    setting: Setting
    name: str
    facts: dict[str, Any]


def depth_arms(
    settings: Sequence[Setting], full: Sequence[int], counts: Sequence[int], protocol: str
) -> list[Arm]:
    """First ``k`` full-attention layers coded, for every ``k`` of ``counts``.

    Raises
    ------
    UsageError
        A count beyond the number of layers (``depth.count.range``) or an unknown protocol.
    """
    if any(not 1 <= k <= len(full) for k in counts):
        raise UsageError("depth.count.range", f"{list(counts)} of {len(full)} layers")
    return [
        Arm(
            # One coded layer sees clean keys and values anyway: both protocols are one.
            replace(setting, exact=tuple(full[k:]), protocol=how if k > 1 else "inforward"),
            f"first {k}",
            {**named(setting), "protocol": how, "coded": k},
        )
        for setting in settings
        for how in protocols(protocol)
        for k in sorted(set(counts))
    ]


def depth(
    loaded: Loaded,
    text: Text,
    settings: Sequence[Setting],
    *,
    counts: Sequence[int] = (),
    protocol: str = "both",
    ctx: int,
    passages: int,
    options: Options = DEFAULTS,
    out: Path | None = None,
    any_commit: bool = False,
    workers: int = 1,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Report with a summary row for every setting, protocol and number of coded layers.

    Parameters
    ----------
    counts : numbers of coded layers; empty for :func:`doubling`.
    protocol : ``inforward``, ``snapshot`` or ``both``
    out : Path, optional
        Written after every unit of work, and continued if it is there.

    Raises
    ------
    UsageError
        See :func:`depth_arms` and :func:`kakeya_fast.quality.run.run`.
    """
    full = full_layers(loaded.model)
    arms = depth_arms(settings, full, counts or doubling(len(full)), protocol)
    data = measure(loaded, text, arms, ctx, passages, options, out, any_commit, workers, step)
    data["format"] = FORMAT
    if out:
        write_json(data, out)
    return data


def measure(
    loaded: Loaded,
    text: Text,
    arms: Sequence[Arm],
    ctx: int,
    passages: int,
    options: Options,
    out: Path | None,
    any_commit: bool,
    workers: int,
    step: Callable[[], None],
) -> dict[str, Any]:
    """A quality report whose summary rows carry the facts of their arms."""
    settings = list(dict.fromkeys(arm.setting for arm in arms))
    report = run(
        loaded,
        text,
        settings,
        ctx=ctx,
        count=passages,
        options=options,
        out=out,
        any_commit=any_commit,
        workers=workers,
        step=step,
    )
    rows = {row["setting"]: row for row in report.summary()}
    data = report.as_dict()
    # These are in the file once already.
    left_out = {f"{part}_bytes" for part in PARTS}
    data["summary"] = [
        {"name": arm.name, **arm.facts}
        | {k: v for k, v in rows[str(arm.setting)].items() if k not in left_out}
        for arm in arms
    ]
    return data


def named(setting: Setting) -> dict[str, str]:
    """A setting without the layers that are swept: its string, and how it is shown."""
    bare = replace(setting, exact=(), protocol="inforward")
    row = {"k": bare.k, "v": bare.v, "setting": str(bare), "page_tokens": bare.page_tokens(0)}
    return {"codec": str(bare), "label": explicit(row)}


def doubling(layers: int) -> list[int]:
    """1, 2, 4, … and all layers.

    Examples
    --------
    >>> doubling(30), doubling(3)
    ([1, 2, 4, 8, 16, 30], [1, 2, 3])
    """
    found = []
    k = 1
    while k < layers:
        found.append(k)
        k *= 2
    return [*found, layers]


def protocols(name: str) -> tuple[Protocol, ...]:
    """Protocols of a name.

    Raises
    ------
    UsageError
    """
    if name not in PROTOCOLS:
        raise UsageError("quality.protocol.known", f"{name!r}: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
