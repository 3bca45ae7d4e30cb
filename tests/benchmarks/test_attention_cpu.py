"""The CPU benchmark of attention: wrong kernels are not timed, verdicts follow from times."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks import attention
from benchmarks.attention_cpu_table import fastest, markdown, verdicts
from kakeya_conformance.model import Nonconforming
from kakeya_fast.numba_cpu import Backend


def made(**seconds):
    row = {
        "context": 8192, "batch": 1, "groups": 4, "head_dim": 64, "heads": 2, "queries": 1,
        "packed_bytes": {"scalar:b=4": 1056 * 256 * 4},
        "seconds": {name: {"median": value} for name, value in seconds.items()},
    }  # fmt: skip
    machine = {"cpu": "c", "load_before": [0], "load_after": [0]}
    shown = {"commit": "x", "date": "d", "threads": 2, "clock": "wall", "copy_rate": 1e10}
    generation = {
        "model": "m", "context": 8, "new": 2,
        "codecs": {"packed": ["a", "b"], "calibrated": ["c", "d"]},
        "dynamic": {"tokens_per_second": [4.0, 6.0, 5.0], "peak": [3e6], "held": 2e6,
                    "same_first_tokens": 2},
        "packed": {"tokens_per_second": [4.0], "peak": [1e6], "held": 1e6, "same_first_tokens": 1},
        "about": {"commit": "y", "date": "e", "threads": 3, "machine": machine},
    }  # fmt: skip
    result = {"machine": machine, "rows": [row], "generation": generation} | shown
    return result | {"targets": verdicts(result)}


def test_the_fastest_of_torch_counts_and_losses_are_said():
    result = made(**{"scalar:b=4": 0.02, "float32 flash": 0.05, "bfloat16 math": 0.03})
    assert fastest(result["rows"][0]) == ("bfloat16 math", 0.03)
    assert [round(v["got"], 3) for v in result["targets"]] == [1.5, 0.8]
    assert [v["met"] for v in result["targets"]] == [True, False]
    text = markdown(result)
    assert "Targets: 1 of 2 met." in text
    assert "- missed: a/b, tokens a second against DynamicCache: 0.80 times" in text
    assert "Commit y, e; 3 threads; load 0.0 before, 0.0 after." in text
    assert "20.00 (1.5x, 0.1)" in text
    assert "| `a/b` | 4.00 | 1 | 1 | 1 |" in text
    assert "c/d" not in text


def test_a_run_goes_on_with_rows_of_the_same_code_and_options(tmp_path):
    path = tmp_path / "found.json"
    first = attention.begun(path, 2, "wall", ["raw"])
    assert first["rows"] == []
    first["rows"].append(made(**{"scalar:b=4": 1.0, "float32 flash": 1.0})["rows"][0])
    first["copy_rate"] = 1e10
    attention.save(first, path)
    assert attention.begun(path, 2, "wall", ["raw"])["rows"] == first["rows"]
    for other in ((1, "wall", ["raw"]), (2, "cpu", ["raw"]), (2, "wall", ["fp8"])):
        assert attention.begun(path, *other)["rows"] == []


def test_a_model_alone_leaves_the_rows_of_another_run(tmp_path, monkeypatch, capsys):
    path, old = tmp_path / "found.json", made(**{"scalar:b=4": 1.0, "float32 flash": 2.0})
    attention.save(old, path, rows=False)
    fresh = old["generation"] | {"new": 77}
    del fresh["about"]
    monkeypatch.setattr(attention, "generation", lambda *_: fresh)
    monkeypatch.setattr("sys.argv", ["x", "--generation", "--out", str(path), "--threads", "1"])
    assert attention.main() == 0
    found = json.loads(path.read_text("utf-8"))
    assert found["rows"] == old["rows"]
    assert (found["commit"], found["machine"]) == ("x", old["machine"])
    assert found["generation"]["new"] == 77
    assert found["generation"]["about"]["code"] == attention.machine.code()
    assert "77 new" in capsys.readouterr().out


def test_a_wrong_kernel_is_not_timed():
    shape = attention.Shape(64, groups=32, head_dim=64, heads=2)
    case = attention.Packed(shape, "raw", Backend())
    case.check()
    right = case.run

    def wrong(q=None):
        out, lse = right(q)
        return out * 1.02, lse

    case.run = wrong
    with pytest.raises(Nonconforming):
        case.check()


@pytest.mark.parametrize("groups", [1, 4])
def test_ways_of_torch_do_the_same(groups):
    shape = attention.Shape(64, groups=groups, head_dim=64, heads=2)
    torch.manual_seed(0)
    ways = attention.dense(shape, torch.float32)
    assert len(ways) == 2 * (1 if groups == 1 else 2)
    found = []
    for run in ways.values():
        torch.manual_seed(0)
        found.append(run().reshape(2 * groups, 64).numpy())
    # Every way has a turn of its own over copies of other numbers: only shapes can be compared.
    assert all(np.isfinite(x).all() and x.shape == found[0].shape for x in found)
