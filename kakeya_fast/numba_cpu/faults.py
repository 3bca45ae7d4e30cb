"""What the kernels of tabled codecs can find wrong with a page, in the order it is looked for.

A kernel reports ``page * FAULTS + fault``: the smallest of these is the first fault of the first
faulty page, whatever thread found it.
"""

from __future__ import annotations

from kakeya_ref.errors import KakeyaError, Malformed, RangeError
from kakeya_ref.types import PageLayout

TABLE, LEVELS = 0, 1
VALUE, GAIN = 2, 3  # of encoders
SEG, PROJ, PLACE, NUMBER = 4, 5, 6, 7  # of decoders
SPREAD = LEVELS  # of query, which has no levels
FINE = 8
FAULTS = 8

_TABLE_RULES = {
    TABLE: (Malformed, "codec.table.finite", "the table holds a NaN or an infinity"),
    LEVELS: (Malformed, "turbo.levels.ascending", "the levels of the table descend"),
}
_VALUE = "a number leaves the range of the codec"
_NUMBER = "a stored or decoded number is not finite"
_RULES: dict[str, dict[int, tuple[type[KakeyaError], str, str]]] = {
    "skeleton": {
        **_TABLE_RULES,
        VALUE: (RangeError, "skeleton.value.range", _VALUE),
        SEG: (Malformed, "skeleton.seg.range", "a token names a centre that is not there"),
        PROJ: (Malformed, "skeleton.value.finite", _NUMBER),
        PLACE: (Malformed, "skeleton.place.ascending", "places do not ascend below the rank"),
        NUMBER: (Malformed, "skeleton.value.finite", _NUMBER),
    },
    "turbo": {
        **_TABLE_RULES,
        VALUE: (RangeError, "turbo.value.range", _VALUE),
        GAIN: (RangeError, "scale.byte.range", "the gain of a residual is above the grid"),
        SEG: (Malformed, "turbo.seg.range", "a token names a centre that is not there"),
        PROJ: (Malformed, "turbo.value.finite", _NUMBER),
        PLACE: (Malformed, "turbo.out.ascending", "places of outliers do not ascend in the page"),
        NUMBER: (Malformed, "turbo.value.finite", _NUMBER),
    },
    "query": {
        TABLE: _TABLE_RULES[TABLE],
        SPREAD: (Malformed, "query.spread.descending", "the spread ascends or is negative"),
        VALUE: (RangeError, "query.value.range", _VALUE),
        GAIN: (RangeError, "scale.byte.range", "the gain of a token is above the grid"),
        NUMBER: (Malformed, "query.decode.synthesis", _NUMBER),
    },
}


def error(found: int, layout: PageLayout) -> KakeyaError:
    """The error of what a kernel reported."""
    page, fault = divmod(found, FAULTS)
    kind, rule, what = _RULES[layout.codec.id][fault]
    return kind(rule, f"page {page} of {layout}: {what}")
