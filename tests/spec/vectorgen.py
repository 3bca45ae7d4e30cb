"""Maker of frozen vectors: ``scaffold | add | check``. No existing id is ever rewritten.

    python tests/spec/vectorgen.py scaffold e8 nearest   prints a draft
    python tests/spec/vectorgen.py add draft.json        ids, validation, manifest
    python tests/spec/vectorgen.py check                 against the reference; writes nothing

A draft is a vector file whose cases have no id. A case of origin ``ref@...`` may leave ``expect``
out: the reference fills it in, and a human reviews the diff. Hand cases bring their own.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import vectorcheck as vc

MANIFEST = vc.VECTORS / "MANIFEST.sha256"
FILE_LIMIT, TOTAL_LIMIT = 64 * 1024, 1024 * 1024
ORDER = ["id", "op", "rules", "level", "origin", "comment", "flags", "verdict"]
ORDER += ["codec", "head_dim", "tokens", "shape", "args", "tables", "input", "expect"]


def scaffold(codec: str, topic: str) -> dict[str, Any]:
    case = {
        "op": "encode", "rules": [], "level": "bits", "origin": "hand", "comment": "",
        "flags": [], "verdict": "valid", "codec": codec, "head_dim": 8, "tokens": 16,
        "shape": [1, 16, 8], "input": {"f32": ""}, "expect": {"page": ""},
    }  # fmt: skip
    return {
        "schema": 1, "format": "0.2", "codec": codec, "topic": topic, "flags": {}, "cases": [case],
    }  # fmt: skip


def dump(file: dict[str, Any]) -> str:
    """One case a line: short diffs, and a new case is one added line."""
    head = {k: v for k, v in file.items() if k != "cases"}
    lines = ",\n".join(json.dumps({k: c[k] for k in ORDER if k in c}) for c in file["cases"])
    return json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n"


def add(draft: dict[str, Any]) -> list[str]:
    """Append the draft's cases to their file; the ids given to them."""
    codec, topic = draft["codec"], draft["topic"]
    path = vc.VECTORS / "v1" / codec / f"{topic}.json"
    file = draft | {"cases": []}
    if path.exists():
        file = json.loads(path.read_text("utf-8"))
        file["flags"] = draft["flags"] | file["flags"]
    ids = []
    for case in draft["cases"]:
        if "id" in case:
            raise SystemExit(f"{case['id']}: ids are assigned here, a draft has none")
        case["id"] = f"{codec}.{topic}.{len(file['cases']) + 1:03d}"
        if "splitmix_seed" in case.get("input", {}):
            pin(case)
        if "expect" not in case and case["origin"].startswith("ref@"):
            case["expect"] = {
                k: vc.freeze(v) if isinstance(v, bytes) else v for k, v in vc.outcome(case).items()
            }
        file["cases"].append(case)
        ids.append(case["id"])
    text = dump(file)
    problems = vc.schema_errors(file)
    if len(text) > FILE_LIMIT:
        problems.append(f"{path.name} would be {len(text)} bytes, over {FILE_LIMIT}")
    if problems:
        raise SystemExit("\n".join(problems))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    MANIFEST.write_text(manifest(), "utf-8")
    return ids


def pin(case: dict[str, Any]) -> None:
    """Hash and first block of a generated input."""
    given, count = case["input"], 1
    for n in case["shape"]:
        count *= n
    data = vc.noise(given["splitmix_seed"], count, given.get("exponent", -15)).tobytes()
    given["sha256"] = hashlib.sha256(data).hexdigest()
    given["first"] = data[:32].hex()


def manifest() -> str:
    """``sha256  cases  path`` of every vector file."""
    lines = []
    for path in vc.vector_files():
        data = path.read_bytes()
        count = len(json.loads(data)["cases"])
        name = path.relative_to(vc.VECTORS).as_posix()
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {count:4d}  {name}\n")
    return "".join(lines)


def check() -> list[str]:
    return [line for case in vc.all_cases() for line in vc.differences(case)]


def main(argv: list[str]) -> int:
    match argv:
        case ["scaffold", codec, topic]:
            print(json.dumps(scaffold(codec, topic), indent=1))
        case ["add", *paths] if paths:
            for path in paths:
                ids = add(json.loads(Path(path).read_text("utf-8")))
                print(f"{path}: {ids[0]} .. {ids[-1]}")
        case ["check"]:
            found = check()
            print("\n".join(found) or "reference and vectors agree")
            return bool(found)
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
