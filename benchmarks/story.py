"""The lineage on one page: ``python -m benchmarks.story`` writes ``results/lineage/LINEAGE.md``.

Every figure comes from the result files of ``benchmarks.lineage``, ``.quality`` and ``.standard``;
nothing is measured. A verdict is a function of the figures beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.lineage_render import RESULTS
from benchmarks.standard_bytes import baseline, contexts_of, historic, measured
from benchmarks.standard_markdown import k, table, wrapped
from benchmarks.story_draw import draw_rates, draw_sweeps
from benchmarks.story_facts import (
    VERSUS,
    Versus,
    cells,
    every,
    fate,
    interval_of,
    span,
    tally,
    versus,
)
from benchmarks.story_layers import boundary, compounding

MODELS = ("smollm2-135m", "gemma3-270m")
# Of the predecessor, one layer of one model: power SNR of keys at 3 bits, error and repair.
REPORTED = (10.1, 50.0)
ABOUT = {
    "scale": "residual scaled by √w once too often",
    "norm": "residual length lost in decoding",
}


def main() -> None:
    """Write the page and its plots."""
    story = Story(RESULTS.parent)
    (RESULTS / "LINEAGE.md").write_text(wrapped(story.page()), "utf-8")
    draw_rates(story.lineage("codecs"), RESULTS / "LINEAGE-rates.png")
    draw_sweeps(story.lineage("depth"), story.lineage("layers"), RESULTS / "LINEAGE-layers.png")


class Story:
    """Sections of the page from the files of a folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> dict[str, Any] | None:
        """A result file, if it is there."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def lineage(self, part: str) -> dict[str, dict[str, Any]]:
        """One part of ``benchmarks.lineage``, by model."""
        found = {m: self.read(f"lineage/{part}-{m}") for m in MODELS}
        return {m: data for m, data in found.items() if data is not None}

    def page(self) -> list[str]:
        """All sections."""
        return [
            "# What stands of the lineage",
            "",
            "This project began from a line of public codecs: a skeleton of principal components",
            "and",
            "centres, then the same with a rotated residual (here `skeleton` and `turbo`), then",
            "lattices",
            "(`d4`, `e8`). Their central claims, measured again with real bytes, on real text,",
            "in both",
            "protocols. *KL over scalar's* is the KL of a codec over that of plain `scalar` codes",
            "interpolated at the same true bits: below 1 the codec is better. Means are",
            "geometric, over",
            "passages. Files: [`results/lineage`](.), [`results/quality`](../quality),",
            "[`results/standard`](../standard).",
            "",
            *self._setup(),
            *self._bugs(),
            *self._lattice(),
            *self._skeleton(),
            *self._guards(),
            *compounding(self.lineage("layers"), self.lineage("depth")),
            *boundary(self.lineage("codecs"), self.lineage("layers")),
            *self._ratios(),
        ]

    def _setup(self) -> Iterator[str]:
        for model, data in self.lineage("codecs").items():
            p = data["protocol"]
            yield (
                f"* **{model}**: {p['passages']} passages of {p['ctx']} tokens of "
                f"{data['text']['name']} "
                f"for codecs, counted from token {p['warmup']} on, where the first page is read; "
                f"{data['model']['dtype']} on {data['model'].get('device', 'cpu')}; uncompressed "
                f"PPL {data['summary'][0]['base_ppl']:.2f}."
            )
        yield ""

    def _bugs(self) -> list[str]:
        places: dict[str, dict[str, float]] = {}
        lost, gains, gained = [], [], []
        for model, data in self.lineage("stages").items():
            for row in (r for r in data["rows"] if r["inject"]):
                good, bad = (_after(row[s])["snr"] for s in ("stages", "injected"))
                what = "keys" if row["stream"] == "k" else "values"
                place = places.setdefault(f"{model}, layer {row['layer']}, {what}", {"": good})
                place[row["inject"]] = bad
                lost.append(good / bad)
                for grown, bits in ((gains, "by_bits"), (gained, "injected_by_bits")):
                    grown.append(row[bits]["4"] / row[bits]["1"])
        wrong, right = REPORTED
        return [
            "## Two wrong scales",
            "",
            "`kakeya stages --inject` puts both historic errors back: "
            + "; ".join(f"`{name}`, {what}" for name, what in ABOUT.items())
            + ". Power SNR of `turbo:b=3` after the quantiser, as specified and with each. The "
            f"predecessor reported {wrong:g} before and {right:g} after it repaired the first, "
            "on keys "
            "of layer 5 of another model.",
            "",
            f"**Stands: the repair was one.** The errors cost a factor of {min(lost):.1f} to "
            f"{max(lost):.0f} in SNR. From 1 to 4 bits SNR grows {min(gains):.1f} to "
            f"{max(gains):.1f} "
            f"times as specified, and {min(gained):.1f} to {max(gained):.1f} times with an "
            "error: bits "
            "that do not help are how either would have shown at once.",
            "",
            *table(
                ["where", "SNR", *(f"with `{name}`" for name in ABOUT)],
                [[p, *(f"{found[n]:.1f}" for n in ("", *ABOUT))] for p, found in places.items()],
            ),
            "",
            *(
                f"![stages](stages-{m}.png) ![bits](stages-{m}-bits.png)"
                for m in self.lineage("stages")
            ),
            "",
        ]

    def _lattice(self) -> list[str]:
        cells: dict[str, dict[str, str]] = {}
        kinds: dict[str, list[Versus]] = {"d4": [], "e8": []}
        columns = []
        for model in MODELS:
            for text in ("manual", "workshop"):
                data = self.read(f"quality/{model}-{text}")
                if data is None:
                    continue
                columns.append(f"{model}, {text}, {data['protocol']['passages']} passages")
                for setting, v in versus(data).items():
                    kind = setting.partition(":")[0]
                    if kind in kinds and "/" not in setting:
                        kinds[kind].append(v)
                        cells.setdefault(v.label, {})[columns[-1]] = interval_of(v)
        low = [v for v in kinds["e8"] if v.bits < 3]
        fates = "; ".join(f"`{kind}` {fate(found)}" for kind, found in kinds.items())
        rows = [
            [f"`{label}`", *(found.get(c, "") for c in columns)] for label, found in cells.items()
        ]
        return [
            "## Lattice against scalar, at equal true bits",
            "",
            f"**{fates}.** `d4` is {tally(kinds['d4'])}; `e8` is {tally(kinds['e8'])}, and below "
            "3 bits "
            f"{tally(low)}, at {span(low)} of scalar's KL. What the predecessor took for the "
            "gain of "
            "the lattice came from comparing equal ranges, which are not equal bits. KL over "
            "scalar's, "
            "pages of 32 tokens:",
            "",
            *table(["codec", *columns], rows),
            "",
        ]

    def _skeleton(self) -> list[str]:
        rows, found = [], []
        for model, data in self.lineage("codecs").items():
            for setting, v in versus(data).items():
                if setting in FITTED:
                    found.append((setting, v))
                    rows.append([model, *cells(v)])
        if not rows:
            return []
        skeleton = [v for s, v in found if s == "skeleton"]
        turbo = [v for s, v in found if s.startswith("turbo")]
        return [
            "## Principal components against a fixed rotation",
            "",
            f"**Falls for `skeleton`{'' if every(skeleton, 'worse') else ' in part'}.** It is "
            f"{tally(skeleton)}: {span(skeleton)} times the KL of `scalar` at its size. "
            "`turbo` is "
            f"{tally(turbo)}, at {span(turbo)} times. Pages of 512 tokens for all, tables",
            "counted.",
            "",
            *table(VERSUS, rows),
            "",
            "![KL against true bits](LINEAGE-rates.png)",
            "",
        ]

    def _guards(self) -> list[str]:
        rows = []
        for model, data in self.lineage("codecs").items():
            found = versus(data)
            plain = found["turbo"]
            for setting, what in GUARDS.items():
                if setting in found:
                    v = found[setting]
                    change = v.factor / plain.factor
                    rows.append(
                        [
                            model,
                            what,
                            f"`{v.label}`",
                            f"{v.bits - plain.bits:+.2f}",
                            f"{v.kl['mean'] / plain.kl['mean']:.2f}",
                            f"{change:.2f}",
                        ]
                    )
        return [
            "## Guardrails",
            "",
            "What each adds to `turbo:b=3`. *At equal bits* divides both by the scalar line at",
            "their own",
            "sizes: above 1 the bits would have been better spent on a finer scalar code.",
            "",
            *table(["model", "guardrail", "setting", "bits", "KL ratio", "at equal bits"], rows),
            "",
        ]

    def _ratios(self) -> list[str]:
        rows = []
        for model in MODELS:
            for text, label in (("workshop", "prose"), ("repeated", "paragraph repeated")):
                data = self.read(f"standard/{model}-{text}")
                if data is None or "skeleton" not in data["runs"]:
                    continue
                tokens = contexts_of(data, "skeleton")[-1]
                base, said = baseline(data, tokens).total, historic(data, tokens)
                true = [measured(data, s, tokens).total for s in ("skeleton", "turbo", "scalar")]
                counts = (said.projected, said.exact, *true)
                rows.append([f"{model}, {label}", k(tokens), *(f"{base / x:.2f}" for x in counts)])
        head = ["text", "tokens", "skeleton as once projected", "as once stored", "skeleton, true",
                "turbo, true", "scalar:b=4, true"]  # fmt: skip
        return [
            "## The headline ratios",
            "",
            "Whole cache against bf16. A projection halved 8-byte indices, and the text",
            "repeated: see",
            "[STANDARD.md](../../STANDARD.md) and [across models](../standard/cross-model.md).",
            "",
            *table(head, rows),
        ]


FITTED = (
    "skeleton", "skeleton:time=none", "turbo:b=2", "turbo", "turbo:b=4", "turbo/turbo:b=2,share=1",
)  # fmt: skip
GUARDS = {
    "turbo:levels=own": "own levels",
    "turbo:cut=20": "outliers beyond 2.0",
    "turbo@metric=workshop": "query metric",
}


def _after(stages: list[dict[str, Any]]) -> dict[str, Any]:
    return next(s for s in stages if s["name"] == "quantiser")


if __name__ == "__main__":
    main()
