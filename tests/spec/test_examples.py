"""The worked examples of the spec hold in the reference, number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import spectext

from kakeya_ref import (
    bands,
    bits,
    chains,
    lattice,
    layout,
    numerics,
    registry,
    rotation,
    scaling,
    tables,
)
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.codecs import query
from kakeya_ref.skeletons import Skeleton, parts, table_body, widen16

F32 = np.ndarray
TOKENS = 16


class Bench:
    """One example's inputs, and the reference's answer to each claim's name."""

    def __init__(self, given: dict[str, str]) -> None:
        self.given = given
        self.x = self.numbers("x")
        self.codec = registry.parse_codec(given["codec"]) if "codec" in given else None
        if self.codec and self.x is not None:
            self.layout = layout.page_layout(self.codec, len(self.x), TOKENS)
            page = np.zeros((1, TOKENS, len(self.x)), dtype=np.float32)
            page[0, 0] = self.x
            self.tables = self.table() if registry.table_kind(self.codec) else None
            self.page = ReferenceBackend().encode(page, self.layout, tables=self.tables)
            self.fields = bits.read_page(self.layout, self.page)

    def numbers(self, name: str) -> F32 | None:
        """Rows of a matrix may be divided by bars; planes of a table take them flat."""
        text = self.given.get(name)
        return None if text is None else np.array(text.replace("|", " ").split(), dtype=np.float32)

    def table(self) -> Skeleton:
        d = len(self.x)
        planes = layout.table_layout(self.codec, d).planes
        body = table_body(self.codec, d, **{p.name: self.numbers(p.name) for p in planes})
        self.part = parts(body, self.codec, d)
        return Skeleton(body[None])

    def stored(self, name: str) -> F32:
        """Numbers of 16 bits of the first token."""
        count = self.fields[name].shape[1] // TOKENS
        return widen16(self.fields[name][0, :count].astype(np.uint16), str(self.codec["store"]))

    def components(self) -> F32:
        return chains.project(self.x[None], self.part, None)

    def rest(self) -> F32:
        """What the centre leaves, and before it the trend."""
        c = self.components()
        if self.part.trend.size:
            c = c - self.stored("along") * self.part.trend
        return chains.segment(c, self.part, str(self.codec["store"]), "").rest

    def width(self) -> F32:
        return bands.widths(self.part.spread, layout.band_bits(self.codec, len(self.x)))

    def walk(self) -> F32:
        return query._codes(self.z(), self.width(), self.part.spread)[0].astype(np.float32)

    def y(self) -> F32:
        x = self.x[None]
        if self.codec.id == "query":
            return self.components()[:, : len(self.width())]
        if self.codec.id == "turbo":
            x = np.zeros((1, layout.residual_width(self.codec)), dtype=np.float32)
            x[:, : self.codec.integer("rank")] = self.rest()
        return rotation.rotate(x, self.codec.integer("seed"))

    def z(self) -> F32:
        if "z" in self.given:
            return self.numbers("z")[None]
        scale = scaling.gain_byte(scaling.rms(self.y()))
        r = scaling.reciprocal_of(scale)
        if self.codec.id in layout.LATTICE_BLOCK:
            r = r * tables.lattice_step(self.codec.id, self.codec.integer("q"))[1]
        return self.y() * r

    def points(self) -> F32:
        q, size = self.codec.integer("q"), layout.LATTICE_BLOCK[self.codec.id]
        blocks = self.z().reshape(-1, size)
        if size == 4:
            return lattice.nearest_even(blocks, -q, q)[0].ravel()
        half, c = lattice.nearest_e8(blocks, q)
        return (c + 0.5 * half[:, None]).ravel()

    def scale(self) -> F32:
        if "gain" in self.given:
            return scaling.gain_byte(self.numbers("gain"))
        return self.fields["scales"][0, :1]

    def first(self, name: str) -> F32:
        """Fields of the first token."""
        return self.fields[name][0, : self.fields[name].shape[1] // TOKENS]

    def outputs(self) -> str:
        state, out = int(self.given["seed"]), []
        for _ in range(4):
            state, value = tables.splitmix64(state)
            out.append(f"{value:016x}")
        return " ".join(out)

    def decoded(self, basis: str) -> F32:
        ref = ReferenceBackend()
        return ref.decode(self.page, self.layout, basis=basis, tables=self.tables)[0, 0]


ANSWERS: dict[str, Callable[[Bench], Any]] = {
    "canonical": lambda b: str(b.codec),
    "nbytes": lambda b: str(b.layout.nbytes),
    "outputs": Bench.outputs,
    "signs": lambda b: tables.signs(int(b.given["seed"]), int(b.given["head_dim"])),
    "sum": lambda b: numerics.halving_sum(b.x),
    "chain": lambda b: chains.chain(b.x[None], b.numbers("row")[None])[0],
    "hadamard": lambda b: rotation.hadamard(b.x[None])[0],
    "scale": Bench.scale,
    "rms": lambda b: scaling.rms(b.y()),
    "y": lambda b: b.y()[0],
    "z": lambda b: b.z()[0],
    "points": Bench.points,
    "codes": lambda b: b.first("codes"),
    "index": lambda b: b.first("index"),
    "components": lambda b: b.components()[0],
    "along": lambda b: b.stored("along"),
    "bits": Bench.width,
    "walk": Bench.walk,
    "seg": lambda b: b.first("seg"),
    "proj": lambda b: b.stored("proj"),
    "rest": lambda b: b.rest()[0],
    "value": lambda b: b.stored("value"),
    "place": lambda b: b.first("place"),
    "coefficients": lambda b: b.decoded("coefficients"),
    "vectors": lambda b: b.decoded("vectors"),
}


def answer(bench: Bench, name: str) -> Any:
    if name.startswith(("bytes[", "table[")):
        start, stop = map(int, name[6:-1].split(":"))
        body = bench.page[0] if name.startswith("bytes") else bench.tables.bodies[0]
        return body[start:stop].tobytes().hex()
    return ANSWERS[name](bench)


EXAMPLES = spectext.examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)
def test_example_holds(example: spectext.Example) -> None:
    bench = Bench(example.given)
    for name, text in example.claims.items():
        got = answer(bench, name)
        if isinstance(got, str):
            assert got == text, name
        elif name == "index":
            assert got.tolist() == [int(v) for v in text.split()], name
        else:
            want = np.array(text.split(), dtype=np.float32)
            assert np.asarray(got, dtype=np.float32).tobytes() == want.tobytes(), (name, got)


def test_every_example_claims_something_and_its_name_is_unique() -> None:
    assert all(example.claims for example in EXAMPLES)
    assert len({e.id for e in EXAMPLES}) == len(EXAMPLES) >= 13


def test_every_codec_has_a_worked_example() -> None:
    decoded = [e for e in EXAMPLES if {"vectors", "coefficients"} & set(e.claims)]
    assert {e.given["codec"].partition(":")[0] for e in decoded} == set(registry.codec_ids())
