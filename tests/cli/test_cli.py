"""Every command from the outside: figures, JSON, exit codes, no tracebacks."""

import json

import numpy as np
import pytest

pytest.importorskip("typer")
from typer.testing import CliRunner

from kakeya_fast.cli import conform as conform_command
from kakeya_fast.cli.app import app
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import codec_ids


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def data(*args):
    result = call(*args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_codecs_lists_the_registry():
    listed = data("codecs", "--json")["codecs"]
    assert [c["id"] for c in listed] == codec_ids()
    scalar = next(c for c in listed if c["id"] == "scalar")
    assert scalar["bits"]["default"]["64"] == page_layout("scalar:b=4", 64).bits_per_element
    assert scalar["bits"]["least"]["codec"] == "scalar:b=1"
    table = call("codecs")
    assert table.exit_code == 0
    assert all(name in table.stdout for name in codec_ids())


def test_inspect_shows_planes_of_both_streams_and_a_sequence():
    found = data("inspect", "scalar:b=3", "--v", "e8:q=3", "--tokens", "1000", "--json")
    assert [p["name"] for p in found["layout"]["planes"]] == ["scales", "codes2", "codes1"]
    assert found["layout"]["nbytes"] == page_layout("scalar:b=3", 64).nbytes
    assert found["v_layout"]["codec"] == "e8:q=3"
    sequence = found["sequence"]
    assert sequence["pages"] == 31
    assert sequence["true_bytes"] == sequence["page_bytes"] + sequence["exact_bytes"]
    table = call("inspect", "scalar:b=3", "--tokens", "1000")
    assert "codes2" in table.stdout
    assert "against bf16" in table.stdout


def test_inspect_counts_tables():
    from kakeya_ref.layout import table_layout

    found = data("inspect", "turbo:rank=40", "--tokens", "1100", "--json")
    table = table_layout("turbo:rank=40", 64).nbytes + 4
    assert found["layout"]["tokens"] == 512
    assert found["sequence"]["table_bytes"] == 2 * 2 * table
    assert found["sequence"]["true_bytes"] == sum(
        found["sequence"][f"{part}_bytes"] for part in ("page", "table", "exact")
    )
    assert "tables" in call("inspect", "turbo:rank=40", "--tokens", "1100").stdout


@pytest.mark.parametrize("codec", ["raw:dtype=bf16", "fp8", "int:b=3,g=8", "scalar:b=3", "e8:q=3"])
def test_inspect_reads_page_bytes(codec, tmp_path):
    layout = page_layout(codec, 64, 16)
    x = np.random.default_rng(1).standard_normal((2, 16, 64)).astype(np.float32)
    pages = ReferenceBackend().encode(x, layout)
    (tmp_path / "pages.bin").write_bytes(pages.tobytes())
    options = ("--page-tokens", "16", "--json")
    found = data("inspect", codec, "--file", tmp_path / "pages.bin", *options)
    assert found["pages"] == 2
    rms = next(c for c in found["contents"] if c["what"].startswith("rms"))
    assert rms["mean"] == pytest.approx(1.0, abs=0.1)
    assert found["first_vector"] == ReferenceBackend().decode(pages, layout)[0, 0].tolist()
    assert data("inspect", codec, "--hex", pages.tobytes().hex(), *options) == found
    assert call("inspect", codec, "--hex", pages.tobytes().hex(), *options[:2]).exit_code == 0


def test_inspect_reads_codes_as_they_were_written():
    from kakeya_fast.cli.pagebytes import fields

    layout = page_layout("int:b=3,g=64", 64, 16)
    codes = np.random.default_rng(2).integers(0, 8, (1, 16, 64))
    # lo = 0 and step = 1 make every code its own value, if all codes occur in every token.
    codes[:, :, :8] = np.arange(8)
    pages = ReferenceBackend().encode(codes.astype(np.float32), layout)
    assert (fields(pages, layout)["codes"] == codes).all()


def test_inspect_counts_a_model(tiny):
    found = data("inspect", "scalar:b=4", "--model", tiny, "--ctx", "1000", "--json")
    parts = {p["part"]: p["bytes"] for p in found["parts"]}
    assert parts["all"] == parts["pages"] + parts["sinks and unfilled page"]
    assert parts["pages"] == 2 * 2 * 31 * 2 * page_layout("scalar:b=4", 16).nbytes
    assert "pages" in call("inspect", "--model", tiny).stdout


def test_quality_writes_and_prints_the_report(tiny, tmp_path):
    out = tmp_path / "quality.json"
    run = ("quality", "--model", tiny, "--ctx", 96, "--passages", 2, "--backend", "torch")
    table = call(
        *run, "--k", "raw", "--k", "scalar:b=2", "--v", "raw", "--v", "e8:q=2", "--json", out
    )
    assert table.exit_code == 0, table.output
    stored = json.loads(out.read_text())
    assert stored["settings"] == ["raw", "scalar:b=2/e8:q=2"]
    raw, coarse = stored["summary"]
    assert abs(raw["kl"]["mean"]) < 1e-5 < coarse["kl"]["mean"]
    assert "scalar:b=2/e8:q=2" in table.stdout
    printed = data(*run, "--setting", "scalar:b=2", "--json", "-")
    assert printed["protocol"]["ctx"] == 96


def test_quality_takes_tabled_codecs_and_options_of_the_cache(tiny):
    run = ("quality", "--model", tiny, "--ctx", 160, "--passages", 1, "--backend", "ref")
    options = ("--residual", 32, "--exact-layers", "-1")
    found = data(*run, "--setting", "turbo:b=2@page=32", *options, "--json", "-")
    assert found["settings"] == ["turbo:b=2@page=32,residual=32,exact=-1"]
    (row,) = found["summary"]
    assert row["page_tokens"] == 32
    assert row["page_bits"] > 2
    table = call(*run, "--setting", "skeleton:res=2@page=48", "--k", "scalar:b=2")
    assert table.exit_code == 0, table.output
    assert "skeleton:res=2 page=48" in table.stdout
    refused = call(*run, "--setting", "turbo", "--exact-layers", "x")
    assert refused.exit_code == 2
    assert "quality.setting.known" in refused.stderr


@pytest.mark.parametrize(("codec", "inject"), [("turbo:b=2", "norm"), ("skeleton", "")])
def test_stages_shows_every_stage_and_writes_its_plot(tiny, tmp_path, codec, inject):
    run = ("stages", "--model", tiny, "--layer", 1, "--ctx", 128, "--block", 64, "--codec", codec)
    run += ("--backend", "ref", "--inject", inject)
    found = data(*run, "--json", "-")
    assert found["blocks"] == 2
    assert found["stages"][-1]["name"] == "bytes"
    assert bool(found["injected"]) == bool(inject)
    table = call(*run, "--plot", tmp_path / "s.png", "--json", tmp_path / "s.json")
    assert table.exit_code == 0, table.output
    assert all(stage["name"].split()[0] in table.stdout for stage in found["stages"])
    assert ("SNR with it" in table.stdout) == bool(inject)
    assert json.loads((tmp_path / "s.json").read_text())["stages"] == found["stages"]
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_depth_and_layers_print_tables_and_write_files(tiny, tmp_path):
    small = ("--model", tiny, "--ctx", 112, "--passages", 2, "--backend", "ref")
    small += ("--setting", "turbo:b=2@page=32")
    for command, extra in (("depth", ("--layers-list", "1,2")), ("layers", ("--exact", 1))):
        out, plot = tmp_path / f"{command}.json", tmp_path / f"{command}.png"
        table = call(command, *small, *extra, "--json", out, "--plot", plot)
        assert table.exit_code == 0, table.output
        stored = json.loads(out.read_text())
        assert stored["format"] == f"kakeya-{command}/1"
        assert all(row["name"].split()[0] in table.stdout for row in stored["summary"])
        assert plot.stat().st_size > 1000
        assert data(command, *small, *extra, "--json", "-")["summary"] == stored["summary"]


def test_calibrate_writes_tables_that_a_cache_reads(tiny, tmp_path):
    """Rule: query.tables.given, query.tables.match"""
    import torch

    from kakeya_fast.hf import build_kakeya_cache
    from kakeya_fast.quality.models import load_model

    out = tmp_path / "tables.safetensors"
    given = ["calibrate", "--model", tiny, "--text", "manual", "--out", out]
    given += ["--ctx", "200", "--tokens", "600"]
    told = data(*given, "--json")
    model = load_model(str(tiny)).model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert (told["layers"], told["frame"], told["texts"]) == (2, 32, ["manual"])
    assert told["share_of_model"] == pytest.approx(told["nbytes"] / weights)
    cache = build_kakeya_cache(model, "query:b=3", "trellis:b=3", tables=out)
    with torch.no_grad():
        model(torch.arange(80)[None], past_key_values=cache)
    assert [layer.state.pages.used for layer in cache.layers] == [2, 2]
    first = out.read_bytes()
    said = call(*given)
    assert said.exit_code == 0
    assert f"{told['nbytes']} bytes of tables" in said.stdout
    assert out.read_bytes() == first
    short = call(*given, "--tokens", "100")
    assert short.exit_code == 2
    assert "[query.calibrate.text]" in short.stderr


def test_demo_generates_and_writes_its_files(tiny, tmp_path):
    out = tmp_path / "out"
    small = ("--ctx", 96, "--tokens", 4, "--passages", 2, "--passage-tokens", 80)
    small += ("--calibration", 256)
    found = data("demo", "--model", tiny, "--out", out, *small, "--json")
    assert found == json.loads((out / "demo.json").read_text())
    assert (out / "demo.png").stat().st_size < 100_000
    base, raw, *_ = found["runs"]
    assert base["setting"] == "uncompressed"
    assert all(len(r["tokens"]) == 4 for r in found["runs"])
    assert raw["setting"].startswith("raw")
    assert raw["sizes"]["true_bytes"] > 0
    assert len(found["quality"]["summary"]) == len(found["runs"]) - 1
    screen = call("demo", "--model", tiny, "--out", out, *small)
    assert screen.exit_code == 0, screen.output
    assert "uncompressed goes on" in screen.stdout
    assert "scalar:b=3" in screen.stdout
    assert "query:b=3/trellis:b=3,gain=unbiased" in screen.stdout
    assert (out / "tables.safetensors").exists()


def test_conform_passes_arguments_and_exit_code_through(monkeypatch):
    seen = []

    def run(command):
        seen.append(command)
        return type("Done", (), {"returncode": 7})

    monkeypatch.setattr(conform_command.subprocess, "run", run)
    assert call("conform", "ref", "--json", "--only", "x").exit_code == 7
    assert seen[0][1:] == ["-m", "kakeya_conformance", "ref", "--json", "--only", "x"]


@pytest.mark.parametrize(
    ("args", "rule"),
    [
        (("inspect", "nope"), "codec.string.known"),
        (("inspect", "turbo"), "codec.fit.resolved"),
        (("inspect", "turbo:rank=8", "--hex", "00"), "codec.table.given"),
        (("inspect", "scalar:b=9"), "codec.params.range"),
        (("inspect", "scalar", "--head-dim", "60"), "page.head-dim.multiple-of-8"),
        (("inspect", "scalar", "--hex", "00"), "page.length.exact"),
        (("inspect", "scalar", "--hex", ""), "page.length.exact"),
        (("inspect", "scalar", "--hex", "zz"), "cli.inspect.input"),
        (("inspect", "scalar", "--file", "none.bin"), "cli.inspect.input"),
        (("inspect", "scalar", "--tokens", "0"), "cli.inspect.input"),
        (("quality", "--k", "raw", "--v", "raw", "--v", "raw"), "cli.quality.pairs"),
        (("quality", "--text", "none.txt"), "text.name.known"),
        (("quality", "--json", f"{__file__}/x.json"), "cli.out.folder"),
        (("layers", "--plot", f"{__file__}/x.png"), "cli.out.folder"),
        (("stages", "--json", f"{__file__}/x.json"), "cli.out.folder"),
        (("plan", "--bits", "3", "--out", f"{__file__}/x.toml"), "cli.out.folder"),
        (("calibrate", "--model", "m", "--text", "t", "--out", f"{__file__}/x"), "cli.out.folder"),
        (("quality", "--model", "none"), "model.name.known"),
        (("quality", "--setting", "turbo@pages=1"), "quality.setting.known"),
        (("stages", "--codec", "scalar"), "stages.codec.tabled"),
        (("stages", "--inject", "sign"), "stages.inject.known"),
        (("stages", "--stream", "q"), "cli.stages.stream"),
        (("stages", "--metric", "manual"), "quality.metric.leak"),
        (("depth", "--setting", "turbo@exact=0"), "cli.sweep.setting"),
        (("depth", "--layers-list", "a"), "depth.count.range"),
        (("layers", "--setting", "turbo@protocol=snapshot"), "cli.sweep.setting"),
        (("demo", "--model", "none"), "model.name.known"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(args, rule):
    result = call(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: [{rule}]")
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_missing_extra_is_named(monkeypatch):
    def absent(_):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("kakeya_fast.quality.texts.load_text", absent)
    result = call("quality")
    assert result.exit_code == 2
    assert "pip install 'kakeya-kv[hf]'" in result.stderr
