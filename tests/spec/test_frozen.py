"""Frozen vectors stay frozen: hashes, form, sizes, and nothing that was tagged has changed."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest
import vectorcheck as vc
import vectorgen

from kakeya_ref import codec_ids

FILES = vc.vector_files()


def test_manifest_lists_every_file_with_hash_and_count() -> None:
    assert vectorgen.MANIFEST.read_text("utf-8") == vectorgen.manifest()


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_file_is_valid_and_within_budget(path) -> None:
    text = path.read_text("utf-8")
    file = json.loads(text)
    assert vc.schema_errors(file) == []
    assert (file["codec"], file["topic"]) == (path.parent.name, path.stem)
    assert len(text) <= vectorgen.FILE_LIMIT
    assert text == vectorgen.dump(file), "written by vectorgen, one case a line"
    for number, case in enumerate(file["cases"], 1):
        assert case["id"] == f"{file['codec']}.{file['topic']}.{number:03d}"
        assert set(case["flags"]) <= set(file["flags"]), f"{case['id']}: flag without meaning"


def test_total_is_within_budget() -> None:
    assert sum(p.stat().st_size for p in FILES) <= vectorgen.TOTAL_LIMIT


def test_ids_are_unique() -> None:
    ids = [case["id"] for case in vc.all_cases()]
    assert len(ids) == len(set(ids)) > 0


def test_every_codec_has_vectors_of_hand_origin() -> None:
    by_hand = {c["id"].partition(".")[0] for c in vc.all_cases() if c["origin"] == "hand"}
    assert by_hand >= {*codec_ids(), "numerics", "page", "reject"}


def test_verdicts_and_expectations_fit() -> None:
    for case in vc.all_cases():
        invalid = case["verdict"] == "invalid"
        assert invalid == ("error" in case["expect"]), case["id"]
        assert not invalid or case["expect"]["rule"] in case["rules"], case["id"]


def test_generated_inputs_are_pinned() -> None:
    generated = [c for c in vc.all_cases() if "splitmix_seed" in c.get("input", {})]
    for case in generated:
        x = vc.input_array(case).tobytes()
        assert hashlib.sha256(x).hexdigest() == case["input"]["sha256"], case["id"]
        assert x.hex().startswith(case["input"]["first"]), case["id"]
    assert generated


def git(*args: str) -> str | None:
    done = subprocess.run(["git", *args], cwd=vc.ROOT, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def test_no_case_of_the_last_release_changed() -> None:
    tag = git("describe", "--tags", "--abbrev=0")
    if tag is None:
        pytest.skip("no release yet, or no git history here")
    now = {case["id"]: case for case in vc.all_cases()}
    names = git("ls-tree", "-r", "--name-only", tag.strip(), "spec/vectors/v1") or ""
    for name in names.split():
        old = json.loads(git("show", f"{tag.strip()}:{name}") or "{}")
        for case in old["cases"]:
            assert now.get(case["id"]) == case, f"{case['id']} changed since {tag.strip()}"


def test_validator_notices_what_it_must() -> None:
    good = vectorgen.scaffold("e8", "nearest")
    good["cases"][0] |= {"id": "e8.nearest.001", "rules": ["e8.coset.tie"], "comment": "x"}
    assert vc.schema_errors(good) == []
    for change in (
        {"id": "E8.1"},
        {"rules": []},
        {"verdict": "perhaps"},
        {"input": {"f32": "0"}},
        {"expect": {}},
        {"surprise": 1},
        {"shape": [1, -1, 8]},
    ):
        bad = good | {"cases": [good["cases"][0] | change]}
        assert vc.schema_errors(bad), change
