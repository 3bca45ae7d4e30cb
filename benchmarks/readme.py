"""Write the generated parts of ``README.md`` from the registry and committed result files.

``python -m benchmarks.readme`` rewrites them, ``--check`` only compares (exit code 1 when a
number in the README is not the one in the file it cites).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.damage.rates import gain
from benchmarks.damage.targets import by_setting, of_both
from benchmarks.plans import summary as summary_of_plans
from benchmarks.readme_gpu import gpu
from benchmarks.story.page import Story, summary
from kakeya_fast.quality.protocol import Setting
from kakeya_fast.quality.table import cells, explicit
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import codec_ids, is_resolved, parse_codec, registry, spelled
from kakeya_ref.types import Codec

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Those without a report have no column.
BACKENDS = ("ref", "numba", "torch", "cuda-host", "cuda")
KIVI = "int:b=2,g=32,axis=channel/int:b=2,g=32"
SHOWN = (
    "fp8", "int", "scalar:b=4", "scalar:b=3", "scalar:b=2", "e8:q=10", "e8:q=4", "e8:q=2", KIVI,
    "trellis:b=3", "trellis:b=2", "query:b=4/trellis:b=4,gain=unbiased",
    "query:b=3/trellis:b=3,gain=unbiased", "query:b=2.5/trellis:b=2,gain=unbiased",
    "query:b=2/trellis:b=2,gain=unbiased",
)  # fmt: skip
COLUMNS = ("setting", "page bits", "held bits", "ΔPPL % [95 %]", "KL [95 %]", "top-1 %")
COMPARED = (
    "scalar:b=4/scalar:b=4", "query:b=3/trellis:b=3,gain=unbiased@moved", "scalar:b=3/scalar:b=3",
    KIVI, "query:b=3/trellis:b=2,gain=unbiased@moved",
    "query:b=2.5/trellis:b=2,gain=unbiased@moved", "query:b=2/trellis:b=2,gain=unbiased@moved",
    "scalar:b=2/scalar:b=2",
)  # fmt: skip
PICK = (0, 1, 2, 5, 6, 7)  # of the columns of kakeya_fast.quality.table


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Markdown lines."""
    lines = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def status() -> list[str]:
    """Codecs against the conformance reports of the backends."""
    paths = {b: RESULTS / "conformance" / f"{b}.json" for b in BACKENDS}
    reports = {b: load(path) for b, path in paths.items() if path.exists()}
    rows = []
    for codec_id in codec_ids():
        codec = parse_codec(codec_id)
        rules = registry()["codecs"][codec_id].get("params", {})
        full = ",".join(f"{n}={spelled(rules[n], v)}" for n, v in codec.params)
        rows.append(
            (
                f"[`{codec_id}`](spec/codecs/{codec_id}.md)",
                f"`{full}`" if full else "",
                bits(codec),
                registry()["codecs"][codec_id]["status"],
                *(verdict(report, codec_id) for report in reports.values()),
            )
        )
    runs: dict[str, list[str]] = {}
    for name, report in reports.items():
        how = (
            f"`--profile {report['profile']}`, suite {report['suite']}, manifest "
            f"{report['manifest']}, {report['cases']} cases"
        )
        runs.setdefault(how, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {how}" for how, names in runs.items())
    where = "[`benchmarks/results/conformance/`](benchmarks/results/conformance)"
    note = f"Conformance by `kakeya conform BACKEND`. {told}. Reports in {where}."
    return [
        *table(("codec", "defaults", "bits at D = 128", "status", *reports), rows),
        "",
        note,
    ]


def bits(codec: Codec) -> str:
    """Bits a number of a page; a codec that leaves its rank to a fit has no one rate."""
    if not is_resolved(codec):
        return "by fit"
    return f"{page_layout(codec, 128).bits_per_element:g}"


def verdict(report: dict[str, Any], codec_id: str) -> str:
    """``exact`` or ``bounded`` where the report covers the codec and has no failure."""
    if codec_id not in report["offers"] or report["exit_code"]:
        return "–"
    return str(report["backend_profile"])


def numbers() -> list[str]:
    """Quality of a few settings on each model and text, then speed."""
    out: list[str] = []
    for path in sorted((RESULTS / "quality").glob("*.json")):
        data = load(path)
        model, text, protocol = data["model"], data["text"], data["protocol"]
        wanted = {Setting.parse(s).codecs for s in SHOWN}
        picked = [r for r in data["summary"] if Setting.parse(r["setting"]).codecs in wanted]
        name = path.relative_to(ROOT)
        out += [
            f"**{model['name']}**, {text['name']} text, {protocol['passages']} passages of "
            f"{protocol['ctx']} tokens, {protocol['sinks']} exact sinks, uncompressed PPL "
            f"{picked[0]['base_ppl']:.2f} ([`{name}`]({name}), all settings in "
            f"[the table]({name.with_suffix('.md')})):",
            "",
            *table(COLUMNS, [tuple(cells(r)[i] for i in PICK) for r in picked]),
            "",
        ]
    return [*out, *speed()]


def calibrated() -> list[str]:
    """Both streams by ``scalar`` and by calibrated ``query`` with ``trellis``, side by side."""
    rows = []
    for path in sorted((RESULTS / "damage").glob("*-main.json")):
        data = load(path)
        found, scalar = of_both(by_setting(data))
        for name in COMPARED:
            row, more = found[name], ""
            if name not in scalar:
                more = "{:.2f} [{:.2f}, {:.2f}]".format(*gain(row, list(scalar.values())))
            rows.append((
                data["model"]["name"],
                f"`{name.partition('@')[0]}`",
                f"{row.mean_bits:.2f}",
                f"{row.loss.mean:.4f} [{row.loss.low:.4f}, {row.loss.high:.4f}]",
                f"{row.dppl:+.1f}",
                more,
                str(len(row.kl)),
            ))  # fmt: skip
    header = (
        "model", "keys/values", "true bits", "KL [95 %]", "ΔPPL %", "bits below `scalar` [95 %]",
        "passages",
    )  # fmt: skip
    return [
        "In-forward, all attention layers, 4 exact sinks, passages of 1024 tokens of a text that "
        "no table has seen; *below `scalar`*: what that codec needs more for the same KL "
        "([all rows, targets, 8k, foreign text, what lost](benchmarks/results/damage/DAMAGE.md)):",
        "",
        *table(header, rows),
        "",
        *planned(),
    ]


def planned() -> list[str]:
    """What a plan saves over one pair of codecs for all layers."""
    rows = []
    for path in sorted((RESULTS / "plans").glob("*.json")):
        found = summary_of_plans(load(path))
        uniform = [r for r in found if not r.name.startswith("plan")]
        for r in found:
            if r.name.startswith("plan"):
                kl, (bits, low, high) = r.loss, gain(r, uniform)
                rows.append((
                    path.stem,
                    f"{r.mean_bits:.2f}",
                    f"{kl.mean:.4f} [{kl.low:.4f}, {kl.high:.4f}]",
                    f"{r.dppl:+.1f}",
                    f"{bits:.2f} [{low:.2f}, {high:.2f}]",
                    str(len(r.kl)),
                ))  # fmt: skip
    header = ("model", "true bits", "KL [95 %]", "ΔPPL %", "bits saved [95 %]", "passages")
    return [
        "The same with a plan of layers and streams (`kakeya plan`); *saved* is what one pair of "
        "codecs for all layers needs more for the same KL ([all settings]"
        "(benchmarks/results/plans)):",
        "",
        *table(header, rows),
    ]


def lineage() -> list[str]:
    """Verdicts on the claims of the predecessors, and where the figures are."""
    sections = Story(RESULTS).sections()
    page = "benchmarks/results/lineage/LINEAGE.md"
    return [*summary(sections), "", f"Figures, losses and pictures: [one page]({page})."]


def speed() -> list[str]:
    """The fast backends on large batches, as shares of a memory copy, and the targets missed."""
    path = RESULTS / "speed-cpu.json"
    data, name = load(path), path.relative_to(ROOT)
    wanted = {str(Setting.parse(s)) for s in SHOWN}
    rows = [
        (
            row["backend"],
            f"`{explicit({'k': row['codec'], 'v': row['codec']})}`",
            *(
                f"{row[w]['median']:.2f} ({row[w]['median'] / row['copy']['median']:.0%})"
                for w in ("encode", "decode")
            ),
        )
        for row in data["rows"]
        if row["shape"] == "large" and row["d"] == 128 and row["codec"] in wanted
    ]
    shares = [t for t in data["targets"] if t["what"].endswith("copy")]
    times = [t["measured"] for t in data["targets"] if t["what"].endswith("reference")]
    where = data["machine"]
    met = sum(t["met"] for t in shares)
    verdict = "met" if min(times) >= 50 else "missed"
    return [
        f"**Speed**, GB/s of fp32 vectors at D = 128 and share of a one-thread memory copy, "
        f"{where['cores']} cores, {where['cpu']}. Targets: {met} of {len(shares)} against the copy "
        f"met; 50 times the reference {verdict}, at {min(times):.0f} to {max(times):.0f} times "
        f"([`{name}`]({name}), [all rows and targets]({name.with_suffix('.md')})):",
        "",
        *table(("backend", "codec", "encode", "decode"), rows),
    ]


def load(path: Path) -> dict[str, Any]:
    """A result file."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def render(text: str) -> str:
    """README with its generated parts made anew."""
    parts = {
        "calibrated": calibrated,
        "status": status,
        "gpu": lambda: gpu(RESULTS),
        "lineage": lineage,
        "numbers": numbers,
    }
    for part, make in parts.items():
        mark = re.compile(rf"(<!-- generated: {part} .*?-->\n).*?(<!-- end -->)", re.DOTALL)
        body = "\n".join(make()).rstrip() + "\n"
        text, hits = mark.subn(lambda m, b=body: m[1] + b + m[2], text)
        if hits != 1:
            raise SystemExit(f"README.md has {hits} places for {part!r}, want 1")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, never write")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    old = readme.read_text("utf-8")
    new = render(old)
    if args.check:
        raise SystemExit(0 if new == old else "README.md is not what the result files say")
    readme.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
