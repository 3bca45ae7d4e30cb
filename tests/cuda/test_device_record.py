"""The record and the tables of the GPU benchmark: runs that go on, targets, marks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import gpu
from benchmarks.device import bandwidth as gpu_bandwidth
from benchmarks.device import plan as gpu_plan
from benchmarks.device import record as gpu_record
from benchmarks.device import table as gpu_table
from kakeya_ref.layout import page_layout


def made_up_row(share: float) -> dict:
    spread = {"p20": 1e-3, "median": 2e-3, "p80": 4e-3, "samples": 10}
    return {
        "codec": "fp8",
        "d": 64,
        "shape": gpu_plan.SHAPES[-1].name,
        "pages": 32,
        "vector_bytes": 4_000_000,
        **{name: spread for name in ("copy", "encode", "decode")},
        "encode_of_copy": share,
        "decode_of_copy": share,
    }


def test_rates_and_targets_of_a_row() -> None:
    """The numbers are made up, for a device that does not exist."""
    rows = [made_up_row(0.4), made_up_row(0.4) | {"shape": "1 page"}]
    step = {"codec": "fp8", "launches": 64, "pages": 4096, "sides": 8}
    times = {"together": 5e-5, "gathered": 6e-5, "aside": 7e-5, "by_layer": 1e-4, "eager": 1e-3}
    for name, seconds in times.items():
        step[name] = {"p20": seconds, "median": seconds, "p80": seconds}
    slow, fast = ({"p20": t, "median": t, "p80": t} for t in (2e-2, 5e-4))
    encode = {"/".join(pair): slow for pair in gpu_plan.PREFILL["codecs"]}
    encode["trellis/trellis"] = fast
    prefill = {"tokens": 8192, "layers": 32, "flops": 1.0, "layer": slow, "encode": encode}
    result = {
        "device": {"name": "None", "processors": 1, "memory": 2**30, "l2": 2**20},
        "runs": [made_up_run("old"), made_up_run("new") | {"checks": ["self-test: one"]}],
        "rows": [row | {"run": 0} for row in rows],
        "prefill": [prefill, prefill | {"layer": fast, "tokens": 32768}],
        "step": [
            step,
            step | {"together": step["by_layer"], "codec": "d4"},
            {k: v for k, v in step.items() if k != "together"} | {"codec": "e8"},
        ],
    }
    text = gpu_table.markdown(result)
    assert "| `fp8` | 128k tokens | 64 | 2 | 2 [1, 4] | 40% | 2 [1, 4] | 40% | 1 |" in text
    assert "| `fp8` | encode | 40% met | not measured | not measured | 25% |" in text
    assert "| `fp8` | decode | 40% **missed** | not measured | not measured | 50% |" in text
    times = "50 [50, 50] | 60 [60, 60] | 70 [70, 70] | 100 [100, 100] | 1000 [1000, 1000]"
    assert f"| `fp8` | met | {times} |" in text
    pair = "`trellis/trellis` | 20 [20, 20] | 0.5 [0.5, 0.5] | 2.5%"
    assert f"| 8192 | {pair} | met |" in text
    assert "| 8192 | `query/trellis` | 20 [20, 20] | 20 [20, 20] | 100.0% |  |" in text
    assert "100.0% | **missed** |" in text
    assert "| `d4` | **missed** | 100 [100, 100] |" in text
    assert "| `e8` | not measured |  | 60 [60, 60] | 70 [70, 70] | 100 [100, 100] |" in text
    assert "| `trellis` | not measured |  |  |  |  |  |" in text
    assert "* 16k tokens: all codecs" in text
    assert "* 1 page: `raw:dtype=bf16`, `fp8` at D = 128, 256, `int`" in text
    assert "64 launches" in text
    assert "4096 pages" in text
    assert (
        "run 1: today, commit old, 1 s; driver 0, cupy 0; other kernels than the newest run's"
        in text
    )
    assert "* self-test: one" in text
    assert "* not made: conformance" in text
    assert "* two" in text
    assert "soon" not in text
    met = [t for t in gpu_table.verdicts(result) if t["met"]]
    assert [(t["codec"], t["what"]) for t in met] == [
        ("fp8", "encode"),
        ("fp8", "step"),
        ("trellis", "prefill"),
    ]
    assert "3 of 61 targets met, 3 missed, 55 not measured" in text


def made_up_run(commit: str) -> dict:
    return {
        **{"date": "today", "commit": commit, "kernels": commit, "seconds": 1.0, "driver": "0"},
        **{"versions": {"cupy": "0"}, "checks": [], "not_run": ["two", "soon: no time left"]},
    }


def test_a_launch_without_a_graph_and_a_forward_that_was_not_timed_are_marked() -> None:
    """The numbers are made up."""
    row = made_up_row(0.4) | {"d": 128, "pages": 4096, "run": 0}
    step = {"codec": "fp8", "pages": 4096, "by_layer": row["copy"]}
    result = {
        "device": {"name": "None", "processors": 1, "memory": 2**30, "l2": 2**20},
        "runs": [made_up_run("new")],
        "rows": [row, row | {"codec": "trellis", "pages": 32768}],
        "step": [step],
        "prefill": [],
    }
    text = gpu_table.markdown(result)
    assert "| `fp8` | **missed**† | 2000 [1000, 4000]† |" in text
    # A fourth of 128k tokens, twice; over 3 %.
    assert "takes 1.0 ms for the keys and values of 32768 tokens" in text
    assert "if the forward of the layer took 33 ms, 693 TFLOP/s" in text


RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("gpu-nvidia-*.json"))


def test_committed_tables_say_what_their_json_does() -> None:
    assert RESULTS
    for path in RESULTS:
        stored = json.loads(path.read_text("utf-8"))
        assert path.with_suffix(".md").read_text("utf-8") == gpu_table.markdown(stored)
        assert stored["targets"] == gpu_table.verdicts(stored)
        assert stored["rows"]


class Quiet(gpu_record.Record):
    """A record without a device."""

    def __init__(self, out: Path, kernels: str = "these", *, again: bool = False) -> None:
        told = {"date": "today", "commit": kernels, "versions": {}, "driver": "0"}
        device = {"name": "None", "processors": 1, "memory": 2**30, "l2": 2**20}
        self.enter(out, 8.5, device, told, again=again)
        self.run["kernels"] = kernels
        self.backend = SimpleNamespace(device=None)


def test_a_step_that_breaks_does_not_end_the_run(monkeypatch, tmp_path) -> None:
    done: list[str] = []

    def breaks(run: gpu_record.Record) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(gpu, "DO", {"compile": breaks, "step": lambda run: done.append("step")})
    run = Quiet(tmp_path / "out")
    gpu.carry_out(run, ["compile", "step"])
    assert done == ["step"]
    assert run.failed
    saved = json.loads((tmp_path / "out" / "gpu-none.json").read_text("utf-8"))
    assert saved["runs"][0]["checks"] == ["**failed**: compile: RuntimeError: it broke"]


def test_a_step_without_time_is_left_out_by_name(monkeypatch, tmp_path) -> None:
    run = Quiet(tmp_path)
    run.minutes = 0
    gpu.carry_out(run, list(gpu.DO))
    assert len(run.run["not_run"]) == len(gpu.DO)
    assert not run.failed


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """What is measured, in order; the figures are made up."""
    done: list[str] = []

    def measure(backend, row, flush, seconds) -> dict:
        done.append(f"{row.codec} {row.head_dim} {row.shape.name}")
        return made_up_row(0.4) | row.key

    monkeypatch.setattr(gpu_bandwidth, "measure", measure)
    monkeypatch.setattr("benchmarks.device.timing.Flush", lambda device: None)
    return done


def test_what_is_measured_is_kept_and_the_rest_added(tmp_path, measured) -> None:
    """A file goes from run to run; nothing that these kernels have is measured twice."""
    plan = [f"{r.codec} {r.head_dim} {r.shape.name}" for r in gpu_plan.rows()]
    first = Quiet(tmp_path)
    for row in list(gpu_plan.rows())[3:5]:
        first.add("rows", made_up_row(0.1) | row.key)
    first.say("conformance: conforms", ok=True)
    first.save()
    second = Quiet(tmp_path)
    assert second.passed("conformance")
    gpu.bandwidth_step(second)
    assert measured == plan[:3] + plan[5:]
    stored = json.loads((tmp_path / "gpu-none.json").read_text("utf-8"))
    assert [f"{r['codec']} {r['d']} {r['shape']}" for r in stored["rows"]] == plan
    assert [r["run"] for r in stored["rows"][2:6]] == [1, 0, 0, 1]
    assert len(stored["runs"]) == 2
    measured.clear()
    gpu.bandwidth_step(Quiet(tmp_path))
    assert measured == []
    gpu.bandwidth_step(Quiet(tmp_path, again=True))
    assert measured == plan


def test_figures_of_other_kernels_stay_until_they_are_replaced(tmp_path, measured) -> None:
    rows = list(gpu_plan.rows())
    first = Quiet(tmp_path, "old")
    for row in rows[:2]:
        first.add("rows", made_up_row(0.1) | row.key)
    first.say("conformance: conforms", ok=True)
    first.save()
    second = Quiet(tmp_path, "new")
    assert not second.passed("conformance")
    assert second.knows("rows", **rows[0].key)
    assert not second.has("rows", **rows[0].key)
    gpu.bandwidth_step(second)
    # Measured last, where time may be short.
    assert measured[-2:] == [f"{r.codec} {r.head_dim} {r.shape.name}" for r in rows[:2]]
    assert {row["run"] for row in second.result["rows"]} == {1}


def test_plan_and_files_call_codecs_the_same() -> None:
    assert [str(page_layout(c, 64, 32).codec) for c in gpu_plan.CODECS] == list(gpu_plan.CODECS)


def test_limits_fit_into_four_minutes() -> None:
    assert list(gpu.DO) == list(gpu_plan.PARTS) == list(gpu_record.LIMITS)
    assert all(due <= most for most, due in gpu_record.LIMITS.values())
    assert sum(due for _, due in gpu_record.LIMITS.values()) < 0.8 * 4 * 60


@pytest.mark.parametrize("minutes", [0.5, 1.7, 4])
@pytest.mark.parametrize("parts", [["compile", "step", "prefill", "bandwidth"], ["conform"]])
def test_a_short_run_shares_its_time_out(monkeypatch, tmp_path, minutes, parts) -> None:
    """No part is left out for the sake of parts that were not asked for, or of later ones."""
    run, clock, given = Quiet(tmp_path), [0.0], {}

    def spend(name: str, run: gpu_record.Record) -> None:
        given[name] = run.seconds(name)
        clock[0] += given[name]

    monkeypatch.setattr(gpu_record.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu, "DO", {name: partial(spend, name) for name in parts})
    run.begun, run.minutes, run.begin = 0.0, minutes, lambda: None
    gpu.carry_out(run, parts)
    assert list(given) == parts
    due = sum(gpu_record.LIMITS[name][1] for name in parts)
    for name, seconds in given.items():
        assert seconds >= 0.99 * gpu_record.LIMITS[name][1] * min(1, 60 * minutes / due)
    assert clock[0] <= 60 * minutes + 1e-6
