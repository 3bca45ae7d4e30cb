"""What a plan saves over one codec everywhere: ``python -m benchmarks.plans [--model M]``.

Makes the plans of each model from measurements on one text, and compares them on another with the
uniform settings. Writes ``results/plans/``: the measurements, the plans, the comparison, a page.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kakeya_fast.quality.models import load_model
from kakeya_fast.quality.planning import CANDIDATES, describe, sensitivity
from kakeya_fast.quality.protocol import Setting
from kakeya_fast.quality.run import run
from kakeya_fast.quality.texts import load_text

HERE = Path(__file__).parent.parent
RESULTS = Path("benchmarks") / "results" / "plans"
PLANNED_ON, REPORTED_ON = "workshop", "manual"
BUDGETS = {"smollm2-135m": (2.625,), "gemma3-270m": (2.53125,)}
UNIFORM = ("trellis", "trellis:b=3", "trellis:b=3/trellis")
CTX, PASSAGES = 1024, 16
TOGETHER = {"smollm2-135m": 2, "gemma3-270m": 1}
PROBE_CTX, PROBED, PROBE_AT = 384, 1, ("trellis",)


def main() -> None:
    """Measure, plan, compare; what is there is not run again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(BUDGETS), help="only this model")
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--render", action="store_true", help="only the page, from what is there")
    args = parser.parse_args()
    for model in [args.model] if args.model else sorted(BUDGETS):
        if not args.render:
            compare(model, args.passages, args.device, args.workers)
        render(model)


def compare(model: str, passages: int, device: str, workers: int) -> None:
    """One model: its plans, then plans and uniform settings on the other text."""
    (HERE / RESULTS).mkdir(parents=True, exist_ok=True)
    loaded = load_model(model, device=device)
    found = sensitivity(
        loaded,
        load_text(PLANNED_ON),
        {"k": PROBE_AT, "v": PROBE_AT},
        ctx=PROBE_CTX,
        count=PROBED,
        together=TOGETHER[model],
        out=RESULTS / f"{model}-probes.json",
        workers=workers,
    )
    settings = [Setting.parse(text) for text in UNIFORM]
    for budget in BUDGETS[model]:
        plan, chosen = found.plan(budget, {"k": CANDIDATES, "v": CANDIDATES})
        path = RESULTS / f"{model}-{budget}.toml"
        about = {"model": model, "text": PLANNED_ON} | describe(chosen, found.shapes)
        path.write_text(plan.text(about), "utf-8")
        settings.append(Setting.parse(f"trellis@plan={path.as_posix()}"))
    run(
        loaded,
        load_text(REPORTED_ON),
        settings,
        ctx=CTX,
        count=passages,
        out=RESULTS / f"{model}.json",
        any_commit=True,
        workers=workers,
    )


def saved(row: dict[str, Any], uniform: Sequence[dict[str, Any]]) -> float:
    """Bits that K = V = b would need more for the same KL: log KL between whole b is a line."""
    points = sorted((r["page_bits"], math.log(r["kl"]["mean"])) for r in uniform)
    want = math.log(row["kl"]["mean"])
    pairs = list(itertools.pairwise(points))
    low, high = next((p for p in pairs if p[1][1] <= want), pairs[-1])
    share = (want - low[1]) / (high[1] - low[1])
    return low[0] + share * (high[0] - low[0]) - row["page_bits"]


def render(model: str) -> None:
    """The page of a model, from its result file."""
    data = json.loads((HERE / RESULTS / f"{model}.json").read_text("utf-8"))
    rows = data["summary"]
    uniform = [r for r in rows if r["k"] == r["v"] and "plan=" not in r["setting"]]
    lines = [
        f"# Plans: {model}",
        "",
        f"Planned on {PLANNED_ON} ({PROBED} passage of {PROBE_CTX}, one rate, {TOGETHER[model]} "
        f"layers at a time); reported on {REPORTED_ON}: "
        f"{rows[0]['passages']} passages of {CTX} tokens, in-forward, 4 exact sinks, 95 % "
        "intervals over passages. *Saved* is how many bits more K = V = b needs for the same KL, "
        "on the line of log KL between its whole b.",
        "",
        "| setting | page bits | KL [95 %] | ΔPPL % | saved bits |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        kl, name = r["kl"], r["setting"].replace(f"trellis@plan={RESULTS.as_posix()}/", "plan ")
        gain = "" if r in uniform else f"{saved(r, uniform):+.2f}"
        span = f"{kl['mean']:.4f} [{kl['low']:.4f}, {kl['high']:.4f}]"
        lines.append(
            f"| {name} | {r['page_bits']:.3f} | {span} "
            f"| {r['dppl_percent']['mean']:+.2f} | {gain} |"
        )
    (HERE / RESULTS / f"{model}.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
