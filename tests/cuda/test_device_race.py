"""The attention benchmark from its plan to its file: all of it but the GPU and the clock."""

from __future__ import annotations

import json

import pytest
import torch
from hostlaunch import HostLauncher

from benchmarks import gpu_attention, gpu_attention_table
from benchmarks.device import conform as gpu_conform
from benchmarks.device import race as gpu_attention_race
from benchmarks.device.race import Shape
from benchmarks.timing import Spread
from kakeya_fast import dispatch
from kakeya_fast.cuda import launch


class Launcher(HostLauncher):
    arch = "sm_90"

    def __init__(self, _: object) -> None:
        super().__init__()


@pytest.fixture
def host(monkeypatch, tmp_path, compiler):
    """Shapes of the plan at 64 tokens; the files land in a folder."""

    def timed(calls):
        calls[-1]()
        return Spread(1e-6, 2e-6, 3e-6, 1)

    real, small = dispatch.get_backend, Shape(64, 2, 4, 64, 1)
    monkeypatch.setattr(gpu_attention, "TARGETS", (small,))
    monkeypatch.setattr(gpu_attention, "CONTEXTS", (64,))
    monkeypatch.setattr(gpu_attention, "compile_all", lambda *_: {})
    monkeypatch.setattr(gpu_attention_race, "COLD", 1)
    monkeypatch.setattr(gpu_attention_race, "timed", timed)
    monkeypatch.setattr(gpu_attention_race, "copy_bandwidth", lambda _: 1e9)
    monkeypatch.setattr(
        gpu_attention_race, "dense", lambda *_: [{"by": "FLASH tokens", "median": 4e-6}]
    )
    monkeypatch.setattr(launch, "CupyLauncher", Launcher)
    monkeypatch.setattr(launch, "cuda_device", lambda _: torch.device("cpu"))
    monkeypatch.setattr(dispatch, "get_backend", lambda name, _: real(name, "cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "no device")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return tmp_path


def test_targets_are_raced_and_rendered(host) -> None:
    """Rule: attend.error.mean"""
    assert gpu_attention.main(["--targets", "--out", str(host)]) == 0
    run = json.loads((host / "gpu-attention-1.json").read_text("utf-8"))
    assert (run["failed"], run["left"]) == ([], [])
    assert len(run["rows"]) == 2 + len(gpu_attention.VARIANTS)
    assert run["rows"][-1]["codec"] == gpu_attention.CALIBRATED
    assert run["rows"][-1]["errors"]["ratio"] < 2
    assert [row["tuned"] for row in run["rows"][:2]] == [None, list(gpu_attention.VARIANTS[0])]
    assert run["rows"][0]["over_sdpa"] == pytest.approx(2)
    page = gpu_attention_table.markdown(gpu_attention_table.runs(host))
    assert page.count("`scalar:b=3`") == len(run["rows"])


def test_what_there_is_no_time_for_is_said(host) -> None:
    words = ["--out", str(host), "--codecs", "trellis:b=2", "--seconds", "0"]
    assert gpu_attention.main(words) == 0
    run = json.loads((host / "gpu-attention-1.json").read_text("utf-8"))
    assert run["rows"] == []
    assert len(run["left"]) > 5


def test_a_run_goes_on_where_the_last_one_was_cut_off(host, monkeypatch) -> None:
    words, real, done = ["--targets", "--out", str(host)], gpu_attention.measure, []

    def measure(made, codec, copy, tuned, decode):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(tuned)
        return real(made, codec, copy, tuned, decode)

    monkeypatch.setattr(gpu_attention, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        gpu_attention.main(words)
    path = host / "gpu-attention-1.json"
    assert len(json.loads(path.read_text("utf-8"))["rows"]) == 2
    done.clear()
    monkeypatch.setattr(gpu_attention, "VARIANTS", gpu_attention.VARIANTS[:2])
    assert gpu_attention.main(words) == 0
    assert done[1] is None  # calibrated
    assert tuple(done[0]) == gpu_attention.VARIANTS[1]
    assert len(json.loads(path.read_text("utf-8"))["rows"]) == 4
    assert gpu_attention.main(words) == 0
    assert len(done) == 2


def test_other_code_or_another_device_begins_a_file_of_its_own(host, monkeypatch) -> None:
    words = ["--targets", "--out", str(host)]
    assert gpu_attention.main(words) == 0
    monkeypatch.setattr("benchmarks.machine.code", lambda: "other")
    assert gpu_attention.main(words) == 0
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "another")
    assert gpu_attention.main(words) == 0
    names = [path.name for path in sorted(host.glob("*.json"))]
    assert names == [f"gpu-attention-{n}.json" for n in (1, 2, 3)]


def test_the_full_plan_has_every_dimension() -> None:
    assert gpu_conform.compile_all is gpu_attention.compile_all
    plan = gpu_attention.full()
    shapes = [shape for shape, _, _ in plan]
    assert {s.context for s in shapes} == {n << 10 for n in (1, 4, 8, 32, 128)}
    assert {s.batch for s in shapes} == {1, 8}
    assert {s.head_dim for s in shapes} == {64, 128, 256}
    assert {s.groups for s in shapes} == {1, 4, 8}
    assert {s.queries for s in shapes} == {1, 4}
    assert {codec for _, codec, _ in plan} == set(gpu_attention.CODECS)
    assert len({(str(shape), codec) for shape, codec, _ in plan}) == len(plan)
