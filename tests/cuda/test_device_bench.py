"""The GPU benchmark where there is no GPU: its plan, its refusal, its tables, its clockwork."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hostlaunch import HostLauncher

from benchmarks import (
    gpu,
    gpu_bandwidth,
    gpu_conform,
    gpu_plan,
    gpu_prefill,
    gpu_record,
    gpu_run,
    gpu_sanitizer,
    gpu_step,
    gpu_table,
)
from benchmarks.timing import Spread
from kakeya_fast.cuda import Backend, params
from kakeya_ref.registry import codec_ids


def test_the_plan_names_all_that_would_be_done(capsys) -> None:
    assert gpu.main(["--plan"]) == 0
    said = capsys.readouterr().out
    rows = f"{len(list(gpu_plan.rows()))} rows"
    for word in (*gpu_plan.PARTS, *gpu_plan.CODECS, rows, "128k tokens (32768 pages)"):
        assert word in said
    assert gpu.main(["--plan", "--part", "sanitizer"]) == 0
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
    step = {"codec": "fp8", "launches": 64, "pages": 4096, "sides": 8}
    times = {"together": 5e-5, "gathered": 6e-5, "aside": 7e-5, "by_layer": 1e-4, "eager": 1e-3}
    for name, seconds in times.items():
        step[name] = {"p20": seconds, "median": seconds, "p80": seconds}
    slow, fast = ({"p20": t, "median": t, "p80": t} for t in (2e-2, 5e-4))
    encode = {"trellis/trellis": fast, "query/trellis": slow}
    prefill = {"tokens": 8192, "layers": 32, "flops": 1.0, "layer": slow, "encode": encode}
    result = {
        "device": {"name": "None", "processors": 1, "memory": 2**30, "l2": 2**20, "driver": "0"},
        **{"date": "today", "commit": "none", "seconds": 1.0, "versions": {"cupy": "0"}},
        **{
            "rows": rows,
            "targets": gpu_table.verdicts(rows),
            "checks": ["one"],
            "not_run": ["two"],
            "prefill": [prefill, prefill | {"layer": fast}],
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
    times = "50 [50, 50] | 60 [60, 60] | 70 [70, 70] | 100 [100, 100] | 1000 [1000, 1000]"
    assert f"| `fp8` | met | {times} |" in text
    pair = "`trellis/trellis` | 20 [20, 20] | 0.5 [0.5, 0.5] | 2.5%"
    assert f"| 8192 | {pair} | met |" in text
    assert "| 8192 | `query/trellis` | 20 [20, 20] | 20 [20, 20] | 100.0% |  |" in text
    assert "100.0% | **missed** |" in text
    assert "| `fp8` | **missed** | 100 [100, 100] |" in text
    assert "| `e8` | not measured |  | 60 [60, 60] | 70 [70, 70] | 100 [100, 100] |" in text
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
        assert stored["targets"] == gpu_table.verdicts(stored["rows"])
        assert stored["rows"]


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
        self.behind, self.parts = None, list(gpu_record.LIMITS)


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


def test_limits_fit_into_four_minutes() -> None:
    assert list(gpu.DO) == list(gpu_plan.PARTS) == list(gpu_record.LIMITS)
    assert all(due <= most for most, due in gpu_record.LIMITS.values())
    assert sum(due for _, due in gpu_record.LIMITS.values()) < 0.8 * 4 * 60


@pytest.mark.parametrize("minutes", [0.5, 1.7, 4])
@pytest.mark.parametrize("parts", [["compile", "step", "prefill", "bandwidth"], ["conform"]])
def test_a_short_run_shares_its_time_out(monkeypatch, tmp_path, minutes, parts) -> None:
    """No part is left out for the sake of parts that were not asked for, or of later ones."""
    monkeypatch.setattr(gpu_record, "markdown", lambda result: "text")
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


def offers(codec_id: str) -> bool:
    return gpu_conform.Recorder().supports(gpu_conform.plain(codec_id)).ok


def test_what_the_suite_draws_is_known_before_it_runs() -> None:
    units = gpu_conform.drawn("quick", "scalar")
    assert {unit.source for unit in units} == {"scalar.cu", "attend.cu"}
    assert len(units) == len(set(units)) > 50
    sources = {params.source(gpu_conform.plain(c)) for c in codec_ids() if offers(c)}
    assert {*sources, "attend.cu"} == {p.name for p in params.SOURCES.glob("*.cu")}
    kinds = {d for unit in units for d in unit.defines if d.startswith("-DKAKEYA_KIND")}
    assert kinds == {f"-DKAKEYA_KIND={params.KINDS[k]}" for k in ("float32", "float16")}


@pytest.mark.usefixtures("compiler")
def test_the_sanitizers_cases_run(monkeypatch) -> None:
    monkeypatch.setattr(
        "kakeya_fast.cuda.backend.Backend", lambda device: Backend(launcher=HostLauncher())
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    cases = len(gpu_sanitizer.CASES) + len(gpu_sanitizer.ATTENDED)
    assert gpu_sanitizer.cases() == cases


@pytest.fixture
def on_the_host(monkeypatch) -> Backend:
    """What times on a device, with the host's kernels and a clock that stands still."""

    def race(runners, before, **limits):
        for run in runners.values():
            run()
        return {name: Spread(1.0, 1.0, 1.0, 1) for name in runners}

    for module in (gpu_bandwidth, gpu_step, gpu_prefill):
        monkeypatch.setattr(module, "race", race)
    monkeypatch.setattr(gpu_step, "capture", lambda step: SimpleNamespace(replay=step))
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda side: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *given: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    return Backend(launcher=HostLauncher())


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("codec", ["scalar:b=3", "trellis", "query"])
def test_what_is_timed_is_judged(on_the_host, monkeypatch, codec) -> None:
    row = gpu_plan.Row(codec, 64, gpu_plan.Shape("few", 3))
    found = gpu_bandwidth.measure(on_the_host, row, None, 0)
    assert found["encode_of_copy"] == 1
    for name, value in {"layers": 2, "batch": 1, "heads": 3, "head_dim": 32}.items():
        monkeypatch.setitem(gpu_plan.STEP, name, value)
    found = gpu_step.measure(on_the_host, codec, None, 0)
    assert found["launches"] == (2 if codec == "query" else 4)
    assert found["pages"] == 3 * found["launches"]
    assert {"together", "gathered", "aside", "by_layer", "eager"} <= set(found)
    monkeypatch.setattr(on_the_host, "append", lambda *given, **more: None)
    for measure in (gpu_step.measure, gpu_bandwidth.measure):
        with pytest.raises(gpu_bandwidth.Differs):
            measure(on_the_host, codec if measure is gpu_step.measure else row, None, 0)


@pytest.mark.usefixtures("compiler")
def test_a_layer_makes_the_keys_that_are_encoded(on_the_host, monkeypatch) -> None:
    for name, value in (("HIDDEN", 64), ("QUERY_HEADS", 16), ("WIDE", 96), ("DIM", 64)):
        monkeypatch.setattr(gpu_prefill, name, value)
    found = gpu_prefill.measure(on_the_host, 64, None, 0)
    pairs = ["/".join(names) for names in gpu_plan.PREFILL["codecs"]]
    assert list(found["encode"]) == pairs
    assert found["flops"] == 2 * 64 * (64 * 48 * 64 + 3 * 64 * 96) + 2 * 64**2 * 16 * 64
    launched = [u.source for u, _, pages, _ in on_the_host._calls._launcher.seen if pages]
    assert launched == ["scalar.cu"] * 2 + ["trellis.cu"] * 4 + ["query.cu", "trellis.cu"]


def test_what_is_drawn_beside_the_timing_ends_in_time(monkeypatch) -> None:
    code = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    process = subprocess.Popen((sys.executable, "-c", code), start_new_session=True)
    assert "not all compiled" in gpu_conform.finish(process, 0.5)
    assert process.returncode not in (None, 0)


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
