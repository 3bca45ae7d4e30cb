"""Bytes that a codec with a table costs beside its pages."""

from __future__ import annotations

from kakeya_ref.layout import table_layout
from kakeya_ref.registry import parse_codec, table_kind
from kakeya_ref.types import Codec, PageLayout

# Rank and number of outliers of a page, in the page table.
ENTRY = 4
# A table must serve enough tokens to be worth its bytes.
USUAL_PAGE, TABLED_PAGE = 32, 512


def table_nbytes(layout: PageLayout) -> int:
    """Bytes of the table of one page and of what the page table says of it; 0 without one.

    Calibrated tables are shared by all sequences and counted as part of the model.

    Rule: rate.bytes.true

    Examples
    --------
    >>> from kakeya_ref.layout import page_layout
    >>> table_nbytes(page_layout("scalar", 64)), table_nbytes(page_layout("turbo:rank=8,k=2", 64))
    (0, 1188)
    """
    if table_kind(layout.codec) != "skeleton":
        return 0
    return table_layout(layout.codec, layout.head_dim).nbytes + ENTRY


def usual_page(*codecs: str | Codec) -> int:
    """Tokens of a page, where none are said."""
    tabled = any(table_kind(parse_codec(codec)) == "skeleton" for codec in codecs)
    return TABLED_PAGE if tabled else USUAL_PAGE
