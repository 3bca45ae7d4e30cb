"""The power-on self-test: a few frozen vectors before a backend touches anyone's data."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import KakeyaError, Unsupported
from kakeya_ref.layout import page_layout, table_layout
from kakeya_ref.registry import codec_ids, is_resolved, parse_codec
from kakeya_ref.skeletons import Skeleton, table_rank
from kakeya_ref.types import PageLayout

RULE = "backend.selftest.first"
PER_CODEC = 4
WIDEST = 128
# A bounded encoder may pick other codes than the frozen ones, but hardly worse ones.
SLACK = 1.02


def power_on(backend: Any) -> int:
    """Run a few frozen vectors of every codec the backend offers; see :func:`prove`.

    Raises
    ------
    Unsupported
        A difference, an error, or nothing to compare: a test that ran nothing has not passed.
    """
    total = sum(prove(backend, codec_id) for codec_id in codec_ids() if offers(backend, codec_id))
    if not total:
        raise Unsupported(RULE, f"{backend.name}: offers no codec, so nothing was tested")
    return total


def prove(backend: Any, codec_id: str) -> int:
    """Run a few frozen vectors of a codec that the backend offers.

    Rule: backend.selftest.first

    An ``exact`` backend must write the frozen bytes; a ``bounded`` one must land as near its
    input as they do. Both must read the frozen bytes as the frozen coefficients, bit by bit.

    Returns
    -------
    int
        Comparisons made, at least one.

    Raises
    ------
    Unsupported
        As :func:`power_on`.
    """
    made = 0
    for case in cases(codec_id):
        layout = page_layout(case["codec"], case["head_dim"], case["tokens"])
        support = backend.supports(layout)
        if support.ok:
            made += _run(backend, case, layout, support.features)
    if not made:
        raise Unsupported(RULE, f"{backend.name}: no frozen vector of {codec_id} was run")
    return made


def offers(backend: Any, codec_id: str) -> bool:
    """Whether the backend takes a plain layout of the codec, or that of one of its cases."""
    layouts = [page_layout(c["codec"], c["head_dim"], c["tokens"]) for c in cases(codec_id)]
    plain = [_plain(codec_id)] if _folder(codec_id).is_dir() else []
    return any(backend.supports(layout).ok for layout in plain + layouts)


def _plain(codec_id: str) -> PageLayout:
    """A layout that whoever offers the codec surely offers."""
    codec = parse_codec(codec_id)
    return page_layout(codec if is_resolved(codec) else f"{codec_id}:rank=8", 64, 16)


@cache
def cases(codec_id: str) -> tuple[dict[str, Any], ...]:
    """One frozen encode case per head dim, ``PER_CODEC`` at most.

    The smallest comes first, because its page is stored whole and a reader can be tested on it;
    then the widest, because a rotation over few numbers hides most mistakes.
    """
    folder = _folder(codec_id)
    found: dict[int, dict[str, Any]] = {}
    for entry in sorted(folder.iterdir(), key=lambda e: e.name) if folder.is_dir() else ():
        if entry.name.endswith(".json"):
            for case in json.loads(entry.read_text("utf-8"))["cases"]:
                if _fits(case):
                    found.setdefault(case["head_dim"], case)
    return tuple(found[d] for d in sorted(found, key=lambda d: (d != 8, -d))[:PER_CODEC])


def _folder(codec_id: str) -> Any:
    return files("kakeya_spec").joinpath("vectors", "v1", codec_id)


def _fits(case: dict[str, Any]) -> bool:
    return (
        case["op"] == "encode"
        and case["verdict"] == "valid"
        and "coefficients" in case["expect"]
        and case["head_dim"] <= WIDEST
    )


def _run(backend: Any, case: dict[str, Any], layout: PageLayout, features: frozenset[str]) -> int:
    """Comparisons made on one case."""
    made, frozen = 0, case["expect"]["page"]
    shape = (case["shape"][0], layout.nbytes)
    page = None if isinstance(frozen, dict) else _array(frozen, "u1", shape)
    options = _tables(case, layout)
    try:
        if "encode" in features:
            x = _vectors(case)
            mine = np.asarray(backend.encode(x, layout, **options), dtype=np.uint8)
            if backend.profile == "exact":
                _same(backend, case, "page", mine.tobytes())
                page = mine
            elif page is not None and "decode" in features:
                _near(backend, case, layout, options, x, mine, page)
            made += 1
        if "decode" in features and page is not None:
            y = np.asarray(backend.decode(page, layout, basis="coefficients", **options), "<f4")
            _same(backend, case, "coefficients", y.tobytes())
            made += 1
    except Exception as error:  # a backend may break in any way; all of them mean "not fit"
        if isinstance(error, KakeyaError) and error.rule == RULE:
            raise
        raise Unsupported(
            RULE, f"{backend.name} breaks on {case['id']}: {type(error).__name__}: {error}"
        ) from error
    return made


def _same(backend: Any, case: dict[str, Any], what: str, got: bytes) -> None:
    want = case["expect"][what]
    if isinstance(want, dict):
        equal = hashlib.sha256(got).hexdigest() == want["sha256"]
    else:
        equal = got == bytes.fromhex(want).ljust(len(got), b"\0")
    if not equal:
        raise Unsupported(RULE, f"{backend.name} differs in {what} of frozen vector {case['id']}")


def _near(
    backend: Any,
    case: dict[str, Any],
    layout: PageLayout,
    options: dict[str, Skeleton],
    x: NDArray[Any],
    mine: NDArray[np.uint8],
    page: NDArray[np.uint8],
) -> None:
    wide = x.astype(np.float64)

    def distance(body: NDArray[np.uint8]) -> float:
        return float(np.linalg.norm(wide - backend.decode(body, layout, **options)))

    if not distance(mine) <= SLACK * distance(page) + 1e-5 * float(np.linalg.norm(wide)):
        raise Unsupported(RULE, f"{backend.name} encodes frozen vector {case['id']} badly")


def _tables(case: dict[str, Any], layout: PageLayout) -> dict[str, Skeleton]:
    """The tables of a case as an option of a call; nothing where its codec has none."""
    if "tables" not in case:
        return {}
    given, size = case["tables"], table_layout(layout.codec, layout.head_dim).nbytes
    bodies = np.concatenate([_array(body, "u1", (1, size)) for body in given["bodies"]])
    shape = (len(bodies), table_rank(layout.codec, layout.head_dim), layout.head_dim)
    analysis = _array(given["analysis"], "<f4", shape) if "analysis" in given else None
    return {"tables": Skeleton(bodies, analysis)}


def _vectors(case: dict[str, Any]) -> NDArray[Any]:
    given = case["input"]
    if "splitmix_seed" not in given:
        kind, dtype = ("f32", "<f4") if "f32" in given else ("f16", "<f2")
        return _array(given[kind], dtype, case["shape"])
    count = int(np.prod(case["shape"]))
    with np.errstate(over="ignore"):
        state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = state + np.uint64(given["splitmix_seed"])
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    total = sum((z >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4))
    values = (total.astype(np.float64) - 131070) * 2.0 ** given.get("exponent", -15)
    return values.astype(np.float32).reshape(case["shape"])


def _array(text: str, dtype: str, shape: tuple[int, ...] | list[int]) -> NDArray[Any]:
    """Array of a hex string; one that stops early is continued with zeros."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(bytes.fromhex(text).ljust(size, b"\0"), dtype=dtype).reshape(shape)
