"""The two words in which kernels report the first vectors they refuse, and what they mean.

Two unsigned 64-bit words on the device, all ones while nothing is wrong. Kernels lower them to
the least ``page * P + token``: the first word for NaN and infinity, the second for values too
large or, when decoding, for codes that name no number. So results do not depend on the order of
blocks, and a NaN anywhere is named before a gain that is too large, as the reference does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kakeya_fast.cuda import params
from kakeya_fast.cuda.checks import same_device
from kakeya_ref.errors import KakeyaError, Malformed, RangeError, ShapeError
from kakeya_ref.types import PageLayout

Direction = Literal["encode", "decode"]
CLEAR = -1  # torch has no arithmetic on unsigned words


def new_status(device: torch.device) -> Tensor:
    """Words that say nothing is wrong: (2,) int64."""
    return torch.full((2,), CLEAR, dtype=torch.int64, device=device)


def check_status(words: Tensor, device: torch.device) -> None:
    """Refuse a tensor that kernels could not report in.

    Rule: num.input.device, backend.graph.sticky
    """
    fits = isinstance(words, Tensor) and words.dtype == torch.int64 and tuple(words.shape) == (2,)
    if not fits or not words.is_contiguous():
        raise ShapeError("backend.graph.sticky", "status is what Backend.new_status() makes")
    same_device(words, device)


def error(words: list[int], layout: PageLayout, direction: Direction) -> KakeyaError | None:
    """What the words say about calls on a layout; nothing when all was well.

    Rule: num.input.finite, backend.graph.sticky
    """
    if words[0] != CLEAR:
        page, token = divmod(words[0], layout.tokens)
        return RangeError("num.input.finite", f"NaN or infinity in page {page}, token {token}")
    if words[1] == CLEAR:
        return None
    rule, page, token = params.refusal_at(layout.codec.id, words[1], layout.tokens, direction)
    where = f"page {page}, token {token}"
    if direction == "decode":
        return Malformed(rule, f"bytes of {where} name no number")
    return RangeError(rule, f"values of {where} are too large for {layout}")


def raise_if_bad(words: Tensor, layout: PageLayout, direction: Direction) -> None:
    """Wait for the device, and raise what kernels refused since the words were made.

    Raises
    ------
    RangeError, Malformed
    """
    found = error(words.tolist(), layout, direction)
    if found is not None:
        raise found
