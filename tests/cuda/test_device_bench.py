"""The GPU benchmark where there is no GPU: its plan, its refusal, its tables, its clockwork."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hostlaunch import HostLauncher

from benchmarks import gpu, gpu_conform, gpu_plan, gpu_record, gpu_run, gpu_sanitizer, gpu_table
from kakeya_fast.cuda import Backend, params


def test_the_plan_names_all_that_would_be_done(capsys) -> None:
    assert gpu.main(["--plan"]) == 0
    said = capsys.readouterr().out
    rows = f"{len(list(gpu_plan.rows()))} rows"
    for word in (*gpu_plan.STEPS, *gpu_plan.CODECS, rows, "128k tokens (32768 pages)"):
        assert word in said
    assert gpu.main(["--plan", "--only", "sanitizer"]) == 0
    assert rows not in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_leaves_with_3(capsys, tmp_path) -> None:
    assert gpu.main(["--out", str(tmp_path / "out")]) == gpu.NO_GPU == 3
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


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
    step = {"codec": "fp8", "launches": 64, "pages": 4096}
    for name, seconds in (("together", 5e-5), ("by_layer", 1e-4), ("eager", 1e-3)):
        step[name] = {"p20": seconds, "median": seconds, "p80": seconds}
    result = {
        "device": {"name": "None", "processors": 1, "memory": 2**30, "l2": 2**20, "driver": "0"},
        **{"date": "today", "commit": "none", "seconds": 1.0, "versions": {"cupy": "0"}},
        **{
            "rows": rows,
            "targets": gpu_table.verdicts(rows),
            "checks": ["one"],
            "not_run": ["two"],
            "step": [
                step,
                step | {"together": step["by_layer"]},
                {k: v for k, v in step.items() if k != "together"} | {"codec": "e8"},
            ],
        },
    }
    assert [(v["what"], v["met"]) for v in result["targets"]] == [
        ("encode", True),
        ("decode", False),
    ]
    text = gpu_table.markdown(result)
    assert "| `fp8` | 128k tokens | 64 | 2 | 2 [1, 4] | 40% | 2 [1, 4] | 40% |" in text
    assert "| `fp8` | decode | 64 | 40% | 50% | **missed** |" in text
    assert "| `fp8` | met | 50 [50, 50] | 100 [100, 100] | 1000 [1000, 1000] |" in text
    assert "| `fp8` | **missed** | 100 [100, 100] |" in text
    assert "| `e8` | not measured |  | 100 [100, 100] |" in text
    assert "64 launches" in text
    assert "4096 pages" in text
    assert "* one" in text
    assert "* two" in text


RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("gpu-nvidia-*.json"))


def test_committed_tables_say_what_their_json_does() -> None:
    assert RESULTS
    for path in RESULTS:
        stored = json.loads(path.read_text("utf-8"))
        assert path.with_suffix(".md").read_text("utf-8") == gpu_table.markdown(stored)
        assert all(verdict["met"] for verdict in stored["targets"])


class Quiet(gpu_record.Record):
    """A record without a device."""

    def __init__(self, out: Path) -> None:
        self.out, self.minutes, self.begun, self.failed = (
            out,
            8.5,
            gpu_record.time.monotonic(),
            False,
        )
        self.name, self.result = "gpu-none", {"checks": [], "not_run": [], "rows": []}


def test_a_step_that_breaks_does_not_end_the_run(monkeypatch, tmp_path) -> None:
    done: list[str] = []

    def breaks(run: gpu_record.Record) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(gpu_record, "markdown", lambda result: "text")
    monkeypatch.setattr(gpu, "DO", {"compile": breaks, "step": lambda run: done.append("step")})
    run = Quiet(tmp_path / "out")
    gpu.carry_out(run, ["compile", "step"])
    assert done == ["step"]
    assert run.failed
    saved = json.loads((tmp_path / "out" / "gpu-none.json").read_text("utf-8"))
    assert saved["checks"] == ["**failed**: compile: RuntimeError: it broke"]


def test_a_step_without_time_is_left_out_by_name(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(gpu_record, "markdown", lambda result: "text")
    run = Quiet(tmp_path)
    run.minutes = 0
    gpu.carry_out(run, list(gpu.DO))
    assert len(run.result["not_run"]) == len(gpu.DO)
    assert not run.failed


def test_limits_fit_into_nine_minutes() -> None:
    names = list(gpu.DO)
    assert names == list(gpu_plan.STEPS) == list(gpu_record.LIMITS)
    reserves = [gpu_record.LIMITS[name][1] for name in names]
    assert reserves == sorted(reserves, reverse=True)
    assert reserves[0] < 8.5 * 60 < 540


def test_what_the_suite_draws_is_known_before_it_runs() -> None:
    units = gpu_conform.drawn("quick")
    assert {unit.source for unit in units} == {p.name for p in params.SOURCES.glob("*.cu")}
    assert len(units) == len(set(units)) > 300
    kinds = {d for unit in units for d in unit.defines if d.startswith("-DKAKEYA_KIND")}
    assert kinds == {f"-DKAKEYA_KIND={params.KINDS[k]}" for k in ("float32", "float16")}


@pytest.mark.usefixtures("compiler")
def test_the_sanitizers_cases_run(monkeypatch) -> None:
    monkeypatch.setattr(
        "kakeya_fast.cuda.backend.Backend", lambda device: Backend(launcher=HostLauncher())
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert gpu_sanitizer.cases() == len(gpu_sanitizer.CASES)


def test_a_command_that_is_late_is_said_to_be() -> None:
    late = gpu_run.python(("-c", "import time; print('begun', flush=True); time.sleep(60)"), 2)
    assert late.code == gpu_run.TIMED_OUT
    assert "begun" in late.tail
    assert gpu_run.python(("-c", "print('said'); raise SystemExit(4)"), 60).code == 4


def test_results_hold_no_paths() -> None:
    text = "conforms: 9 cases of 3 checks in 1.0 s\nreport   /somewhere/else.json\n"
    assert gpu_record.last(text) == "conforms: 9 cases of 3 checks in 1.0 s"
    assert gpu_record.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert gpu_record.short({"a": [0.123456, 1], "b": "x"}) == {"a": [0.1235, 1], "b": "x"}
    assert gpu_record.last("/only/a/path") == "said nothing"
