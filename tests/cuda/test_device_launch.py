"""Arguments, refusals and what is said where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from hostlaunch import HostLauncher

from kakeya_fast import available_backends, get_backend
from kakeya_fast.cuda import Backend, calls, launch
from kakeya_fast.cuda.tables import Beside, Tables
from kakeya_fast.dispatch import registry
from kakeya_fast.proved import Proved
from kakeya_ref.errors import Unsupported, UsageError
from kakeya_ref.layout import page_layout

SCALAR = page_layout("scalar:b=3", 64, 32)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_arguments_stand_in_the_order_of_the_kernels() -> None:
    x = torch.zeros(5, 64, 64)[::2, ::2].transpose(1, 2)[:, :32, :]
    tables, status = torch.zeros(4, dtype=torch.int32), torch.zeros(2, dtype=torch.int64)
    pool, slots = torch.zeros(9, 48, dtype=torch.uint8)[:, 16:], torch.zeros(3, dtype=torch.int64)
    assert calls.encode_args(x, Beside(tables), pool, slots, status) == (
        *(x.data_ptr(), 2 * 64 * 64, 1, 128),
        *(tables.data_ptr(), 0),
        *(pool.data_ptr(), 48, slots.data_ptr()),
        *(3, status.data_ptr()),
    )
    assert calls.encode_args(x, Beside(tables), None, None, status)[5:9] == (0, 0, 0, 0)
    assert calls.decode_args(pool, None, Beside(tables, slots), x, status) == (
        *(pool.data_ptr(), 48, 0),
        *(tables.data_ptr(), slots.data_ptr()),
        *(x.data_ptr(), 2 * 64 * 64, 1, 128),
        *(3, status.data_ptr()),
    )


def test_tables_are_uploaded_once_for_a_layout() -> None:
    tables = Tables(torch.device("cpu"))
    first = tables(SCALAR)
    assert first.dtype == torch.int32
    assert tables(page_layout("scalar:b=3", 64, 32)) is first
    assert not torch.equal(tables(page_layout("scalar:b=3,seed=2", 64, 32)), first)


def test_work_that_a_capture_does_not_allow_is_refused(monkeypatch) -> None:
    """Rule: backend.graph.prepared"""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(UsageError, match=r"\[backend\.graph\.prepared\] call prepare\(\) for that"):
        launch.refuse_while_capturing(torch.device("cuda", 0), "that")
    launch.refuse_while_capturing(torch.device("cpu"), "that")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    launch.refuse_while_capturing(torch.device("cuda", 0), "that")


@pytest.mark.parametrize("name", ["cpu", "cuda:99", "nonsense"])
def test_devices_that_are_not_there(name) -> None:
    """Rule: backend.name.explicit"""
    with pytest.raises(Unsupported, match=r"\[backend\.name\.explicit\]"):
        launch.cuda_device(name)


@without_gpu
def test_without_a_gpu_the_backend_says_so() -> None:
    with pytest.raises(Unsupported, match=r"\[backend\.name\.explicit\] torch .* no CUDA device"):
        Backend()
    with pytest.raises(Unsupported, match=r"\[backend\.name\.explicit\] cuda "):
        get_backend("cuda", "cuda")


def test_it_is_the_first_choice_on_cuda_and_none_on_the_cpu() -> None:
    on_cuda = [i.name for i in registry.BACKENDS if {"cuda", "any"} & set(i.default_devices)]
    assert on_cuda == ["cuda", "torch"]
    assert "runs on cuda, not on cpu" in available_backends("cpu")["cuda"] or (
        "cupy" in available_backends("cpu")["cuda"]
    )


@without_gpu
def test_auto_on_cuda_says_why_it_went_on() -> None:
    """Rule: backend.auto.logged"""
    with pytest.raises(Unsupported, match=r"\[backend\.auto\.logged\].*cuda .*; torch "):
        get_backend("auto", "cuda")


def test_it_is_pickled_by_its_device() -> None:
    assert Backend(launcher=HostLauncher()).__reduce__() == (Backend, ("cpu",))


@pytest.mark.usefixtures("compiler")
def test_a_capture_before_the_self_test_is_refused_and_can_be_repeated(monkeypatch) -> None:
    """Rule: backend.graph.prepared, backend.selftest.first"""
    backend, capturing = Proved(Backend(launcher=HostLauncher()), "cpu"), [True]

    def refuse(device, what):
        if capturing[0]:
            raise UsageError("backend.graph.prepared", what)

    monkeypatch.setattr("kakeya_fast.cuda.backend.refuse_while_capturing", refuse)
    x, slots = torch.randn(1, 32, 64), torch.zeros(1, dtype=torch.int64)
    pool, status = torch.zeros(1, SCALAR.nbytes, dtype=torch.uint8), backend.new_status()
    with pytest.raises(UsageError, match=r"backend\.graph\.prepared"):
        backend.append(x, SCALAR, pool, slots, status=status)
    capturing[0] = False
    backend.append(x, SCALAR, pool, slots, status=status)
    assert bool((pool != 0).any())
