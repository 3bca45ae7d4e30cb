"""What the GPU benchmark measures, known without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
    "query",
    "d4",
    "e8",
)
# Whose encoder walks, or multiplies by a table: no target is a share of a copy.
WALKS = ("trellis", "query")
DIMS = (64, 128, 256)
STEP = {"layers": 32, "heads": HEADS, "batch": 8, "head_dim": 128, "sides": 8}
LAYER = {"hidden": 4096, "query_heads": 32, "wide": 14336}
# Contexts, and codecs of keys and values.
PREFILL: dict[str, Any] = {
    "tokens": (8192, 32768),
    "codecs": (
        ("scalar:b=3", "scalar:b=3"),
        ("trellis", "trellis"),
        ("trellis:b=3", "trellis:b=3"),
        ("query", "trellis"),
    ),
}

# In this order: what says most comes first.
PARTS = {
    "compile": "compile every kernel that is timed, and the self-test",
    "step": "append of one decode step inside a CUDA graph",
    "prefill": "encoding of keys and values against the forward of a layer",
    "bandwidth": "encode and decode against a device-to-device copy",
    "conform": "the conformance suite, profile standard",
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
    def key(self) -> dict[str, Any]:
        """What tells it from other lines."""
        return {"codec": self.codec, "d": self.head_dim, "shape": self.shape.name}

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


def flops(tokens: int) -> float:
    """Of the products of a layer over a prompt; attention counts the half below the diagonal."""
    hidden, queries = LAYER["hidden"], LAYER["query_heads"]
    weights = hidden * (2 * queries + 2 * HEADS) * STEP["head_dim"] + 3 * hidden * LAYER["wide"]
    return 2.0 * tokens * weights + 2.0 * tokens**2 * queries * STEP["head_dim"]


def place(*key: Any) -> tuple[int, ...]:
    """Where a figure stands among those of its kind: the words of what it is of, in plan order."""
    order = [*(s.name for s in reversed(SHAPES)), *CODECS, *DIMS, *PREFILL["tokens"]]
    return tuple(order.index(word) if word in order else len(order) for word in reversed(key))


def text(out: str, parts: list[str]) -> str:
    """What a run would do, for ``--plan``."""
    lines = [f"{name:<12} {PARTS[name]}" for name in parts]
    if "bandwidth" in parts:
        lines += [
            "",
            f"{len(list(rows()))} rows, vectors {DTYPE}, pages of {TOKENS} tokens:",
            f"  codecs    {' '.join(CODECS)}",
            f"  head dims {' '.join(str(d) for d in DIMS)}",
            "  shapes    " + ", ".join(f"{s.name} ({s.pages} pages)" for s in SHAPES),
        ]
    if "step" in parts:
        named = ((name.replace("_", " "), n) for name, n in STEP.items() if name != "sides")
        shape = ", ".join(f"{n} {name}" for name, n in named)
        lines += ["", f"decode step: {shape}; every page of the batch fills at once"]
    if "prefill" in parts:
        pairs = ", ".join("/".join(names) for names in PREFILL["codecs"])
        lines += ["", f"prefill: {' and '.join(map(str, PREFILL['tokens']))} tokens; {pairs}"]
    return "\n".join([*lines, "", f"results go to {out}"])
