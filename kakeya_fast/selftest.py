"""The power-on self-test: a few frozen vectors before a backend touches anyone's data."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from kakeya_ref.errors import KakeyaError, Unsupported
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import codec_ids
from kakeya_ref.types import PageLayout

RULE = "backend.selftest.first"
PER_CODEC = 3
LARGEST = 1 << 14


def power_on(backend: Any) -> int:
    """Run a few frozen vectors of every codec the backend offers.

    Rule: backend.selftest.first

    Pages and coefficients are compared bit by bit. A ``bounded`` backend owes no equal pages,
    so for it only decoding is compared.

    Returns
    -------
    int
        Comparisons made, at least one per codec offered.

    Raises
    ------
    Unsupported
        A difference, an error, or nothing to compare: a test that ran nothing has not passed.
    """
    made = 0
    if not files("kakeya_spec").joinpath("vectors", "v1", "raw").is_dir():
        return 0  # vectors have not landed yet
    for codec_id in codec_ids():
        here = 0
        offered = False
        for case in cases(codec_id):
            layout = page_layout(case["codec"], case["head_dim"], case["tokens"])
            support = backend.supports(layout)
            if support.ok:
                offered = True
                here += _run(backend, case, layout, support.features)
        if offered and not here:
            raise Unsupported(RULE, f"{backend.name}: no frozen vector for {codec_id} was run")
        made += here
    if not made:
        raise Unsupported(RULE, f"{backend.name}: no frozen vector was run at all")
    return made


@cache
def cases(codec_id: str) -> tuple[dict[str, Any], ...]:
    """The first few small valid cases of a codec that carry a whole page and its coefficients."""
    folder = files("kakeya_spec").joinpath("vectors", "v1", codec_id)
    found: list[dict[str, Any]] = []
    if folder.is_dir():
        for entry in sorted(folder.iterdir(), key=lambda e: e.name):
            if entry.name.endswith(".json"):
                fitting = filter(_fits, json.loads(entry.read_text("utf-8"))["cases"])
                found.extend(fitting)
    # Spread over the topics rather than all from the first file.
    step = max(1, len(found) // PER_CODEC)
    return tuple(found[::step][:PER_CODEC])


def _fits(case: dict[str, Any]) -> bool:
    return (
        case["op"] == "encode"
        and case["verdict"] == "valid"
        and isinstance(case["expect"].get("page"), str)
        and "coefficients" in case["expect"]
        and ("f32" in case["input"] or "f16" in case["input"])
        and np.prod(case["shape"]) <= LARGEST
    )


def _run(backend: Any, case: dict[str, Any], layout: PageLayout, features: frozenset[str]) -> int:
    n = case["shape"][0]
    page = np.frombuffer(_bytes(case["expect"]["page"], n * layout.nbytes), dtype=np.uint8)
    page = page.reshape(n, layout.nbytes)
    made = 0
    try:
        if "encode" in features and backend.profile == "exact":
            got = backend.encode(_vectors(case), layout)
            _equal(backend, case, "page", np.asarray(got, dtype=np.uint8).tobytes(), page.tobytes())
            made += 1
        if "decode" in features:
            got = backend.decode(page, layout, basis="coefficients")
            _equal(backend, case, "coefficients", np.asarray(got, dtype="<f4").tobytes())
            made += 1
    except KakeyaError as error:
        if error.rule == RULE:
            raise
        raise Unsupported(RULE, f"{backend.name} refuses {case['id']}: {error}") from error
    return made


def _vectors(case: dict[str, Any]) -> np.ndarray:
    kind, dtype = ("f32", "<f4") if "f32" in case["input"] else ("f16", "<f2")
    size = int(np.prod(case["shape"])) * np.dtype(dtype).itemsize
    return np.frombuffer(_bytes(case["input"][kind], size), dtype=dtype).reshape(case["shape"])


def _bytes(text: str, nbytes: int) -> bytes:
    # A hex string that stops early is continued with zeros.
    return bytes.fromhex(text).ljust(nbytes, b"\0")


def _equal(
    backend: Any, case: dict[str, Any], what: str, got: bytes, want: bytes | None = None
) -> None:
    expected = case["expect"][what]
    if isinstance(expected, dict):
        same = len(got) == expected["nbytes"] and (
            hashlib.sha256(got).hexdigest() == expected["sha256"]
        )
    else:
        same = got == (want if want is not None else _bytes(expected, len(got)))
    if not same:
        raise Unsupported(RULE, f"{backend.name} differs in {what} of frozen vector {case['id']}")
