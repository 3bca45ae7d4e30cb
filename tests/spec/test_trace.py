"""The knot: spec, code, vectors, checks and tests name the same rules.

What a rule needs depends on its area. The longest prefix in ``NEEDS`` counts:
``cited`` a ``Rule:`` line or an error in kakeya_ref or kakeya_fast, ``code`` any mention there or
in the suite, ``vector`` a frozen case, ``check`` a conformance check, ``test`` a mention in tests/.
"""

from __future__ import annotations

import re

import pytest
import spectext
import tracing

NEEDS: dict[str, set[str]] = {
    # Bytes, encode, decode: everything.
    "page": {"cited", "vector", "check"},
    "num": {"cited", "vector", "check"},
    "signs": {"cited", "vector", "check"},
    "hadamard": {"cited", "vector", "check"},
    "rotation": {"cited", "vector", "check"},
    "scale": {"cited", "vector", "check"},
    "raw": {"cited", "vector", "check"},
    "fp8": {"cited", "vector", "check"},
    "int": {"cited", "vector", "check"},
    "scalar": {"cited", "vector", "check"},
    "d4": {"cited", "vector", "check"},
    "e8": {"cited", "vector", "check"},
    "trellis": {"cited", "vector", "check"},
    "query": {"cited", "vector", "check"},
    "query.attend": {"cited", "test"},
    "query.calibrate": {"cited", "test"},
    "query.frame": {"cited", "test"},
    "query.stream": {"cited", "test"},
    "query.tables": {"cited", "test"},
    "skeleton": {"cited", "vector", "check"},
    "turbo": {"cited", "vector", "check"},
    # Fits are judged by quality; tables and layouts are refused before a backend sees a page.
    "codec.fit.metric": {"cited", "test"},
    "codec.fit.variance": {"cited", "test"},
    "codec.table.range": {"cited", "test"},
    "skeleton.fit.trend": {"cited", "test"},
    "turbo.fit.cut": {"cited", "test"},
    "turbo.fit.random": {"cited", "test"},
    "turbo.out.range": {"cited", "vector"},
    # Shared by every backend and not reachable through one: strings, layouts, counts.
    "codec": {"cited", "vector"},
    "codec.id.immutable": set(),  # a promise about the future
    "page.head-dim.multiple-of-8": {"cited", "vector"},
    "page.header.none": {"cited", "vector"},
    "page.tokens.multiple-of-16": {"cited", "vector"},
    "page.stream.order": {"test"},
    "page.table.position": {"cited", "test"},
    "rate": {"cited", "vector"},
    "signs.splitmix64.step": {"cited", "vector"},
    # Behaviour, not bytes.
    "encode": {"check"},
    "decode": {"check"},
    "backend": {"code", "test"},
    "backend.profile": {"check"},
    "backend.profile.declared": {"cited", "test"},
    "backend.support": {"check"},
    "attend": {"cited", "check"},
    "attend.error": {"code", "check"},
    "attend.memory": {"cited", "test"},
    "attend.sink": {"cited", "test"},
    "cache": {"cited", "test"},
    "contract": {"code", "test"},
    "conformance": {"code", "test"},
    "num.level": {"code"},
    "num.level.bits": set(),  # definitions without a constant
    "num.level.ulp": set(),
    "num.input.device": {"cited", "test"},
}
# tools.md: messages only
TOOLS = {"capture", "cli", "depth", "layers", "model", "plan", "quality", "stages", "text"}

SPEC = spectext.rules()
CITED, STRINGS, HEADS = tracing.code()
PLACES = {
    "cited": {name: CITED.get(name, set()) | STRINGS.get(name, set()) for name in SPEC},
    "code": tracing.mentions(tracing.CODE),
    "vector": tracing.vectors(),
    "check": tracing.checks(),
    "test": tracing.mentions(("tests",)),
}
# Two-word names are not told from file names in literals; error heads are.
for name in SPEC:
    PLACES["cited"][name] |= HEADS.get(name, set())


def needs(rule: str) -> set[str]:
    words = rule.split(".")
    prefixes = (".".join(words[:n]) for n in range(len(words), 0, -1))
    return next(NEEDS[prefix] for prefix in prefixes if prefix in NEEDS)


def test_rule_names_are_unique() -> None:
    assert {name: pages for name, pages in SPEC.items() if len(pages) > 1} == {}
    assert len(SPEC) > 90


@pytest.mark.parametrize("rule", sorted(r for r in SPEC if r.partition(".")[0] not in TOOLS))
def test_rule_is_tied_to(rule: str) -> None:
    missing = [kind for kind in sorted(needs(rule)) if not PLACES[kind].get(rule)]
    assert missing == []


def test_rules_of_code_exist() -> None:
    assert {n: p for n, p in CITED.items() if n not in SPEC} == {}


def test_rules_of_errors_exist() -> None:
    assert {n: p for n, p in HEADS.items() if n not in SPEC} == {}


def test_rule_shaped_literals_of_known_areas_exist() -> None:
    areas = {name.partition(".")[0] for name in SPEC}
    unknown = {n: p for n, p in STRINGS.items() if n.partition(".")[0] in areas and n not in SPEC}
    # Package data named by path, not rules.
    assert {n: p for n, p in unknown.items() if not n.endswith((".json", ".toml"))} == {}


@pytest.mark.parametrize("kind", ["vector", "check"])
def test_rules_of_vectors_and_checks_exist(kind: str) -> None:
    assert {n: p for n, p in PLACES[kind].items() if n not in SPEC} == {}


def test_rules_of_examples_exist() -> None:
    assert {n: p for n, p in tracing.examples().items() if n not in SPEC} == {}


@pytest.mark.parametrize("page", spectext.pages(), ids=lambda p: p.name)
def test_mentions_in_prose_exist(page) -> None:
    known = {*SPEC, "area.topic.claim"}
    assert [
        name for name in spectext.MENTION.findall(page.read_text("utf-8")) if name not in known
    ] == []


@pytest.mark.parametrize("page", spectext.pages(), ids=lambda p: p.name)
def test_capital_words_stand_in_rules_only(page) -> None:
    for paragraph in re.split(r"\n\s*\n", spectext.prose(page)):
        if re.search(r"\b(MUST|SHOULD|MAY|SHALL)\b", paragraph):
            stated = spectext.RULE.match(paragraph.lstrip())
            assert stated or page.name == "README.md", paragraph  # README explains the words


def test_codec_pages_have_the_same_sections() -> None:
    want = [
        "Identity", "Status", "Purpose", "Parameters", "Byte layout", "Decode", "Encode",
        "Limits and errors", "Worked example", "Change log",
    ]  # fmt: skip
    for page in sorted((spectext.SPEC / "codecs").glob("*.md")):
        assert re.findall(r"^## (.+)$", page.read_text("utf-8"), re.M) == want, page.name
