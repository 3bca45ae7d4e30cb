"""Reads vector files, validates them, and compares one case with the reference."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kakeya_ref import errors, lattice, layout, numerics, registry, rotation, scaling, tables
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.skeletons import Skeleton, table_rank

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "spec" / "vectors"
Case = dict[str, Any]
FIRST = 64  # bytes shown of a value that is stored as a digest


def vector_files() -> list[Path]:
    return sorted((VECTORS / "v1").glob("*/*.json"))


def all_cases() -> Iterator[Case]:
    for path in vector_files():
        yield from json.loads(path.read_text("utf-8"))["cases"]


def schema_errors(value: Any, schema: dict[str, Any] | None = None, at: str = "$") -> list[str]:
    """What is wrong with a value, by the part of JSON Schema that vector.schema.json uses."""
    root = json.loads((VECTORS / "vector.schema.json").read_text("utf-8"))
    return _errors(value, schema or root, root, at)


def _errors(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if "oneOf" in schema:
        hits = sum(not _errors(value, option, root, at) for option in schema["oneOf"])
        return [] if hits == 1 else [f"{at}: matches {hits} of {len(schema['oneOf'])} forms"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int}
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not isinstance(value, tuple(kinds[n] for n in names)):
        return [f"{at}: not {' or '.join(names)}"]
    out = []
    if "const" in schema and value != schema["const"]:
        out.append(f"{at}: not {schema['const']}")
    if "enum" in schema and value not in schema["enum"]:
        out.append(f"{at}: {value!r} is not one of {schema['enum']}")
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            out.append(f"{at}: {value[:40]!r} does not match {schema['pattern']}")
        if len(value) < schema.get("minLength", 0):
            out.append(f"{at}: too short")
    if isinstance(value, int) and value < schema.get("minimum", value):
        out.append(f"{at}: below {schema['minimum']}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            out.append(f"{at}: {len(value)} items")
        for i, item in enumerate(value):
            out += _errors(item, schema.get("items", {}), root, f"{at}[{i}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        out += [
            f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value
        ]
        if len(value) < schema.get("minProperties", 0):
            out.append(f"{at}: empty")
        for name, item in value.items():
            if name in known:
                out += _errors(item, known[name], root, f"{at}.{name}")
            elif schema.get("additionalProperties") is False:
                out.append(f"{at}: {name} is unknown")
            elif isinstance(schema.get("additionalProperties"), dict):
                out += _errors(item, schema["additionalProperties"], root, f"{at}.{name}")
    return out


def noise(seed: int, count: int, exponent: int = -15) -> np.ndarray:
    """Large inputs, as spec/vectors/README.md defines them."""
    out = np.empty(count, dtype=np.float32)
    state = seed
    for i in range(count):
        state, u = tables.splitmix64(state)
        out[i] = (sum(u >> s & 0xFFFF for s in (0, 16, 32, 48)) - 131070) * 2.0**exponent
    return out


def full(text: str, nbytes: int) -> bytes:
    """Bytes of a hex string, continued with zeros."""
    data = bytes.fromhex(text)
    return data + bytes(nbytes - len(data))


def input_array(case: Case) -> np.ndarray:
    given, shape = case["input"], case["shape"]
    count = int(np.prod(shape))
    if "splitmix_seed" in given:
        x = noise(given["splitmix_seed"], count, given.get("exponent", -15))
        assert hashlib.sha256(x.tobytes()).hexdigest() == given["sha256"], case["id"]
        return x.reshape(shape)
    kind = next(k for k in ("f32", "f16", "u8") if k in given)
    dtype = np.dtype({"f32": "<f4", "f16": "<f2", "u8": "u1"}[kind])
    return np.frombuffer(full(given[kind], count * dtype.itemsize), dtype).reshape(shape)


def freeze(data: bytes, limit: int = 2048) -> str | dict[str, Any]:
    """How a value is stored: hex without its zero tail, or a digest when that is large."""
    kept = data.rstrip(b"\0")
    if len(kept) <= limit:
        return kept.hex()
    digest = hashlib.sha256(data).hexdigest()
    return {"sha256": digest, "nbytes": len(data), "first": data[:FIRST].hex()}


def same(frozen: str | dict[str, Any], data: bytes) -> bool:
    if isinstance(frozen, str):
        return full(frozen, len(data)) == data
    return frozen == freeze(data, 0)


def outcome(case: Case) -> dict[str, Any]:
    """What the reference makes of a case: raw bytes, numbers or text by the names of ``expect``."""
    try:
        return _OPS[case["op"]](case)
    except errors.KakeyaError as error:
        return {"error": type(error).__name__, "rule": error.rule}


def differences(case: Case) -> list[str]:
    """Names of ``expect`` that the reference does not reproduce."""
    got, want = outcome(case), case["expect"]
    if ("error" in got) != ("error" in want):
        return [f"{case['id']}: got {got.get('error', 'no error')} {got.get('rule', '')}"]
    out = []
    for name, frozen in want.items():
        value = got.get(name)
        ok = same(frozen, value) if isinstance(value, bytes) else value == frozen
        if not ok:
            out.append(f"{case['id']}: {name} differs")
    return out


def layout_of(case: Case) -> Any:
    return layout.page_layout(case["codec"], case["head_dim"], case["tokens"])


def table_bodies(case: Case) -> list[bytes]:
    """Bodies of the tables of a case; none where it has no tables."""
    bodies = case.get("tables", {}).get("bodies", [])
    if case["verdict"] == "invalid" or not bodies:
        return [bytes.fromhex(body) for body in bodies]
    nbytes = layout.table_layout(case["codec"], case["head_dim"]).nbytes
    return [full(body, nbytes) for body in bodies]


def tables_of(case: Case) -> Skeleton | None:
    """Tables of a case as the contract takes them."""
    bodies, plan = table_bodies(case), layout_of(case)
    if not bodies:
        return None
    analysis, rank = None, table_rank(plan.codec, plan.head_dim)
    shape = (len(bodies), rank, plan.head_dim)
    if "analysis" in case["tables"]:
        data = full(case["tables"]["analysis"], int(np.prod(shape)) * 4)
        analysis = np.frombuffer(data, "<f4").reshape(shape)
    rows = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
    return Skeleton(rows, analysis)


def _decoded(pages: Any, plan: Any, known: Any) -> dict[str, Any]:
    ref = ReferenceBackend()
    return {
        "coefficients": ref.decode(pages, plan, basis="coefficients", tables=known).tobytes(),
        "vectors": ref.decode(pages, plan, tables=known).tobytes(),
    }


def _encode(case: Case) -> dict[str, Any]:
    plan = layout_of(case)
    known = tables_of(case)
    pages = ReferenceBackend().encode(input_array(case), plan, tables=known)
    return {"page": pages.tobytes(), **_decoded(pages, plan, known)}


def _decode(case: Case) -> dict[str, Any]:
    plan = layout_of(case)
    if case["verdict"] == "invalid":
        return _decoded(bytes.fromhex(case["input"]["page"]), plan, tables_of(case))
    pages = full(case["input"]["page"], case["shape"][0] * plan.nbytes)
    return _decoded(pages, plan, tables_of(case))


def _layout(case: Case) -> dict[str, Any]:
    if case["op"] == "table_layout":
        plan = layout.table_layout(case["codec"], case["head_dim"])
    else:
        plan = layout_of(case)
    rows = [[p.name, p.offset, p.nbytes, p.width, p.shift] for p in plan.planes]
    return {"planes": rows, "nbytes": plan.nbytes}


def _rate(case: Case) -> dict[str, Any]:
    plan, a = layout_of(case), case["args"]
    parts = a["n"], a["sinks"], a["exact_bits"], a.get("residual", 0)
    return {"nbytes": layout.sequence_nbytes(plan, plan, *parts)}


def _splitmix(case: Case) -> dict[str, Any]:
    state, out = case["args"]["seed"], []
    for _ in range(case["args"]["count"]):
        state, value = tables.splitmix64(state)
        out.append(value)
    return {"u64": np.array(out, dtype="<u8").tobytes()}


def _signs(case: Case) -> dict[str, Any]:
    a = case["args"]
    return {"i8": tables.signs(a["seed"], a["head_dim"]).astype(np.int8).tobytes()}


def _lattice(case: Case) -> dict[str, Any]:
    codec = registry.parse_codec(case["codec"])
    q, z = codec.integer("q"), input_array(case)
    if codec.id == "d4":
        return {"u64": lattice.rank_even(lattice.nearest_even(z, -q, q)[0], q).tobytes()}
    half, c = lattice.nearest_e8(z, q)
    offset = np.uint64(((2 * q + 1) ** 8 + 1) // 2)
    index = np.where(half, offset + lattice.rank_half(c, q), lattice.rank_even(c, q))
    return {"u64": index.astype("<u8").tobytes()}


def _table(case: Case) -> dict[str, Any]:
    name, key = case["args"]["name"], case["args"]["key"]
    if name in ("centroids", "thresholds"):
        pair = tables.lloyd_max(key)
        return {"f32": pair[name == "thresholds"].tobytes()}
    if name in ("d4", "e8"):
        return {"f32": np.array(tables.lattice_step(name, key)).tobytes()}
    values = tables.gain_grid() if name == "grid" else tables.gain_midpoints()
    return {"f32": values[key : key + 16].tobytes()}


_OPS: dict[str, Any] = {
    "encode": _encode,
    "decode": _decode,
    "layout": _layout,
    "table_layout": _layout,
    "rate": _rate,
    "splitmix": _splitmix,
    "signs": _signs,
    "lattice": _lattice,
    "table": _table,
    "string": lambda c: {"text": str(registry.parse_codec(c["codec"]))},
    "hadamard": lambda c: {"f32": rotation.hadamard(input_array(c)).tobytes()},
    "rotate": lambda c: {"f32": rotation.rotate(input_array(c), c["args"]["seed"]).tobytes()},
    "unrotate": lambda c: {"f32": rotation.unrotate(input_array(c), c["args"]["seed"]).tobytes()},
    "sum": lambda c: {"f32": numerics.halving_sum(input_array(c)).tobytes()},
    "gain": lambda c: {"u8": scaling.gain_byte(input_array(c)).tobytes()},
    "grid": lambda c: {"f32": scaling.gain_of(input_array(c)).tobytes()},
}
