"""What kernels are compiled with, and that they compile to machine code without local memory.

The second half needs nvcc and no GPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from kakeya_fast.cuda import compile as compiler
from kakeya_fast.cuda import params
from kakeya_ref.errors import Unsupported
from kakeya_ref.layout import page_layout

ALLOWANCE = tomllib.loads(Path(__file__).with_name("allowance.toml").read_text("utf-8"))
NVCC = shutil.which("nvcc")
CODECS = (
    "raw:dtype=f16",
    "fp8",
    "int",
    "int:b=3,g=24,axis=channel",
    "scalar:b=3",
    "scalar:b=8",
    "trellis",
    "trellis:b=4,gain=unbiased",
    "query",
    "d4",
    "e8",
)
# Each type of vectors at one head dim at least.
TYPES = {64: "float32", 128: "bfloat16", 256: "float16", 576: "bfloat16", 1024: "float32"}
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# The longest vectors on one architecture only: this takes minutes as it is.
CASES = [
    (codec, d, dtype, ARCHITECTURES if d < 1024 else ("sm_90",))
    for codec in CODECS
    for d, dtype in TYPES.items()
    if not params.refusal(page_layout(codec, d, 32))
]
# Where registers are scarcest.
CASES += [("e8", 576, "float32", ARCHITECTURES), ("e8:q=110", 576, "bfloat16", ARCHITECTURES)]
FUSED = re.compile(r"__fmaf_rn\((\w+), (\w+), ([\w.]+)\)")
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'")
FUNCTION = re.compile(
    r"Function properties for (\w+)\n\D*(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads"
)


class Nvrtc:
    """Stands for NVRTC: keeps what it is given, and answers."""

    NVRTCError = RuntimeError

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.calls = fails, []

    def getVersion(self) -> tuple[int, int]:
        return 13, 0

    def createProgram(self, *args: object) -> int:
        self.calls.append(("create", *args))
        return 1

    def compileProgram(self, program: int, options: tuple[str, ...]) -> None:
        self.calls.append(("compile", options))
        if self.fails:
            raise RuntimeError("NVRTC_ERROR_COMPILATION")

    def getCUBIN(self, program: int) -> bytes:
        return b"machine code"

    def getPTX(self, program: int) -> bytes:
        return b"ptx"

    def getProgramLog(self, program: int) -> str:
        return "what went wrong\0"

    def destroyProgram(self, program: int) -> None:
        self.calls.append(("destroy",))


@pytest.fixture
def nvrtc(monkeypatch, tmp_path) -> Nvrtc:
    fake = Nvrtc()
    monkeypatch.setattr(compiler, "load_nvrtc", lambda: fake)
    monkeypatch.setenv("KAKEYA_CACHE_DIR", str(tmp_path))
    return fake


def unit(codec: str = "scalar:b=3", d: int = 64, direction: str = "encode", **more: str):
    return compiler.unit(page_layout(codec, d, 32), more.pop("dtype", "float32"), direction, **more)


def test_macros_say_what_a_layout_is() -> None:
    made = unit("int:b=3,g=24,axis=channel", 80, dtype="bfloat16")
    assert made.source == "int.cu"
    assert made.entries == ("kakeya_encode", "kakeya_check_input")
    assert set(made.defines) == {
        f"-DKAKEYA_{text}"
        for text in ("D=80", "P=32", "B=3", "G=24", "CHANNEL=1", "KIND=2", "ENCODE=1")
    }
    assert "-DKAKEYA_VECTORS=0" in unit(direction="decode", basis="coefficients").defines


def test_blocks_of_long_walks_are_small() -> None:
    for d, warps in ((256, 8), (264, 2)):
        layout = page_layout("trellis", d, 32)
        blocks, threads = params.launch(layout, 100)
        assert threads == 32 * warps
        assert blocks * warps == 100 * 4
        assert ("-DKAKEYA_WARPS=2" in unit("trellis", d).defines) == (warps == 2)


def test_the_seed_is_data() -> None:
    assert unit("e8:seed=7") == unit("e8")
    assert unit("e8:q=9") != unit("e8")


@pytest.mark.parametrize("word", ["-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true"])
def test_arithmetic_is_asked_for_as_the_format_needs_it(nvrtc, word) -> None:
    """Rule: num.fp32.no-fma, num.subnormal.kept"""
    compiler.build(unit(), "sm_90")
    options = next(call[1] for call in nvrtc.calls if call[0] == "compile")
    assert options.count(word) == 1
    assert not {"-ftz=true", "-fmad=true", "-use_fast_math", "--use_fast_math"} & set(options)
    assert {"-std=c++17", "-arch=sm_90", f"-I{params.SOURCES}"} <= set(options)


def test_code_is_compiled_once_and_kept(nvrtc, tmp_path) -> None:
    path = compiler.build(unit(), "sm_90")
    assert path.read_bytes() == b"machine code"
    assert compiler.build(unit(), "sm_90") == path
    assert [call[0] for call in nvrtc.calls] == ["create", "compile", "destroy"]
    assert compiler.build(unit(), "compute_90").read_bytes() == b"ptx"
    assert sorted(p.suffix for p in (tmp_path / "cuda").iterdir()) == [".cubin", ".ptx"]


def test_the_name_of_kept_code_holds_all_it_depends_on(monkeypatch) -> None:
    names = [
        compiler.path_of(unit(), "sm_90", (13, 0)),
        compiler.path_of(unit(), "sm_80", (13, 0)),
        compiler.path_of(unit(), "sm_90", (13, 1)),
        compiler.path_of(unit("scalar:b=4"), "sm_90", (13, 0)),
        compiler.path_of(unit(direction="decode"), "sm_90", (13, 0)),
    ]
    monkeypatch.setattr(compiler, "sources_hash", lambda: "other sources")
    names.append(compiler.path_of(unit(), "sm_90", (13, 0)))
    monkeypatch.setattr(params, "OPTIONS", (*params.OPTIONS, "-lineinfo"))
    names.append(compiler.path_of(unit(), "sm_90", (13, 0)))
    assert len(set(names)) == len(names)


def test_a_refused_source_shows_the_log_and_leaves_nothing(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(compiler, "load_nvrtc", lambda: Nvrtc(fails=True))
    monkeypatch.setenv("KAKEYA_CACHE_DIR", str(tmp_path))
    with pytest.raises(Unsupported, match=r"(?s)NVRTC refuses scalar\.cu D=64.*what went wrong"):
        compiler.build(unit(), "sm_90")
    assert list(tmp_path.rglob("*.cubin")) == []


def test_a_folder_that_cannot_be_written_is_named(nvrtc, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KAKEYA_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(Unsupported, match="set KAKEYA_CACHE_DIR"):
        compiler.build(unit(), "sm_90")


def test_without_cupy_the_message_says_what_to_install(monkeypatch) -> None:
    for name in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unsupported, match=r"pip install 'kakeya-kv\[cuda\]'"):
        compiler.load_nvrtc()


def test_without_the_library_behind_cupy_too(monkeypatch) -> None:
    def missing() -> None:
        raise RuntimeError("libnvrtc.so not found")

    libs = SimpleNamespace(nvrtc=SimpleNamespace(getVersion=missing))
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", libs)
    monkeypatch.setitem(sys.modules, "cupy_backends", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda", SimpleNamespace())
    with pytest.raises(Unsupported, match=r"kakeya-kv\[cuda\].*libnvrtc"):
        compiler.load_nvrtc()


@pytest.mark.parametrize(
    ("capability", "name"),
    [((9, 0), "sm_90"), ((8, 0), "sm_80"), ((12, 3), "compute_120"), ((8, 7), "compute_80")],
)
def test_devices_newer_than_the_compiler_get_ptx(capability, name) -> None:
    assert compiler.architecture(capability, (75, 80, 90, 120)) == name


def test_devices_too_old_are_refused() -> None:
    with pytest.raises(Unsupported, match=r"\[backend\.name\.explicit\].*sm_70"):
        compiler.architecture((7, 0), (75, 80, 90))


def test_every_entry_of_the_allowance_says_why() -> None:
    named = {key: value for key, value in ALLOWANCE.items() if key != "default"}
    assert all({"stack", "spill", "why"} == set(value) for value in named.values())
    assert ALLOWANCE["default"] == {"stack": 0, "spill": 0}
    cases = {
        f"{codec} kakeya_{what} {arch} D={d} {dtype}"
        for codec, d, dtype, archs in CASES
        for arch in archs
        for what in ("encode", "check_input", "decode", "check_pages")
    }
    assert named.keys() <= cases


def test_nothing_else_is_included() -> None:
    """NVRTC finds no system headers; only the host build may include them."""
    for path in sorted(params.SOURCES.glob("*.cu*")):
        text = path.read_text("utf-8")
        local = re.findall(r'#include "([^"]+)"', text)
        assert [name for name in local if not (params.SOURCES / name).exists()] == []
        if not path.stem.endswith("_host"):
            assert "#include <" not in text, path.name


def compile_with_nvcc(
    codec: str,
    d: int,
    dtype: str,
    target: tuple[str, ...],
    out: Path,
    sources: Path = params.SOURCES,
) -> str:
    """What ptxas says about all entries of a codec at a head dim; the code goes to ``out``."""
    made = [unit(codec, d, direction, dtype=dtype) for direction in ("encode", "decode")]
    words = dict.fromkeys(word for one in made for word in compiler.options(one))
    done = subprocess.run(
        [
            *(NVCC, *target, "-Xptxas", "-v", f"-I{sources}"),
            *(*words, str(sources / made[0].source), "-o", str(out)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize(("codec", "d", "dtype", "archs"), CASES, ids=str)
def test_kernels_compile_without_local_memory(codec, d, dtype, archs, tmp_path) -> None:
    # All architectures in one run of nvcc: the source is read once.
    codes = [f"-gencode=arch={a.replace('sm', 'compute')},code={a}" for a in archs]
    said = compile_with_nvcc(codec, d, dtype, ("-fatbin", *codes), tmp_path / "fatbin")
    made, found = unit(codec, d), []
    for part in re.split(r"(?=Compiling entry function)", said)[1:]:
        name, arch = ENTRY.match(part).groups()
        found.append((name, arch))
        [(same, *counts)] = FUNCTION.findall(part)
        assert same == name
        stack, stores, loads = map(int, counts)
        label = f"{codec} {name} {arch} D={d} {dtype}"
        allowed = ALLOWANCE.get(label, ALLOWANCE["default"])
        assert stack <= allowed["stack"], f"{label}: {stack} bytes of stack"
        assert max(stores, loads) <= allowed["spill"], f"{label}: {stores}, {loads} bytes"
    entries = {*made.entries, *unit(codec, d, "decode").entries}
    assert sorted(found) == sorted((name, arch) for name in entries for arch in archs)


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("codec", CODECS)
def test_the_compiler_fuses_and_flushes_nothing(codec, tmp_path) -> None:
    """Fused operations that the source asks for, one factor being 1 or the term 0, are taken out.

    Rule: num.fp32.no-fma, num.subnormal.kept
    """
    sources = tmp_path / "kernels"
    shutil.copytree(params.SOURCES, sources)
    lanes = sources / "lane_device.cuh"
    text, count = FUSED.subn(r"__fadd_rn(__fmul_rn(\1, \2), \3)", lanes.read_text("utf-8"))
    lanes.write_text(text, "utf-8")
    # Attention is bounded, not exact, and fuses where it says so.
    exact = [p for p in sources.iterdir() if not p.name.startswith(("attend", "tensor"))]
    everything = "".join(path.read_text("utf-8") for path in exact)
    assert "fmaf" not in everything
    assert count <= 2
    compile_with_nvcc(codec, 128, TYPES[128], ("-ptx", "-arch=sm_90"), tmp_path / "ptx", sources)
    used = set(re.findall(r"\b[a-z]+(?:\.\w+)*\.f32\b", (tmp_path / "ptx").read_text("utf-8")))
    assert used
    assert [word for word in used if re.match(r"fma|mad|.*\.(ftz|approx|full)\b", word)] == []
