"""The lineage page: its figures by hand, and that the committed one is what the files say."""

import json
import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from benchmarks.lineage_render import RESULTS
from benchmarks.standard.markdown import wrapped
from benchmarks.story import layers as story_layers
from benchmarks.story import page as story
from benchmarks.story.facts import against_singles, fate, interval_of, tally, versus

COLUMNS = ["setting", "passage", "start", "tokens", "base_nll", "dnll", "kl", "agree"]


def report(kls, bits, **more):
    """A report: KL per token of every setting in each passage."""
    scores = [
        [s, p, 0, 10, 0.0, 0.0, 10 * x, 5] for s, found in kls.items() for p, x in enumerate(found)
    ]
    summary = [
        {
            "setting": s, "k": s.partition("@")[0], "v": s.partition("@")[0], "page_tokens": 32,
            "page_bits": bits[s],
            "kl": {"mean": sum(kls[s]) / len(kls[s]), "low": None, "high": None},
        }
        for s in kls
    ]  # fmt: skip
    model = {"layers": 1}
    return {"columns": COLUMNS, "scores": scores, "summary": summary, "model": model, **more}


LINE = {"scalar:b=2": [0.4, 0.8], "scalar": [0.025, 0.05]}
BITS = {"scalar:b=2": 2.0, "scalar": 4.0}


def test_a_codec_is_held_against_scalar_of_its_own_size():
    """Half way in bits, a KL between: 0.4 and 0.025 have the geometric mean 0.1."""
    kls = LINE | {"e8:q=3": [0.05, 0.1], "e8:q=2": [0.4, 0.8], "e8:q=15": [0.1, 0.01]}
    bits = BITS | {"e8:q=3": 3.0, "e8:q=2": 2.5, "e8:q=15": 5.0}
    found = versus(report(kls, bits))
    assert found["scalar"].factor == pytest.approx(1)
    assert found["e8:q=3"].factor == pytest.approx(0.5)
    assert found["e8:q=3"].verdict == "better"
    assert found["e8:q=2"].factor == pytest.approx(2)
    assert found["e8:q=2"].verdict == "worse"
    # Past the end of the line it is flat; no better than fewer bits is worse.
    assert found["e8:q=15"].beyond
    assert not found["e8:q=3"].beyond
    assert found["e8:q=15"].factor == pytest.approx(math.sqrt(0.1 / 0.025 * 0.01 / 0.05))
    assert found["e8:q=15"].low < 1 < found["e8:q=15"].high
    assert found["e8:q=15"].verdict == "worse"
    assert found["scalar"].verdict == "even"
    three = [found[s] for s in ("e8:q=3", "e8:q=2", "scalar")]
    assert tally(three) == "better in 1 of 3, even in 1 of 3, worse in 1 of 3"
    assert fate(three) == "neither stands nor falls"
    assert fate(three[:1]) == "stands"
    assert fate(three[1:2] * 2 + three[:1]) == "falls"


def test_one_passage_gives_no_verdict():
    kls = {s: found[:1] for s, found in LINE.items()} | {"e8:q=3": [0.001]}
    [v] = [v for s, v in versus(report(kls, BITS | {"e8:q=3": 3.0})).items() if s == "e8:q=3"]
    assert v.verdict == "open"
    assert interval_of(v) == "0.01"


def test_exact_layers_count_sixteen_bits():
    kls = LINE | {"scalar:b=2@exact=0": [0.05, 0.1]}
    bits = BITS | {"scalar:b=2@exact=0": 2.0}
    found = versus(report(kls, bits, full_layers=[0, 1, 2, 3, 4, 5, 6]))
    assert found["scalar:b=2@exact=0"].bits == (6 * 2 + 16) / 7 == 4
    assert found["scalar:b=2@exact=0"].factor == pytest.approx(2)


def test_depth_against_the_sum_of_single_layers():
    """Layers 5, 11 and 17 alone do 1, 2 and 4; together twice their sum."""

    def row(coded, kl, **more):
        facts = {"codec": "turbo", "protocol": "inforward", "coded": coded}
        return facts | {"kl": {"mean": kl}} | more

    layers = {"summary": [row([n], x, kind="single") for n, x in ((5, 1.0), (17, 4.0), (11, 2.0))]}
    layers["summary"].append(row([5, 11, 17], 99.0, kind="all"))
    depth = {"summary": [row(1, 1.0), row(2, 6.0), row(3, 14.0), row(2, 1.0, codec="e8")]}
    assert against_singles(depth, layers) == {("turbo", "inforward"): {2: 2.0, 3: 2.0}}


def test_paragraphs_are_wrapped_and_tables_are_not():
    lines = ["# Head", "", "one two", "three", "| a | b |", "* item", "", "last"]
    assert wrapped(lines, 8) == "# Head\n\none two\nthree\n| a | b |\n* item\n\nlast\n"


def test_the_committed_page_is_what_the_files_say():
    page = (RESULTS / "LINEAGE.md").read_text("utf-8")
    assert page == wrapped(story.Story(RESULTS.parent).page())
    for name in ("LINEAGE-rates.png", "LINEAGE-layers.png"):
        assert f"]({name})" in page
        assert 1000 < (RESULTS / name).stat().st_size < 100_000


def test_every_claim_has_a_section_and_a_verdict():
    page = story.Story(RESULTS.parent).page()
    heads = [i for i, line in enumerate(page) if line.startswith("## ")]
    assert [page[i] for i in heads] == [
        "## Two wrong scales",
        "## Lattice against scalar, at equal true bits",
        "## Principal components against a fixed rotation",
        "## Guardrails",
        "## Do errors compound from layer to layer?",
        "## Boundary layers kept exact",
        "## The headline ratios",
    ]
    bold = [any("**The claim " in line for line in page[i : i + 4]) for i in heads]
    assert all(bold)
    assert [each.head for each in story.Story(RESULTS.parent).sections()] == [
        page[i].removeprefix("## ") for i in heads
    ]


@pytest.mark.parametrize(
    ("ratios", "word"), [([1.1, 0.9], "add up"), ([1.1, 3.0], "in part"), ([40.0], "stands")]
)
def test_the_verdict_on_compounding_follows_the_figures(ratios, word):
    assert word in story_layers.verdict(ratios)


def test_result_files_name_what_made_them():
    for path in sorted(RESULTS.glob("*.json")):
        data = json.loads(path.read_text("utf-8"))
        assert data["environment"]["commit"], path.name
        assert data["model"]["sha256"], path.name
        assert data["text"]["sha256"], path.name
