"""A plan: which codec each layer and stream gets, as a small TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kakeya_ref.errors import UsageError
from kakeya_ref.registry import parse_codec

FORMAT = "kakeya-plan/1"


@dataclass(frozen=True)
class Plan:
    """Codecs by model layer.

    Attributes
    ----------
    codecs : mapping of int to (str, str)
        Canonical codec strings of keys and values. Layers that are not named are coded as the
        cache is told otherwise.
    """

    codecs: Mapping[int, tuple[str, str]]

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """A plan from its file.

        Rule: cache.plan.file

        Raises
        ------
        UsageError
            No such file, another format, a codec that does not exist.
        """
        try:
            found = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError("cache.plan.file", f"{path}: {error}") from None
        if found.get("format") != FORMAT or not isinstance(found.get("layer"), dict):
            raise UsageError("cache.plan.file", f"{path} is not a plan of format {FORMAT}")
        codecs = {}
        for name, pair in found["layer"].items():
            if not name.isdecimal() or not isinstance(pair, dict) or set(pair) != {"k", "v"}:
                raise UsageError("cache.plan.file", f"{path}: layer {name!r} wants k and v")
            codecs[int(name)] = (str(parse_codec(pair["k"])), str(parse_codec(pair["v"])))
        return cls(codecs)

    def text(self, notes: Mapping[str, str | float | int] | None = None) -> str:
        """The file's text; ``notes`` stand at its head and are not read.

        Examples
        --------
        >>> print(Plan({0: ("trellis:b=3", "trellis")}).text({"bits": 2.5}))
        format = "kakeya-plan/1"
        bits = 2.5
        <BLANKLINE>
        [layer.0]
        k = "trellis:b=3"
        v = "trellis"
        <BLANKLINE>
        """
        head = [f'format = "{FORMAT}"']
        for name, value in (notes or {}).items():
            head.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
        parts = ["\n".join(head) + "\n"]
        for index, (k, v) in sorted(self.codecs.items()):
            parts.append(f'[layer.{index}]\nk = "{k}"\nv = "{v}"\n')
        return "\n".join(parts)
