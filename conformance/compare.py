"""Judges: what a check may say about two results. Tolerances come from :mod:`levels` only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance import levels
from kakeya_conformance.model import Nonconforming
from kakeya_ref.errors import KakeyaError
from kakeya_ref.types import PageLayout

WINDOW = 16


def want(condition: bool | np.bool_, message: str, **detail: object) -> None:
    """Fail the check with this message unless the condition holds."""
    if not condition:
        raise Nonconforming(message, **detail)


T = TypeVar("T")


def outcome(call: Callable[[], T]) -> T | KakeyaError:
    """What a call returned, or the project error that it raised; other errors pass through."""
    try:
        return call()
    except KakeyaError as error:
        return error


@contextmanager
def refuses(kind: type[KakeyaError], *rules: str) -> Iterator[None]:
    """The body must raise exactly this class, naming one of these rules."""
    wanted = f"{kind.__name__} [{' or '.join(rules)}]" if rules else kind.__name__
    try:
        yield
    except KakeyaError as error:
        same_refusal(error, kind, rules)
    except Exception as error:
        raise Nonconforming(f"want {wanted}, got {type(error).__name__}: {error}") from error
    else:
        raise Nonconforming(f"want {wanted}, got a result")


def same_refusal(got: KakeyaError, kind: type[KakeyaError], rules: tuple[str, ...]) -> None:
    """Class and rule name agree; the sentence is free but starts with the rule in brackets."""
    wanted = f"{kind.__name__} [{' or '.join(rules)}]"
    want(type(got) is kind, f"want {wanted}, got {type(got).__name__}: {got}")
    want(not rules or got.rule in rules, f"want {wanted}, got [{got.rule}]")
    want(str(got).startswith(f"[{got.rule}] "), f"message does not start with its rule: {got}")


def is_pages(got: Any, layout: PageLayout, n: int) -> None:
    """``got`` is (n, nbytes) uint8 of exactly that many bytes."""
    want(isinstance(got, np.ndarray), f"encode returned {type(got).__name__}, not an array")
    want(got.dtype == np.uint8, f"pages are {got.dtype}, not uint8")
    shape = (n, layout.nbytes)
    want(got.shape == shape, f"pages have shape {got.shape}, want {shape} for {layout}")
    want(len(got.tobytes()) == n * layout.nbytes, "pages hold more bytes than they declare")


def is_floats(got: Any, layout: PageLayout, n: int) -> None:
    """``got`` is (n, P, D) float32."""
    want(isinstance(got, np.ndarray), f"decode returned {type(got).__name__}, not an array")
    want(got.dtype == np.float32, f"decoded values are {got.dtype}, not float32")
    shape = (n, layout.tokens, layout.head_dim)
    want(got.shape == shape, f"decoded shape {got.shape}, want {shape} for {layout}")


def same_bytes(got: Any, wanted: NDArray[np.uint8], layout: PageLayout) -> None:
    """Level ``bits``: the pages are equal."""
    is_pages(got, layout, len(wanted))
    differs = got != wanted
    if not differs.any():
        return
    page = int(differs.sum(axis=1).argmax())
    at = int(differs[page].argmax())
    plane = next((p for p in reversed(layout.planes) if p.offset <= at), layout.planes[0])
    raise Nonconforming(
        f"{layout}: {int(differs.sum())} of {differs.size} bytes differ; worst page {page}, "
        f"first at byte {at} (plane {plane.name})",
        page=page,
        byte=at,
        plane=plane.name,
        got=got[page, at : at + WINDOW].tobytes().hex(),
        want=wanted[page, at : at + WINDOW].tobytes().hex(),
    )


def same_floats(got: Any, wanted: NDArray[np.float32], layout: PageLayout) -> None:
    """Level ``bits``: the floats are equal, the sign of zero included."""
    is_floats(got, layout, len(wanted))
    left = np.ascontiguousarray(got).view(np.uint32)
    right = np.ascontiguousarray(wanted).view(np.uint32)
    differs = left != right
    if differs.any():
        _floats_differ(got, wanted, differs, layout, f"{int(differs.sum())} of {differs.size}")


def near_floats(got: Any, ideal: NDArray[np.float64], layout: PageLayout) -> None:
    """Level ``norm``: every vector is within the bound of the ideal one."""
    is_floats(got, layout, len(ideal))
    error = np.linalg.norm(got.astype(np.float64) - ideal, axis=-1)
    bound = levels.NORM * levels.EPS32 * np.linalg.norm(ideal, axis=-1)
    bound += layout.head_dim * levels.SMALLEST
    bad = error > bound
    if bad.any():
        page, token = (int(i) for i in np.argwhere(bad)[(error / bound)[bad].argmax()])
        raise Nonconforming(
            f"{layout}: vector {token} of page {page} is {error[page, token]:.3g} off the ideal, "
            f"allowed {bound[page, token]:.3g}",
            page=page,
            token=token,
            got=got[page, token, :WINDOW].tobytes().hex(),
            want=ideal[page, token, :WINDOW].astype("<f4").tobytes().hex(),
        )


def within_ulp(got: Any, ideal: NDArray[np.float64], layout: PageLayout) -> None:
    """Level ``ulp``: every number is within one unit in the last place of the ideal one."""
    is_floats(got, layout, len(ideal))
    unit = np.spacing(np.abs(ideal).astype(np.float32)).astype(np.float64)
    bad = np.abs(got.astype(np.float64) - ideal) > levels.ULP * unit
    if bad.any():
        count = f"more than {levels.ULP:g} ulp off: {int(bad.sum())} of {bad.size}"
        _floats_differ(got, ideal.astype(np.float32), bad, layout, count)


def no_worse(got_error: float, reference_error: float, what: str) -> None:
    """Level ``quality``: mean squared error within the allowance over the reference's."""
    allowed = (1 + levels.QUALITY) * reference_error
    want(
        got_error <= allowed,
        f"{what}: mean squared error {got_error:.6g}, allowed {allowed:.6g}",
    )


def within(value: float, low: float, high: float, what: str) -> None:
    """A measured figure lies in its band."""
    want(low <= value <= high, f"{what} is {value:.4g}, want {low:.4g} .. {high:.4g}")


def _floats_differ(
    got: NDArray[np.float32],
    wanted: NDArray[np.float32],
    differs: NDArray[np.bool_],
    layout: PageLayout,
    count: str,
) -> None:
    page = int(differs.sum(axis=(1, 2)).argmax())
    token, at = (int(i) for i in np.argwhere(differs[page])[0])
    stop = at + WINDOW // 4
    raise Nonconforming(
        f"{layout}: {count} floats differ; worst page {page}, first at token {token}, "
        f"channel {at}: got {got[page, token, at]!r}, want {wanted[page, token, at]!r}",
        page=page,
        token=token,
        channel=at,
        got=np.ascontiguousarray(got[page, token, at:stop]).astype("<f4").tobytes().hex(),
        want=np.ascontiguousarray(wanted[page, token, at:stop]).astype("<f4").tobytes().hex(),
    )
