"""What the GPU benchmark measures, known without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

TOKENS = 32  # of a page
HEADS = 8  # KV heads of one layer of an 8B model
DTYPE = "bfloat16"  # of vectors in and out
CODECS = (
    "raw:dtype=bf16",
    "fp8",
    "int",
    "scalar:b=2",
    "scalar:b=3",
    "scalar",
    "trellis",
    "trellis:b=3",
    "d4",
    "e8",
)
DIMS = (64, 128, 256)
STEP = {"layers": 32, "heads": HEADS, "batch": 8, "head_dim": 128}

STEPS = {
    "compile": "compile every kernel that is timed",
    "bandwidth": "encode and decode against a device-to-device copy",
    "step": "append of one decode step inside a CUDA graph",
    "conformance": "the conformance suite, profile standard",
    "sanitizer": "compute-sanitizer: memcheck, then racecheck",
}


@dataclass(frozen=True)
class Shape:
    """A number of pages with a name for people."""

    name: str
    pages: int


@dataclass(frozen=True)
class Row:
    """One line of the bandwidth table."""

    codec: str
    head_dim: int
    shape: Shape

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return self.shape.pages * TOKENS * self.head_dim * 2


SHAPES = (
    Shape("1 page", 1),
    *(Shape(f"{k}k tokens", k * 1024 // TOKENS * HEADS) for k in (1, 16, 128)),
)


def rows() -> Iterator[Row]:
    """Every line of the table; the largest shapes, which say most, come first."""
    for shape in reversed(SHAPES):
        for codec in CODECS:
            for d in DIMS:
                yield Row(codec, d, shape)


def text(out: str, steps: list[str]) -> str:
    """What a run would do, for ``--plan``."""
    lines = [f"{name:<12} {STEPS[name]}" for name in steps]
    if "bandwidth" in steps:
        lines += [
            "",
            f"{len(list(rows()))} rows, vectors {DTYPE}, pages of {TOKENS} tokens:",
            f"  codecs    {' '.join(CODECS)}",
            f"  head dims {' '.join(str(d) for d in DIMS)}",
            "  shapes    " + ", ".join(f"{s.name} ({s.pages} pages)" for s in SHAPES),
        ]
    if "step" in steps:
        parts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in STEP.items())
        lines += ["", f"decode step: {parts}; every page of the batch fills at once"]
    return "\n".join([*lines, "", f"results go to {out}"])
