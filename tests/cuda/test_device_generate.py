"""The end-to-end benchmark on a tiny model: all of it but the GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hostlaunch import HostLauncher

from kakeya_fast.cuda.backend import Backend

pytest.importorskip("kakeya_fast.hf", exc_type=ImportError)
from benchmarks import gpu_generate, gpu_generate_table, readme_gpu
from kakeya_fast.hf import decode, policy

CODECS = list(gpu_generate.CODECS)


@pytest.mark.usefixtures("compiler")
def test_every_row_is_measured_and_rendered(tmp_path, monkeypatch) -> None:
    """Packed steps go through the kernels, and their logits are near those of dense keys."""
    ours = Backend(launcher=HostLauncher())
    monkeypatch.setattr(policy, "_backend", lambda name, where: ours)
    inner, direct = decode.attend, []

    def watch(*given):
        direct.append(inner(*given))
        return direct[-1]

    monkeypatch.setattr(decode, "attend", watch)
    result = gpu_generate.run(
        gpu_generate.TINY,
        [gpu_generate.Case(200), gpu_generate.Case(90, 2)],
        CODECS,
        new=7,
        device=torch.device("cpu"),
        backend="cuda",
        out=tmp_path,
        seconds=100,
    )
    assert result["failed"] == []
    assert [row["codec"] for row in result["rows"]] == [*gpu_generate.CODECS, "dynamic"] * 2
    assert len(direct) == 2 * 2 * len(CODECS) * 7
    assert all(x is not None for x in direct)
    three, four, calibrated, dense = result["rows"][:4]
    assert calibrated["bytes"] < four["bytes"]
    assert three["bytes"] < four["bytes"] < dense["bytes"]
    assert three["steps"] == 7 - 1 - gpu_generate.SKIPPED
    assert min(row["cosine"] for row in result["rows"]) > 0.97
    assert three["cosine"] < four["cosine"] < dense["cosine"] == pytest.approx(1)
    saved = json.loads((tmp_path / "gpu-generate.json").read_text("utf-8"))
    assert saved == result
    for row in result["rows"]:
        row["peak"] = row["bytes"]
    seen = {str(unit) for unit, *_ in ours._calls._launcher.seen}
    compiled = {str(unit) for unit in gpu_generate.units(CODECS, gpu_generate.TINY)}
    packed = [name for name in seen if "ENCODE" in name]
    assert len(packed) >= 4
    assert set(packed) <= compiled
    page = gpu_generate_table.markdown(result)
    assert page.count("| `scalar:b=3` |") == 2
    assert page.count("| 1.00 |") >= 2
    told = readme_gpu.generation(tmp_path)
    assert sum(line.startswith("| 200 B=1 |") for line in told) == 1 + len(CODECS)
    assert readme_gpu.generation(tmp_path / "nothing") == []
    run_is_gone_on_with(result, tmp_path, monkeypatch)


def run_is_gone_on_with(result: dict, folder: Path, monkeypatch) -> None:
    """A row of the first case is gone: it and what it is compared with are measured again."""
    path, done = folder / "gpu-generate.json", []
    cut = result | {"rows": [row for row in result["rows"] if row is not result["rows"][1]]}
    path.write_text(json.dumps(cut), "utf-8")

    def measure(model, shape, case, codec, new, backend):
        done.append((str(case), codec))
        [row] = [r for r in result["rows"] if (r["case"], r["codec"]) == done[-1]]
        return row, torch.ones(case.batch, shape.vocabulary)

    monkeypatch.setattr(gpu_generate, "measure", measure)
    given = gpu_generate.TINY, [gpu_generate.Case(200), gpu_generate.Case(90, 2)], CODECS
    more = {"device": torch.device("cpu"), "backend": "cuda", "out": folder}
    again = gpu_generate.run(*given, new=7, seconds=100, **more)
    assert done == [("200 B=1", "dynamic"), ("200 B=1", "scalar:b=4")]
    key = [(row["case"], row["codec"]) for row in result["rows"]]
    assert [(row["case"], row["codec"]) for row in again["rows"]] == key
    # Other lengths are other rows.
    assert gpu_generate.run(*given, new=6, seconds=0, **more)["rows"] == []
