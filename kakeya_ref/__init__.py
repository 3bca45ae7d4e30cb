"""Kakeya reference: NumPy only, readable top to bottom in the order of the spec.

>>> import numpy as np
>>> from kakeya_ref import ReferenceBackend, page_layout
>>> layout = page_layout("scalar:b=4", head_dim=64)
>>> x = np.linspace(-1, 1, 32 * 64, dtype=np.float32).reshape(1, 32, 64)
>>> pages = ReferenceBackend().encode(x, layout)
>>> pages.nbytes, layout.bits_per_element
(1056, 4.125)
>>> error = ReferenceBackend().decode(pages, layout) - x
>>> bool((error**2).sum() < 0.02 * (x**2).sum())
True
"""

from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import (
    KakeyaError,
    Malformed,
    RangeError,
    ShapeError,
    Unsupported,
    UsageError,
)
from kakeya_ref.layout import page_layout, sequence_bits_per_element, sequence_nbytes
from kakeya_ref.registry import codec_ids, parse_codec
from kakeya_ref.types import Codec, PageLayout, Plane, Support

__all__ = [
    "Codec",
    "KakeyaError",
    "Malformed",
    "PageLayout",
    "Plane",
    "RangeError",
    "ReferenceBackend",
    "ShapeError",
    "Support",
    "Unsupported",
    "UsageError",
    "codec_ids",
    "page_layout",
    "parse_codec",
    "sequence_bits_per_element",
    "sequence_nbytes",
]
