"""Names, devices and environment: what get_backend hands out and what it refuses."""

import logging
import pickle
import re
import threading
from pathlib import Path

import pytest

from kakeya_fast import available_backends, dispatch, env, get_backend, registry
from kakeya_fast.bridge import TensorBridge
from kakeya_fast.registry import BackendInfo
from kakeya_ref.errors import Unsupported

GONE = BackendInfo("gone", ("cpu",), ("cpu",), ("no_such_module_here",), "no_such_module_here:X")
BROKEN = BackendInfo("broken", ("cpu",), ("cpu",), (), "kakeya_fast.env:no_such_attribute")
TORCH = next(i for i in registry.BACKENDS if i.name == "torch")


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("KAKEYA_BACKEND", raising=False)
    monkeypatch.setattr(dispatch, "_ready", {})


def test_explicit_unknown_name_lists_what_there_is():
    with pytest.raises(Unsupported, match=r"\[backend.name.explicit\].*'cuda9'.*torch: available"):
        get_backend("cuda9")


def test_explicit_name_never_falls_back(monkeypatch):
    monkeypatch.setattr(registry, "BACKENDS", (GONE, TORCH))
    with pytest.raises(Unsupported, match="gone needs no_such_module_here, not installed"):
        get_backend("gone")


def test_explicit_name_on_wrong_device_is_loud():
    with pytest.raises(Unsupported, match=r"numba runs on cpu, not on cuda:0"):
        get_backend("numba", "cuda:0")


def test_device_that_torch_does_not_reach_is_loud():
    with pytest.raises(Unsupported, match=r"\[backend.name.explicit\] torch does not reach"):
        get_backend("torch", "cuda:77")


def test_backend_that_does_not_load_is_loud(monkeypatch):
    monkeypatch.setattr(registry, "BACKENDS", (BROKEN,))
    with pytest.raises(Unsupported, match=r"broken: kakeya_fast.env:no_such_attribute"):
        get_backend("broken")


def test_auto_passes_over_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(registry, "BACKENDS", (GONE, BROKEN, TORCH))
    with caplog.at_level(logging.INFO, "kakeya"):
        assert get_backend().name == "torch"
    assert "torch on cpu, after gone needs no_such_module_here" in caplog.text
    assert any(r.levelno == logging.WARNING and "broken" in r.message for r in caplog.records)
    assert {r.message.split()[0] for r in caplog.records} == {
        "[backend.auto.logged]",
        "[backend.selftest.first]",
    }


def test_auto_with_nothing_left_gives_the_reasons(monkeypatch):
    monkeypatch.setattr(registry, "BACKENDS", (GONE, BROKEN))
    with pytest.raises(Unsupported, match=r"no backend for cpu: gone needs.*broken refused"):
        get_backend()


def test_auto_prefers_the_order_of_the_table(monkeypatch):
    assert next(i.name for i in registry.BACKENDS if "cpu" in i.default_devices) == "numba"
    ref = BackendInfo("ref", ("cpu",), ("cpu",), (), "kakeya_ref.backend:ReferenceBackend")
    monkeypatch.setattr(registry, "BACKENDS", (ref, TORCH))
    assert get_backend().name == "ref"


def test_environment_replaces_auto_and_is_explicit(monkeypatch, caplog):
    monkeypatch.setenv("KAKEYA_BACKEND", "torch")
    with caplog.at_level(logging.INFO, "kakeya"):
        assert get_backend().name == "torch"
    assert "KAKEYA_BACKEND names torch" in caplog.text
    monkeypatch.setenv("KAKEYA_BACKEND", "nothing")
    with pytest.raises(Unsupported, match=r"backend.name.explicit"):
        get_backend()
    assert get_backend("torch").name == "torch", "an explicit name wins over the environment"


def test_one_instance_per_name_and_device():
    assert get_backend("torch") is get_backend("torch", "cpu")
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(get_backend("ref"))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({id(b) for b in seen}) == 1


def test_third_party_by_entry_point_only_when_named(monkeypatch):
    monkeypatch.setattr(registry, "BACKENDS", (GONE,))
    backend = get_backend("ref")
    assert isinstance(backend, TensorBridge)
    assert backend.name == "ref"
    with pytest.raises(Unsupported, match=r"\[backend.auto.logged\]"):
        get_backend("auto")


def test_available_backends_reports_reasons(monkeypatch):
    monkeypatch.setattr(registry, "BACKENDS", (GONE, TORCH))
    found = available_backends()
    assert found["torch"] == ""
    assert "no_such_module_here" in found["gone"]
    assert "ref" in found


def test_every_row_of_the_table_can_be_named():
    names = [info.name for info in registry.BACKENDS]
    assert len(set(names)) == len(names)
    for info in registry.BACKENDS:
        assert registry.find(info.name) is info
        assert set(info.default_devices) <= set(info.devices) | {registry.ANY}


def test_backend_survives_pickle_and_keeps_its_device():
    copy = pickle.loads(pickle.dumps(get_backend("torch")))
    assert (copy.name, copy.profile, str(copy.device)) == ("torch", "exact", "cpu")


def test_paths_and_variables_come_from_env(monkeypatch, tmp_path):
    monkeypatch.delenv("KAKEYA_CACHE_DIR", raising=False)
    assert env.cache_dir().parts[-2:] == (".cache", "kakeya")
    monkeypatch.setenv("KAKEYA_CACHE_DIR", str(tmp_path / "c"))
    assert env.cache_dir() == tmp_path / "c"
    assert not env.cache_dir().exists()


def test_environment_variables_are_few_and_all_in_env():
    package = Path(env.__file__).parent
    known = set(re.findall(r"KAKEYA_[A-Z_]+", Path(env.__file__).read_text("utf-8")))
    assert 0 < len(known) <= 5
    for source in package.rglob("*.py"):
        text = source.read_text("utf-8")
        assert set(re.findall(r"KAKEYA_[A-Z_]+", text)) <= known, source
        if "KAKEYA_" in text and source.name != "env.py":
            assert not re.search(r"os\.(environ|getenv)", text), source
