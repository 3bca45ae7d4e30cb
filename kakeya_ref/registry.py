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

_STRING = re.compile(
    r"[a-z][a-z0-9_]*(:[a-z]+=[a-z0-9]+(\.[0-9]+)?(,[a-z]+=[a-z0-9]+(\.[0-9]+)?)*)?"
)


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
            shown.append(f"{name}={spelled(rule, chosen)}")
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


def spelled(rule: dict[str, Any], value: ParamValue) -> str:
    """A value as codec strings have it, ``rule`` being its entry in the registry.

    Rule: codec.string.tenths

    Examples
    --------
    >>> [spelled({"tenths": True}, v) for v in (20, 25)]
    ['2', '2.5']
    """
    if not rule.get("tenths"):
        return str(value)
    whole, rest = divmod(int(value), 10)
    return f"{whole}.{rest}" if rest else str(whole)


def _value(codec_id: str, name: str, text: str, rule: dict[str, Any]) -> ParamValue:
    if "choices" in rule:
        if text not in rule["choices"]:
            raise UsageError(
                "codec.params.range", f"{codec_id}:{name}={text} is not one of {rule['choices']}"
            )
        return text
    whole, point, rest = text.partition(".")
    # A leading zero would give one codec two spellings.
    if not whole.isdigit() or (len(whole) > 1 and whole[0] == "0"):
        raise UsageError("codec.params.range", f"{codec_id}:{name}={text} is not a whole number")
    value = int(whole)
    if rule.get("tenths"):
        if point and (len(rest) != 1 or rest == "0"):
            raise UsageError(
                "codec.string.tenths", f"{codec_id}:{name}={text}: one decimal, and not a zero"
            )
        value = 10 * value + int(rest or 0)
    elif point:
        raise UsageError("codec.params.range", f"{codec_id}:{name}={text} is not a whole number")
    step = rule.get("multiple", 1)
    if not rule["min"] <= value <= rule["max"] or value % step:
        raise UsageError(
            "codec.params.range",
            f"{codec_id}:{name}={text} is outside {spelled(rule, rule['min'])}.."
            f"{spelled(rule, rule['max'])} in steps of {spelled(rule, step)}",
        )
    return value
