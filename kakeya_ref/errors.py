"""The error family. Every message begins with the name of the rule that was broken."""

from __future__ import annotations


class KakeyaError(ValueError):
    """Base of every error this project raises on purpose.

    Rule: backend.error.family

    Parameters
    ----------
    rule : str
        Permanent rule name from the spec, for example ``page.length.exact``.
    message : str
        What was expected and what was seen.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"[{rule}] {message}")
        self.rule = rule
        self.message = message

    def __reduce__(self) -> tuple[type[KakeyaError], tuple[str, str]]:
        # The default would replay the formatted text as the only argument.
        return (type(self), (self.rule, self.message))


class Malformed(KakeyaError):
    """Bytes that no conforming encoder can have written."""


class Unsupported(KakeyaError):
    """A valid request that this backend, model or mode does not offer."""


class ShapeError(KakeyaError):
    """An array whose shape, dtype or layout does not fit the page."""


class RangeError(KakeyaError):
    """A value that the format cannot carry: NaN, infinity, or too large."""


class UsageError(KakeyaError):
    """A codec string or an option that means nothing."""
