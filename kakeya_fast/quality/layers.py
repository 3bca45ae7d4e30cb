"""One layer coded at a time: which layers a codec hurts, and whether the damages add up.

From the single layers follows an advice: for a given number of exact layers, those whose coding
hurts most on its own. It is checked by measuring it, and beside it the choices that need no
measurement: the first layers, the last, and both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kakeya_fast.quality import stats
from kakeya_fast.quality.capture import full_layers
from kakeya_fast.quality.depth import Arm, measure, named, protocols
from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.protocol import DEFAULTS, Options
from kakeya_fast.quality.report import write_json
from kakeya_fast.quality.run import steps
from kakeya_fast.quality.setting import Setting, ranges
from kakeya_fast.quality.texts import Text
from kakeya_ref.errors import UsageError

FORMAT = "kakeya-layers/1"


def layers(
    loaded: Loaded,
    text: Text,
    settings: Sequence[Setting],
    *,
    exact: int,
    protocol: str = "inforward",
    ctx: int,
    passages: int,
    options: Options = DEFAULTS,
    out: Path | None = None,
    any_commit: bool = False,
    workers: int = 1,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Report with single layers, all together, their comparison, and choices of exact layers.

    Parameters
    ----------
    exact : int
        How many layers the advice may keep exact; 0 for no advice.
    protocol : ``inforward``, ``snapshot`` or ``both``
    out : Path, optional
        Written after every unit of work, and continued if it is there.

    Raises
    ------
    UsageError
        As many exact layers as there are, or more (``layers.exact.range``), and see
        :func:`kakeya_fast.quality.run.run`.
    """
    full = full_layers(loaded.model)
    if not 0 <= exact < len(full):
        raise UsageError("layers.exact.range", f"{exact} exact layers of {len(full)}")
    where = (ctx, passages, options, out, any_commit, workers, step)
    arms = single_arms(settings, full, protocol)
    data = measure(loaded, text, arms, *where)
    if exact:
        arms += choice_arms(settings, full, protocol, data["summary"], exact)
        data = measure(loaded, text, arms, *where)
    data["format"] = FORMAT
    data["sums"] = sums(data)
    if out:
        write_json(data, out)
    return data


def most_steps(
    settings: int, full: int, protocol: str, exact: int, ctx: int, passages: int, options: Options
) -> int:
    """Calls of ``step`` that a report makes at most: fewer where choices of layers coincide."""
    hows = len(protocols(protocol))
    single = settings * (full + hows)
    every = single + settings * hows * 4
    first = steps(ctx, passages, single, options)
    # The choices are a second run, which steps over what the first has measured.
    return first + (steps(ctx, passages, every, options) if exact else 0)


def single_arms(settings: Sequence[Setting], full: Sequence[int], protocol: str) -> list[Arm]:
    """Every full-attention layer coded alone, then all."""
    found = []
    for setting in settings:
        for how in protocols(protocol):
            for coded in [*((i,) for i in full), tuple(full)]:
                kept = tuple(i for i in full if i not in coded)
                alone = len(coded) == 1 < len(full)
                name, kind = (f"layer {coded[0]}", "single") if alone else ("all", "all")
                facts = {**named(setting), "protocol": how, "kind": kind, "coded": list(coded)}
                # One coded layer sees clean keys and values anyway: both protocols are one.
                as_run = "inforward" if len(coded) == 1 else how
                found.append(Arm(replace(setting, exact=kept, protocol=as_run), name, facts))
    return found


def choice_arms(
    settings: Sequence[Setting],
    full: Sequence[int],
    protocol: str,
    rows: Sequence[dict[str, Any]],
    exact: int,
) -> list[Arm]:
    """All layers coded but ``exact`` of them: the advised ones, and choices without measurement."""
    found = []
    for setting in settings:
        for how in protocols(protocol):
            codec = named(setting)["codec"]
            mine = [r for r in rows if (r["codec"], r["protocol"]) == (codec, how)]
            choices = {
                "advised": advice(mine, exact),
                "both ends": (*full[: -(-exact // 2)], *full[len(full) - exact // 2 :]),
                "first": tuple(full[:exact]),
                "last": tuple(full[len(full) - exact :]),
            }
            for why, kept in choices.items():
                facts = {**named(setting), "protocol": how, "kind": "choice", "exact": list(kept)}
                name = f"all but {ranges(kept)} ({why})"
                found.append(Arm(replace(setting, exact=kept, protocol=how), name, facts))
    return found


def advice(rows: Sequence[dict[str, Any]], exact: int) -> tuple[int, ...]:
    """The layers to keep exact: those of the largest KL when coded alone, ascending.

    Parameters
    ----------
    rows : summary rows of one codec and protocol

    Examples
    --------
    >>> kl = [1.0, 5.0, 3.0]
    >>> advice([{"kind": "single", "coded": [i], "kl": {"mean": x}} for i, x in enumerate(kl)], 2)
    (1, 2)
    """
    single = [r for r in rows if r["kind"] == "single"]
    worst = sorted(single, key=lambda r: -r["kl"]["mean"])[:exact]
    return tuple(sorted(r["coded"][0] for r in worst))


def sums(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Sum of the single layers against all together, per codec and protocol.

    KL and ΔNLL per token with their intervals over passages; ``ratio`` is that of the KLs, above 1
    where the damages of layers reinforce each other.
    """
    column = {name: i for i, name in enumerate(data["columns"])}
    found = []
    groups = dict.fromkeys((row["codec"], row["protocol"]) for row in data["summary"])
    for codec, how in groups:
        rows = [r for r in data["summary"] if (r["codec"], r["protocol"]) == (codec, how)]
        single = {r["setting"] for r in rows if r["kind"] == "single"}
        together = next(r for r in rows if r["kind"] == "all")
        if not single:
            continue
        added: dict[str, Any] = {}
        for what in ("kl", "dnll"):
            per: dict[int, float] = {}
            counts: dict[int, int] = {}
            for score in data["scores"]:
                if score[column["setting"]] in single:
                    at = score[column["passage"]]
                    per[at] = per.get(at, 0.0) + score[column[what]]
                    counts[at] = score[column["tokens"]]
            added[what] = vars(stats.pooled(list(per.values()), [counts[i] for i in per]))
        found.append(
            {
                "codec": codec,
                "label": together["label"],
                "protocol": how,
                "singles": added,
                "together": {what: together[what] for what in ("kl", "dnll")},
                "ratio": together["kl"]["mean"] / added["kl"]["mean"],
            }
        )
    return found
