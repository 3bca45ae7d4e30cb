"""Where the rules live: text, code, vectors, checks, tests. ``python tests/spec/tracing.py``."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import spectext
import vectorcheck as vc

ROOT = spectext.ROOT
CODE = ("kakeya_ref", "kakeya_fast", "conformance")
ERRORS = {"KakeyaError", "Malformed", "Unsupported", "ShapeError", "RangeError", "UsageError"}
NAME = r"[a-z][a-z0-9]*(?:\.[a-z0-9-]+)+"
LONG = r"[a-z][a-z0-9]*(?:\.[a-z0-9-]+){2,}"  # two words alone may be a file name
RULE_LINE = re.compile(rf"Rule:\s*({NAME}(?:,\s*{NAME})*)")
Places = dict[str, set[str]]


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def rule_lines(path: Path) -> set[str]:
    """Names behind ``Rule:`` in docstrings and comments; a list may run on over lines."""
    # A comment's continuation starts with '#'.
    text = re.sub(r"\n\s*#\s*", "\n", path.read_text("utf-8"))
    return {n for found in RULE_LINE.findall(text) for n in re.split(r",\s*", found)}


def literals(path: Path) -> tuple[set[str], set[str]]:
    """Rule-shaped string literals, and those that head an error of the family."""
    tree = ast.parse(path.read_text("utf-8"))
    strings, heads = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings |= set(re.findall(rf"\A{LONG}\Z", node.value))
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = node.args[0]
            if name in ERRORS and isinstance(first, ast.Constant):
                heads.add(str(first.value))
    return strings, heads


def code() -> tuple[Places, Places, Places]:
    """Places of ``Rule:`` names, of rule-shaped literals, of error heads."""
    cited: Places = defaultdict(set)
    strings: Places = defaultdict(set)
    heads: Places = defaultdict(set)
    for part in CODE:
        for path in sorted((ROOT / part).rglob("*.py")):
            for name in rule_lines(path):
                cited[name].add(where(path))
            found, head = literals(path)
            for name in found:
                strings[name].add(where(path))
            for name in head:
                heads[name].add(where(path))
    return cited, strings, heads


def mentions(parts: tuple[str, ...]) -> Places:
    """Python files in which a rule of the spec is named at all, outside this pair of files."""
    known = set(spectext.rules())
    out: Places = defaultdict(set)
    for part in parts:
        for path in sorted((ROOT / part).rglob("*.py")):
            if path.stem not in ("tracing", "test_trace"):
                for name in known & set(re.findall(NAME, path.read_text("utf-8"))):
                    out[name].add(where(path))
    return out


def vectors() -> Places:
    out: Places = defaultdict(set)
    for case in vc.all_cases():
        for name in case["rules"]:
            out[name].add(case["id"])
    return out


def examples() -> Places:
    out: Places = defaultdict(set)
    for example in spectext.examples():
        for name in example.rules:
            out[name].add(example.id)
    return out


def checks() -> Places:
    from kakeya_conformance import all_checks

    out: Places = defaultdict(set)
    for check in all_checks():
        for name in check.rules:
            out[name].add(check.name)
    return out


def main() -> None:
    columns = [("code", mentions(CODE)), ("vector", vectors()), ("check", checks())]
    columns += [("test", mentions(("tests",)))]
    for rule in sorted(spectext.rules()):
        counts = "  ".join(f"{name} {len(places.get(rule, ())):3d}" for name, places in columns)
        print(f"{rule:36s} {counts}")


if __name__ == "__main__":
    main()
