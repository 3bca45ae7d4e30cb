"""What is measured: codecs of keys and values, and how the cache around them is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kakeya_ref.errors import UsageError
from kakeya_ref.registry import parse_codec, table_kind

# A table must serve enough tokens to be worth its bytes; the predecessors' block.
TABLED_PAGE = 512

OPTIONS = ("page", "residual", "exact", "metric", "tables", "protocol", "plan", "sliding")

Protocol = Literal["inforward", "snapshot"]
Sliding = Literal["library", "pack"]


@dataclass(frozen=True)
class Setting:
    """Codec strings of keys and values, and what may differ between settings of one run.

    Attributes
    ----------
    k, v : str
        Canonical codec strings.
    page : int
        Tokens of a page; 0 for the usual: 512 where a codec has tables, the run's otherwise.
    residual : int
        At least that many recent tokens are read exactly.
    exact : tuple of int
        Model layers kept exact, ascending; negative from the end.
    metric : str
        Name of the text whose queries whiten the keys before a fit; empty for none.
    tables : str
        File of calibrated tables, for keys of ``query``.
    protocol : str
        ``inforward`` or ``snapshot``.
    plan : str
        Path of a plan, whose codecs go before ``k`` and ``v``; empty for none.
    sliding : str
        ``library``, or ``pack``: sliding-window layers are packed, too.
    """

    k: str
    v: str
    page: int = 0
    residual: int = 0
    exact: tuple[int, ...] = ()
    metric: str = ""
    tables: str = ""
    protocol: Protocol = "inforward"
    plan: str = ""
    sliding: Sliding = "library"

    @classmethod
    def parse(cls, text: str) -> Setting:
        """``codec`` for both streams, or ``codec/codec``; then ``@name=value,...`` if need be.

        Raises
        ------
        UsageError
            A codec or an option that does not exist (``quality.setting.known``).

        Examples
        --------
        >>> Setting.parse("scalar:b=4/e8").v
        'e8'
        >>> str(Setting.parse("turbo@page=256,exact=0+1+-1"))
        'turbo@page=256,exact=-1+0..1'
        """
        codecs, _, tail = text.partition("@")
        k, _, v = codecs.partition("/")
        found: dict[str, object] = {}
        for item in filter(None, tail.split(",")):
            name, _, value = item.partition("=")
            if name not in OPTIONS or name in found:
                raise UsageError("quality.setting.known", f"{item!r} in {text!r}")
            found[name] = _value(name, value, text)
        if found.get("protocol") == "snapshot" and found.get("sliding") == "pack":
            raise UsageError("quality.setting.known", f"snapshots of sliding layers in {text!r}")
        return cls(str(parse_codec(k)), str(parse_codec(v or k)), **found)  # type: ignore[arg-type]

    def __str__(self) -> str:
        tail = {
            "page": self.page,
            "residual": self.residual,
            "exact": ranges(self.exact),
            "metric": self.metric,
            "tables": self.tables,
            "protocol": "" if self.protocol == "inforward" else self.protocol,
            "plan": self.plan,
            "sliding": "" if self.sliding == "library" else self.sliding,
        }
        shown = ",".join(f"{name}={value}" for name, value in tail.items() if value)
        return self.codecs + ("@" + shown if shown else "")

    @property
    def codecs(self) -> str:
        """The codecs alone."""
        return self.k if self.k == self.v else f"{self.k}/{self.v}"

    @property
    def tabled(self) -> bool:
        """Whether a codec has tables fitted to the page."""
        return any(table_kind(parse_codec(c)) == "skeleton" for c in (self.k, self.v))

    def page_tokens(self, usual: int) -> int:
        """Tokens of a page, where ``usual`` is the run's number for codecs without tables."""
        return self.page or (TABLED_PAGE if self.tabled else usual)


def ranges(indices: Sequence[int]) -> str:
    """Ascending indices, runs of them as ``a..b``.

    Examples
    --------
    >>> ranges((0, 1, 2, 5)), parse_ranges("0..2+5")
    ('0..2+5', (0, 1, 2, 5))
    """
    runs: list[list[int]] = []
    for i in indices:
        # -1 and 0 are the two ends, no neighbours.
        if runs and i == runs[-1][-1] + 1 and i != 0:
            runs[-1].append(i)
        else:
            runs.append([i])
    return "+".join(str(r[0]) if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in runs)


def parse_ranges(text: str) -> tuple[int, ...]:
    """Indices of ``0..2+5``, ascending.

    Raises
    ------
    ValueError
        Something that is no number.
    """
    found: set[int] = set()
    for part in filter(None, text.split("+")):
        first, _, last = part.partition("..")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _value(name: str, value: str, text: str) -> int | str | tuple[int, ...]:
    try:
        if name == "exact":
            return parse_ranges(value)
        if name in ("page", "residual"):
            return int(value)
    except ValueError:
        raise UsageError("quality.setting.known", f"{name}={value!r} in {text!r}") from None
    if name == "protocol" and value not in get_args(Protocol):
        raise UsageError("quality.setting.known", f"protocol {value!r}: inforward or snapshot")
    if name == "sliding" and value not in get_args(Sliding):
        raise UsageError("quality.setting.known", f"sliding {value!r}: library or pack")
    return value
