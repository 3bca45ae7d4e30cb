"""Attention kernels compile to machine code without local memory; needs nvcc and no GPU."""

from __future__ import annotations

import subprocess

import pytest
from test_compile import ALLOWANCE, FUNCTION, NVCC

from kakeya_fast.cuda import attend_plan, params
from kakeya_fast.cuda import compile as compiler
from kakeya_fast.cuda.compile import Unit
from kakeya_ref.layout import page_layout

# Shared memory of a block: A100, H100, B200.
SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10}
# Codecs of K and V, head dim, query rows: one product of 8 rows, and two. Keys of query: frames.
THREE, FOUR, WALK = "scalar:b=3", "scalar:b=4", "trellis:b=2"
WALK3, WALK4, BANDS = "trellis:b=3", "trellis:b=4", "query:b=3"
CASES = [
    (THREE, THREE, 128, 8),
    (FOUR, FOUR, 128, 4),
    ("scalar:b=2", THREE, 64, 16),
    (WALK, WALK, 128, 8),
    (FOUR, WALK, 256, 8),
    (BANDS, WALK3, 128, 8),
    (BANDS, WALK4, 64, 16),
    ("query:b=2.5", WALK, 256, 8),
    (WALK3, WALK4, 128, 4),
]


def unit(k: str, v: str, d: int, rows: int, shared: int, **flags: bool) -> Unit:
    layouts = page_layout(k, d, 32), page_layout(v, d, 32)
    kind, framed = params.KINDS["bfloat16"], k.startswith("query")
    if framed:  # as a cache asks for it
        kind, flags = params.KINDS["float32"], flags | {"bias": True, "framed": True}
    tuned = attend_plan.tuning(layouts, rows, shared, framed=framed)
    numbers = attend_plan.numbers(layouts, kind, rows, tuned, **flags)
    assert numbers.shared <= shared
    entries = (attend_plan.ENTRY, attend_plan.TURN) if framed else (attend_plan.ENTRY,)
    return Unit("attend.cu", numbers.defines(tuned.resident), entries)


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("arch", SHARED)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_compiles_without_local_memory(case, arch, tmp_path) -> None:
    made = unit(*case, SHARED[arch])
    done = subprocess.run(
        [
            *(NVCC, "-cubin", f"-arch={arch}", "-Xptxas", "-v", f"-I{params.SOURCES}"),
            *(*compiler.options(made), str(params.SOURCES / made.source)),
            *("-o", str(tmp_path / "cubin")),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = FUNCTION.findall(done.stderr)
    assert {name for name, *_ in found} == {*made.entries}
    for name, *counts in found:
        stack, stores, loads = map(int, counts)
        label = "attend.cu {} {} K={} V={} D={} M={}".format(name, arch, *case)
        allowed = ALLOWANCE.get(label, ALLOWANCE["default"])
        assert stack <= allowed["stack"], f"{label}: {stack} bytes of stack"
        assert max(stores, loads) <= allowed["spill"], f"{label}: spills {stores}, {loads} bytes"


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
def test_every_option_compiles(tmp_path) -> None:
    for codec in (THREE, BANDS):
        made = unit(codec, THREE, 128, 8, SHARED["sm_90"], softcap=True, window=True, bias=True)
        words = (*compiler.options(made), str(params.SOURCES / made.source))
        command = [NVCC, "-cubin", "-arch=sm_90", f"-I{params.SOURCES}", *words]
        assert subprocess.run([*command, "-o", str(tmp_path / "cubin")]).returncode == 0


def test_macros_are_the_numbers() -> None:
    """Rule: backend.graph.prepared"""
    made = unit(THREE, WALK, 64, 32, SHARED["sm_90"], window=True)
    assert {"-DKAKEYA_KB=3", "-DKAKEYA_VB=2", "-DKAKEYA_NT=4", "-DKAKEYA_WINDOW=1"} <= {
        *made.defines
    }
    assert str(made).startswith("attend.cu D=64")
