"""Codec strings: ``id:param=value,...`` checked against ``spec/registry.toml``.

Rule: codec.string.canonical, codec.string.known, codec.params.range
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from kakeya_ref.errors import UsageError
from kakeya_ref.types import Codec, ParamValue

_STRING = re.compile(r"[a-z][a-z0-9_]*(:[a-z]+=[a-z0-9]+(,[a-z]+=[a-z0-9]+)*)?")


@cache
def registry() -> dict[str, Any]:
    """``spec/registry.toml``, parsed."""
    return tomllib.loads(files("kakeya_spec").joinpath("registry.toml").read_text("utf-8"))


def codec_ids() -> list[str]:
    """Every registered codec id, in registry order."""
    return list(registry()["codecs"])


def parse_codec(text: str | Codec) -> Codec:
    """A codec from its string; unknown names and out-of-range values are refused.

    Rule: codec.string.canonical, codec.string.known, codec.params.range

    Raises
    ------
    UsageError
        The string does not parse, or names an unknown codec, parameter or value.

    Examples
    --------
    >>> str(parse_codec("scalar:seed=1,b=3"))
    'scalar:b=3'
    >>> parse_codec("e8")["q"]
    10
    """
    if isinstance(text, Codec):
        return text
    if not isinstance(text, str) or not _STRING.fullmatch(text):
        raise UsageError(
            "codec.string.canonical", f"{text!r} does not read as id:param=value,param=value"
        )
    codec_id, _, tail = text.partition(":")
    if codec_id not in registry()["codecs"]:
        known = ", ".join(codec_ids())
        raise UsageError("codec.string.known", f"no codec {codec_id!r}; known are {known}")
    declared: dict[str, Any] = registry()["codecs"][codec_id].get("params", {})
    given: dict[str, str] = {}
    for item in filter(None, tail.split(",")):
        name, value = item.split("=")
        if name not in declared:
            raise UsageError(
                "codec.string.known",
                f"{codec_id} has no parameter {name!r}; it has {sorted(declared)}",
            )
        if name in given:
            raise UsageError("codec.string.canonical", f"{name} stands twice in {text!r}")
        given[name] = value
    params: list[tuple[str, ParamValue]] = []
    shown: list[str] = []
    for name, rule in declared.items():
        chosen: ParamValue = rule["default"]
        if name in given:
            chosen = _value(codec_id, name, given[name], rule)
        params.append((name, chosen))
        if chosen != rule["default"]:
            shown.append(f"{name}={chosen}")
    canonical = codec_id + (":" + ",".join(shown) if shown else "")
    codec = Codec(codec_id, tuple(params), canonical)
    steering = [item.partition("=")[0] for item in shown if fits(codec_id, item)]
    if is_resolved(codec) and steering:
        raise UsageError(
            "codec.fit.resolved", f"{text!r} has a rank, so {steering} would mean nothing"
        )
    return codec


def fits(codec_id: str, item: str) -> bool:
    """Whether a parameter (``name`` or ``name=value``) steers a fit only, never the bytes."""
    rule = registry()["codecs"][codec_id]["params"][item.partition("=")[0]]
    return bool(rule.get("fit", False))


def table_kind(codec: Codec) -> str:
    """Kind of table the codec needs besides its pages; empty for codecs that need none.

    Rule: codec.table.given
    """
    return str(registry()["codecs"][codec.id].get("table", ""))


def is_resolved(codec: Codec) -> bool:
    """Whether the string says all that a layout needs: always, unless a fit must choose a rank.

    Rule: codec.fit.resolved
    """
    return table_kind(codec) != "skeleton" or codec.integer("rank") > 0


def resolved(codec: Codec, **chosen: int) -> Codec:
    """The codec with what a fit chose, and without what steered the fit.

    Rule: codec.fit.resolved

    Examples
    --------
    >>> str(resolved(parse_codec("turbo:b=2,vr=90"), rank=26))
    'turbo:b=2,rank=26'
    """
    kept = {n: v for n, v in codec.params if not fits(codec.id, n)} | chosen
    return parse_codec(f"{codec.id}:" + ",".join(f"{n}={v}" for n, v in kept.items()))


def _value(codec_id: str, name: str, text: str, rule: dict[str, Any]) -> ParamValue:
    if "choices" in rule:
        if text not in rule["choices"]:
            raise UsageError(
                "codec.params.range", f"{codec_id}:{name}={text} is not one of {rule['choices']}"
            )
        return text
    # A leading zero would give one codec two spellings.
    if not text.isdigit() or (len(text) > 1 and text[0] == "0"):
        raise UsageError("codec.params.range", f"{codec_id}:{name}={text} is not a whole number")
    value = int(text)
    step = rule.get("multiple", 1)
    if not rule["min"] <= value <= rule["max"] or value % step:
        raise UsageError(
            "codec.params.range",
            f"{codec_id}:{name}={value} is outside {rule['min']}..{rule['max']} in steps of {step}",
        )
    return value
