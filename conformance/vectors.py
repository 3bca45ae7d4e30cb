"""Frozen vectors: reading the JSON files of ``spec/vectors`` and judging against a case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.model import Nonconforming
from kakeya_ref.layout import page_layout, table_layout
from kakeya_ref.skeletons import Skeleton, table_rank
from kakeya_ref.types import PageLayout

THROUGH_A_BACKEND = ("encode", "decode")
SHOWN = 16


@dataclass(frozen=True)
class Vector:
    """One frozen case that goes through a backend."""

    id: str
    op: str
    rules: tuple[str, ...]
    level: str
    layout: PageLayout
    case: dict[str, Any]

    @property
    def expect(self) -> dict[str, Any]:
        """What must come out: bytes, floats, or an error class and its rule."""
        found: dict[str, Any] = self.case["expect"]
        return found

    def input_vectors(self) -> NDArray[Any]:
        """Input of an ``encode`` case, (N, P, D) float32 or float16."""
        shape, given = tuple(self.case["shape"]), self.case["input"]
        if "splitmix_seed" in given:
            x = splitmix_normal(
                given["splitmix_seed"], int(np.prod(shape)), given.get("exponent", -15)
            )
            if hashlib.sha256(x.astype("<f4").tobytes()).hexdigest() != given["sha256"]:
                raise ValueError(f"{self.id}: the generator does not give the pinned input")
            return x.reshape(shape)
        name = "f32" if "f32" in given else "f16"
        kind = np.dtype("<f4" if name == "f32" else "<f2")
        raw = bytes.fromhex(given[name]).ljust(int(np.prod(shape)) * kind.itemsize, b"\0")
        return np.frombuffer(raw, dtype=kind).astype(kind.newbyteorder("=")).reshape(shape)

    def tables(self) -> Skeleton | None:
        """Tables of the case; an ``encode`` case may have an analysis beside them."""
        given = self.case.get("tables")
        if given is None:
            return None
        nbytes = table_layout(self.layout.codec, self.layout.head_dim).nbytes
        if self.case["verdict"] == "invalid":
            nbytes = 0
        raw = [bytes.fromhex(body).ljust(nbytes, b"\0") for body in given["bodies"]]
        bodies = np.frombuffer(b"".join(raw), dtype=np.uint8).reshape(len(raw), -1)
        if "analysis" not in given:
            return Skeleton(bodies)
        rank = table_rank(self.layout.codec, self.layout.head_dim)
        shape = (len(raw), rank, self.layout.head_dim)
        rows = bytes.fromhex(given["analysis"]).ljust(int(np.prod(shape)) * 4, b"\0")
        return Skeleton(bodies, np.frombuffer(rows, "<f4").astype(np.float32).reshape(shape))

    def input_page(self) -> bytes:
        """Input of a ``decode`` case; a valid page is continued with zeros, an invalid one not."""
        raw = bytes.fromhex(self.case["input"]["page"])
        if self.case["verdict"] == "invalid":
            return raw
        nbytes = self.layout.nbytes
        shape = self.case.get("shape")
        pages = shape[0] if shape else max(1, -(-len(raw) // nbytes))
        return raw.ljust(pages * nbytes, b"\0")


def judge_blob(got: NDArray[Any], blob: str | dict[str, Any], what: str) -> None:
    """Bytes of an array equal a frozen value: hex continued with zeros, or a digest."""
    raw = np.ascontiguousarray(got).tobytes()
    if isinstance(blob, dict):
        if len(raw) != blob["nbytes"] or hashlib.sha256(raw).hexdigest() != blob["sha256"]:
            first = bytes.fromhex(blob["first"])
            shown = raw[: len(first)].hex()
            raise Nonconforming(
                f"{what}: digest differs ({len(raw)} bytes, want {blob['nbytes']})",
                got=shown,
                want=first.hex(),
            )
        return
    wanted = bytes.fromhex(blob).ljust(len(raw), b"\0")
    if raw != wanted:
        at = next((i for i, (a, b) in enumerate(zip(raw, wanted, strict=False)) if a != b), 0)
        raise Nonconforming(
            f"{what}: {len(raw)} bytes, want {len(wanted)}; first difference at byte {at}",
            byte=at,
            got=raw[at : at + SHOWN].hex(),
            want=wanted[at : at + SHOWN].hex(),
        )


def splitmix_normal(seed: int, count: int, exponent: int) -> NDArray[np.float32]:
    """Near-Gaussian numbers that any language can make: four 16-bit fields of SplitMix64, summed.

    Returns
    -------
    (count,) float32
        ``(sum of the four fields - 131070) * 2**exponent``, exact.
    """
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    total = sum((z >> np.uint64(16 * k)) & np.uint64(0xFFFF) for k in range(4))
    return ((np.asarray(total).astype(np.int64) - 131070) * 2.0**exponent).astype(np.float32)


def _json_files(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _json_files(entry)
        elif entry.name.endswith(".json"):
            yield entry


def _root() -> Traversable:
    return files("kakeya_spec").joinpath("vectors")


@cache
def frozen_vectors() -> tuple[Vector, ...]:
    """Every case that goes through a backend, in file order."""
    found = []
    for file in _json_files(_root().joinpath("v1")):
        for case in json.loads(file.read_text("utf-8"))["cases"]:
            if case["op"] in THROUGH_A_BACKEND:
                layout = page_layout(case["codec"], case["head_dim"], case["tokens"])
                found.append(
                    Vector(
                        case["id"], case["op"], tuple(case["rules"]), case["level"], layout, case
                    )
                )
    return tuple(found)


def manifest_hash() -> str:
    """First 12 hex digits of the hash of ``MANIFEST.sha256``; ``none`` without one."""
    manifest = _root().joinpath("MANIFEST.sha256")
    if not manifest.is_file():
        return "none"
    return hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]


@cache
def manifest_problems() -> tuple[str, ...]:
    """What differs between the files and ``MANIFEST.sha256``: hash, number of cases, presence.

    A changed vector is not evidence, and a suite that read fewer cases has not run.

    Rule: conformance.vectors.frozen
    """
    manifest = _root().joinpath("MANIFEST.sha256")
    if not manifest.is_file():
        return ("MANIFEST.sha256 is not there",)
    problems = []
    for line in manifest.read_text("utf-8").splitlines():
        digest, count, path = line.split()
        file = _root().joinpath(path)
        if not file.is_file():
            problems.append(f"{path} is not there")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            problems.append(f"{path} differs from MANIFEST.sha256")
        elif len(json.loads(file.read_text("utf-8"))["cases"]) != int(count):
            problems.append(f"{path} does not hold {count} cases")
    return tuple(problems)
