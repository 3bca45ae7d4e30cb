"""The tokens a run reads: running prose, or one paragraph over and over, as the predecessor did."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.texts import Text, load_text
from kakeya_ref.errors import UsageError

REPEATED = "repeated"
# About a hundred tokens, the length of the predecessor's paragraph; the words are our own.
PARAGRAPH = (
    "A tide mill keeps the sea behind a gate. When the water has risen as far as it will, the "
    "miller shuts the gate and waits until the shore outside has fallen dry; then a narrow channel "
    "opens below the pond, and the wheel turns for some hours on what the moon has lifted. Nothing "
    "is burnt and nothing is spent, but the hours of work wander through day and night, and in a "
    "week of small tides the stones stand still and the flour has to come from elsewhere. "
)


@dataclass(frozen=True)
class Stretch:
    """Tokens of a run and what they are.

    Attributes
    ----------
    ids : tuple of int
        Special tokens of the model first.
    start : int
        Token of the text that the stretch begins with.
    period : int
        Tokens after which it repeats; 0 where it does not.
    """

    text: Text
    ids: tuple[int, ...]
    start: int
    period: int

    def describe(self, contexts: Sequence[int]) -> dict[str, object]:
        """For the result file: where the tokens come from, and a hash of them at each context."""
        return {
            "name": self.text.name,
            "description": self.text.description,
            "sha256": self.text.sha256,
            "start": self.start,
            "period": self.period,
            "seen_before": repeats(self.ids),
            "ids_sha256": {str(n): _digest(self.ids[:n]) for n in contexts},
        }


def stretch(loaded: Loaded, name: str, tokens: int) -> Stretch:
    """The first ``tokens`` tokens that a run over a text feeds; fewer are their beginning.

    Real text starts a quarter into its source, where the title pages are over.

    Raises
    ------
    UsageError
        No such text, or one too short (``text.passages.disjoint``).
    """
    count = tokens - len(loaded.prefix)
    if name == REPEATED:
        text = Text(REPEATED, "one paragraph of our own, repeated to the length", PARAGRAPH)
        body = loaded.tokens(PARAGRAPH)
        ids = (*loaded.prefix, *(body * (count // len(body) + 1))[:count])
        return Stretch(text, ids, 0, len(body))
    text = load_text(name)
    body = loaded.tokens(text.text)
    start = len(body) // 4
    if start + count > len(body):
        raise UsageError(
            "text.passages.disjoint",
            f"{name} has {len(body) - start} tokens after its first quarter, {count} are wanted",
        )
    return Stretch(text, (*loaded.prefix, *body[start : start + count]), start, 0)


def repeats(ids: Sequence[int], length: int = 64) -> int:
    """Windows of ``length`` tokens that occurred before: 0 says that nothing was read twice.

    Examples
    --------
    >>> repeats([1, 2, 3, 4, 5, 6], 2), repeats([1, 2, 1, 2, 1, 2], 2)
    (0, 3)
    """
    seen: set[tuple[int, ...]] = set()
    again = 0
    for i in range(len(ids) - length + 1):
        window = tuple(ids[i : i + length])
        again += window in seen
        seen.add(window)
    return again


def _digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
