"""The lineage on one page: ``python -m benchmarks.story`` writes ``results/lineage/LINEAGE.md``.

Every figure comes from the result files of ``benchmarks.lineage``, ``.quality`` and ``.standard``;
nothing is measured. A verdict is a function of the figures beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.lineage_render import RESULTS, measured_passages
from benchmarks.standard.bytes import baseline, contexts_of, historic, measured
from benchmarks.standard.markdown import k, table, wrapped
from benchmarks.story.codecs import components, guardrails, lattices, scales
from benchmarks.story.draw import draw_rates, draw_sweeps
from benchmarks.story.facts import Results, Section, prose
from benchmarks.story.layers import boundary, compounding

MODELS = ("smollm2-135m", "gemma3-270m")
TEXTS = ("manual", "workshop")
READ = {"workshop": "prose", "repeated": "one paragraph repeated"}


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

    def lineage(self, part: str) -> Results:
        """One part of ``benchmarks.lineage``, by model."""
        found = {m: self.read(f"lineage/{part}-{m}") for m in MODELS}
        return {m: data for m, data in found.items() if data is not None}

    def sections(self) -> list[Section]:
        """Every claim."""
        codecs, layers = self.lineage("codecs"), self.lineage("layers")
        quality = {}
        for model in MODELS:
            for text in TEXTS:
                data = self.read(f"quality/{model}-{text}")
                if data:
                    head = f"{model}, {text}, {data['protocol']['passages']} passages"
                    quality[head] = data
        return [
            scales(self.lineage("stages")),
            lattices(quality),
            components(codecs),
            guardrails(codecs),
            compounding(layers, self.lineage("depth")),
            boundary(codecs, layers),
            self._ratios(),
        ]

    def page(self) -> list[str]:
        """The whole page."""
        sections = self.sections()
        return [
            "# What stands of the lineage",
            "",
            prose(
                """This project began from a line of public codecs: a skeleton of principal
                components and centres, then the same with a rotated residual (here `skeleton` and
                `turbo`), then lattices (`d4`, `e8`). Their central claims, measured again with
                real bytes on real text. *KL over scalar's* is the KL of a codec over that of
                plain `scalar` codes interpolated at the same true bits: below 1 the codec is
                better; a star: over the finest scalar code measured, which is smaller. Means over
                passages are geometric, intervals are Student's at 95 %."""
            ),
            "",
            *summary(sections),
            "",
            *self._setup(),
            "",
            *(line for each in sections for line in each.markdown()),
        ]

    def _setup(self) -> Iterator[str]:
        for part in ("codecs", "depth", "layers"):
            for model, data in self.lineage(part).items():
                p = data["protocol"]
                yield prose(
                    f"""* {part}, {model}: {measured_passages(data)} passages of {p["ctx"]} tokens
                    of {data["text"]["name"]}, counted from token {p["warmup"]} on, where the
                    first page is read; {data["model"]["dtype"]} on
                    {data["model"].get("device", "cpu")}; uncompressed PPL
                    {data["summary"][0]["base_ppl"]:.2f}; commit {data["environment"]["commit"]}."""
                )

    def _ratios(self) -> Section:
        rows, told = [], []
        for model in MODELS:
            found = {text: self.read(f"standard/{model}-{text}") for text in READ}
            ratios = {}
            for text, data in found.items():
                if data is None:
                    continue
                tokens = contexts_of(data, "skeleton")[-1]
                base, said = baseline(data, tokens).total, historic(data, tokens)
                true = [measured(data, s, tokens).total for s in ("skeleton", "turbo", "scalar")]
                ratios[text] = [base / x for x in (said.projected, said.exact, *true)]
                cells = [f"{x:.2f}" for x in ratios[text]]
                rows.append([f"{model}, {READ[text]}", k(tokens), *cells])
            if len(ratios) == len(READ):
                told.append((model, ratios["repeated"][0], ratios["workshop"][2]))
        reached = [true >= said for _, said, true in told]
        fate = "stands" if all(reached) else "stands in part" if any(reached) else "falls"
        each = "; ".join(f"{m} {said:.2f} and {true:.2f}" for m, said, true in told)
        head = ["text", "tokens", "skeleton, as once projected", "as once stored",
                "skeleton, true", "turbo, true", "scalar:b=4, true"]  # fmt: skip
        return Section(
            "The headline ratios",
            "The skeleton shrinks the cache as far as its headlines said",
            fate,
            prose(
                f"""Ratio as a headline had it, projected on a repeated paragraph, and true on
                prose: {each}. The projection halved 8-byte indices where a format packs them, and
                shared one basis among heads; the paragraph lowered the ranks."""
            ),
            [
                "Whole cache against bf16, at the longest context measured. "
                "[How](../../STANDARD.md), [all contexts](../standard/cross-model.md).",
                "",
                *table(head, rows),
            ],
        )


def summary(sections: list[Section]) -> list[str]:
    """All claims in a table."""
    return table(["claim", "verdict"], [[each.claim, each.fate] for each in sections])
