"""The GPU benchmark where there is no GPU: its plan, its refusal, its tables, its clockwork."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from hostlaunch import HostLauncher

from benchmarks import gpu, gpu_attention, gpu_generate
from benchmarks.device import bandwidth as gpu_bandwidth
from benchmarks.device import conform as gpu_conform
from benchmarks.device import plan as gpu_plan
from benchmarks.device import prefill as gpu_prefill
from benchmarks.device import record as gpu_record
from benchmarks.device import run as gpu_run
from benchmarks.device import sanitizer as gpu_sanitizer
from benchmarks.device import step as gpu_step
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
@pytest.mark.parametrize("bench", [gpu, gpu_attention, gpu_generate])
def test_without_a_gpu_it_leaves_with_3(bench, capsys, tmp_path) -> None:
    assert bench.main(["--out", str(tmp_path / "out")]) == gpu_run.NO_GPU == 3
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


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
    for name, value in {"hidden": 64, "query_heads": 16, "wide": 96}.items():
        monkeypatch.setitem(gpu_plan.LAYER, name, value)
    monkeypatch.setitem(gpu_plan.STEP, "head_dim", 64)
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
