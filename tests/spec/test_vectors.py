"""The reference reproduces every vector, and so do exact fractions where a case says hand."""

from __future__ import annotations

import json

import byhand
import byhand_codecs
import byhand_query
import byhand_skeletons
import pytest
import vectorcheck as vc
import vectorgen

from kakeya_ref.registry import parse_codec

CASES = list(vc.all_cases())
SMALL = [
    c
    for c in CASES
    if c["origin"] == "hand"
    and c["op"] in ("encode", "decode")
    and c["verdict"] == "valid"
    and c["shape"][0] * c["shape"][1] * c["shape"][2] <= 16 * 32
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_reference_reproduces(case: vc.Case) -> None:
    assert vc.differences(case) == []


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c["id"])
def test_fractions_reproduce(case: vc.Case) -> None:
    """A second implementation, from the text alone, meets the same bytes."""
    codec = parse_codec(case["codec"])
    params, (n, p, d) = dict(codec.params), case["shape"]
    tables = vc.table_bodies(case) * n
    if case["op"] == "encode":
        x = vc.input_array(case).astype(float).tolist()
        if tables:
            known = vc.tables_of(case).analysis
            rows = [None] * n if known is None else known.astype(float).tolist() * n
            bodies = [
                _encoded(codec.id, params, page, table, row)
                for page, table, row in zip(x, tables, rows, strict=False)
            ]
        else:
            bodies = [byhand_codecs.encode(codec.id, params, page) for page in x]
        assert vc.same(case["expect"]["page"], b"".join(bodies))
    else:
        data = vc.full(case["input"]["page"], vc.layout_of(case).nbytes * n)
        bodies = [data[i * len(data) // n : (i + 1) * len(data) // n] for i in range(n)]
    if tables:
        decoded = [
            _decoded(codec.id, params, body, table, p, d)
            for body, table in zip(bodies, tables, strict=False)
        ]
    else:
        decoded = [byhand_codecs.decode(codec.id, params, body, p, d) for body in bodies]
    for name, which in (("coefficients", 0), ("vectors", 1)):
        numbers = [v for page in decoded for row in page[which] for v in row]
        assert vc.same(case["expect"][name], byhand.words(numbers)), name


def _encoded(codec: str, params: dict, page: list, table: bytes, row: list | None) -> bytes:
    if codec == "query":
        return byhand_query.encode(params, page, table, row)
    return byhand_skeletons.encode(codec, params, page, table, row)


def _decoded(codec: str, params: dict, body: bytes, table: bytes, p: int, d: int) -> tuple:
    if codec == "query":
        return byhand_query.decode(params, body, table, p, d)
    return (byhand_skeletons.decode(codec, params, body, table, p, d),) * 2


def test_gain_tables_are_powers_of_two_rounded_once() -> None:
    assert byhand_codecs.table("gain", "grid") == byhand.GRID
    assert byhand_codecs.table("gain", "midpoints") == byhand.MIDPOINT


@pytest.mark.parametrize("codec", ["d4", "e8"])
def test_lattice_steps_fall_and_their_reciprocals_are_nearest(codec: str) -> None:
    pairs = [byhand_codecs.table("lattice_step", codec, q) for q in range(110)]
    assert [k for k, _ in pairs] == sorted((k for k, _ in pairs), reverse=True)
    assert all(byhand.div(1.0, k) == inverse for k, inverse in pairs)


@pytest.mark.parametrize("b", range(1, 9))
def test_lloyd_max_tables_are_symmetric_and_thresholds_lie_halfway(b: int) -> None:
    c = byhand_codecs.table("lloyd_max", str(b), "centroids")
    t = byhand_codecs.table("lloyd_max", str(b), "thresholds")
    assert (len(c), len(t)) == (2**b, 2**b - 1)
    assert c == sorted(c)
    assert [-v for v in reversed(c)] == c
    assert all(abs(m - (a + z) / 2) < 3e-7 for m, a, z in zip(t, c, c[1:], strict=False))


def test_case_that_differs_is_reported() -> None:
    case = json.loads(json.dumps(next(c for c in CASES if c["op"] == "sum")))
    case["expect"]["f32"] = "01020304"
    assert vc.differences(case) == [f"{case['id']}: f32 differs"]


def test_add_gives_ids_and_never_rewrites(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(vc, "VECTORS", tmp_path)
    monkeypatch.setattr(vectorgen, "MANIFEST", tmp_path / "MANIFEST.sha256")
    schema = (vc.ROOT / "spec/vectors/vector.schema.json").read_bytes()
    (tmp_path / "vector.schema.json").write_bytes(schema)

    def draft() -> dict:
        case = {
            "op": "string", "rules": ["codec.string.canonical"], "level": "bits",
            "origin": "ref@0.1", "comment": "x", "flags": [], "verdict": "valid", "codec": "e8",
        }  # fmt: skip
        return vectorgen.scaffold("numerics", "string") | {"cases": [case]}

    assert vectorgen.add(draft()) == ["numerics.string.001"]
    assert vectorgen.add(draft()) == ["numerics.string.002"]
    file = json.loads((tmp_path / "v1/numerics/string.json").read_text())
    assert [c["expect"] for c in file["cases"]] == [{"text": "e8"}] * 2
    taken = draft()
    taken["cases"][0]["id"] = "numerics.string.001"
    with pytest.raises(SystemExit, match="ids are assigned here"):
        vectorgen.add(taken)
    assert vectorgen.MANIFEST.read_text() == vectorgen.manifest()
