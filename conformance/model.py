"""A check, what it is run on, and how it fails."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from kakeya_conformance.trial import Trial

Level = Literal["bits", "ulp", "norm", "tie", "quality"]
Over = Literal["backend", "layout", "drawn", "vector"]
Body = Callable[["Trial"], None]


class Nonconforming(AssertionError):
    """The backend did not do what the rule says.

    ``detail`` carries the worst page and the hex of both sides when bytes or floats differ.
    """

    def __init__(self, message: str, **detail: object) -> None:
        super().__init__(message)
        self.detail = detail


class SuiteUsage(ValueError):
    """An option or an expected file that means nothing to the suite."""


class NotApplicable(Exception):
    """The check has nothing to say about this case; it is counted as skipped, with a reason."""


@dataclass(frozen=True)
class Check:
    """One claim about a backend.

    Attributes
    ----------
    name : str
        ``check_<area>__<claim>``: the public, permanent id.
    rules : tuple of str
        Rules of the spec whose violation this check reports.
    level : str
        Agreement level, see :mod:`kakeya_conformance.levels`.
    needs : frozenset of str
        Features the backend must announce.
    over : str
        What one case is: the whole backend, a layout of the profile, a Hypothesis example of a
        codec, or a frozen vector.
    codecs : frozenset of str
        Codec ids the claim is about; empty means every codec.
    """

    name: str
    rules: tuple[str, ...]
    level: Level
    needs: frozenset[str]
    over: Over
    codecs: frozenset[str]
    body: Body = field(compare=False)

    @property
    def area(self) -> str:
        """``decode`` of ``check_decode__repeats``."""
        return self.name.removeprefix("check_").partition("__")[0]

    @property
    def sentence(self) -> str:
        """The claim in one sentence."""
        return (self.body.__doc__ or "").strip()

    def concerns(self, codec_id: str) -> bool:
        """Whether the claim is about this codec."""
        return not self.codecs or codec_id in self.codecs


_CHECKS: dict[str, Check] = {}


def check(
    *,
    rules: Iterable[str],
    level: Level,
    needs: Iterable[str] = (),
    over: Over = "layout",
    codecs: Iterable[str] = (),
) -> Callable[[Body], Body]:
    """Register a plain function ``check_<area>__<claim>(t)`` as a check."""

    def register(body: Body) -> Body:
        name = body.__name__
        if not name.startswith("check_") or "__" not in name or not body.__doc__:
            raise ValueError(f"{name}: a check is named check_<area>__<claim> and says its claim")
        if name in _CHECKS and _CHECKS[name].body.__module__ != body.__module__:
            raise ValueError(f"two checks are called {name}")
        _CHECKS[name] = Check(
            name, tuple(rules), level, frozenset(needs), over, frozenset(codecs), body
        )
        return body

    return register


def all_checks() -> list[Check]:
    """Every check of the suite, sorted by name."""
    package = importlib.import_module("kakeya_conformance.checks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"kakeya_conformance.checks.{module.name}")
    return [_CHECKS[name] for name in sorted(_CHECKS)]
