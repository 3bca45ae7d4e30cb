"""Shared memory of the kernels, checked access by access through a host build of their own.

The host runs lanes in step and warps in turn, so that a barrier which is missing changes no result
there. This build keeps who wrote and who read each byte last, and counts what nothing keeps apart.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from addresses import QUERY
from hostlaunch import HostLauncher
from test_device_attend import SHAPES, Case
from test_host_exact import LAYOUTS, awkward

from kakeya_conformance.tables import given
from kakeya_fast.cuda import host, hostbuild
from kakeya_ref.layout import page_layout

pytestmark = pytest.mark.usefixtures("compiler")
BARRIERS, WARP_BARRIERS, WAITS, COPIES = 1, 2, 4, 8
# A second warp, a third stage, more tiles than stages; keys in frames, which come with a tile.
FEW = ("plain", "calibrated", "walks-of-three", "two-stages")
Watch = Callable[..., tuple[int, int, str]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """``watch(run, without=0)``: races of a run, accesses seen, the first race in words."""
    monkeypatch.setattr(hostbuild, "FLAGS", (*hostbuild.FLAGS, "-DKAKEYA_RACES"))
    lib = hostbuild.library()
    lib.kakeya_host_races.restype = ctypes.c_longlong

    def watched(run: Callable[[], object], without: int = 0) -> tuple[int, int, str]:
        lib.kakeya_host_races_begin(without)
        run()
        seen, first = ctypes.c_longlong(), ctypes.c_char_p()
        found = lib.kakeya_host_races(ctypes.byref(seen), ctypes.byref(first))
        return found, seen.value, (first.value or b"").decode()

    return watched


def attend(name: str) -> Callable[[], object]:
    case = Case(SHAPES[name], HostLauncher())
    attention = case.attention()
    return lambda: attention(*case.given(), **case.options())


@pytest.mark.parametrize("name", SHAPES)
def test_attention_has_no_races(watch: Watch, name: str) -> None:
    found, seen, first = watch(attend(name))
    assert found == 0, first
    assert seen > 10_000


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    ("without", "words"),
    [
        (BARRIERS, "another"),
        (WARP_BARRIERS, "another"),
        (WAITS, "before its copy has come"),
        (COPIES, "what nobody wrote"),
    ],
)
def test_what_is_left_out_is_missed(watch: Watch, name: str, without: int, words: str) -> None:
    found, _, first = watch(attend(name), without)
    assert found > 0
    assert words in first


def code(codec: str, d: int, tokens: int) -> Callable[[], object]:
    layout, backend = page_layout(codec, d, tokens), host.Backend()
    option = {}
    if layout.codec.id == "query":
        option = {"tables": given("plausible", 0, 1, layout)}
    x = awkward(2, tokens, d)

    def both() -> None:
        body = backend.encode(x, layout, **option)
        backend.decode(body, layout, **option)

    return both


@pytest.mark.parametrize(("codec", "d", "tokens"), [*LAYOUTS, *QUERY])
def test_codecs_have_no_races(watch: Watch, codec: str, d: int, tokens: int) -> None:
    found, _, first = watch(code(codec, d, tokens))
    assert found == 0, first


@pytest.mark.parametrize(
    ("codec", "d"),
    [
        ("scalar:b=3", 128),
        ("int:b=3,g=24", 80),
        ("trellis", 64),
        ("trellis:gain=unbiased", 96),
        ("query:b=3", 64),
    ],
)
def test_codecs_miss_the_barrier_of_a_warp(watch: Watch, codec: str, d: int) -> None:
    found, seen, first = watch(code(codec, d, 16), WARP_BARRIERS)
    assert found > 0
    assert seen > np.prod((2, 16, d))
    assert "another" in first
