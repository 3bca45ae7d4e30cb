"""A backend that proves itself one codec at a time, before the first call that needs it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from inspect import ismethod
from typing import Any

from kakeya_fast import selftest
from kakeya_ref.errors import Unsupported
from kakeya_ref.registry import codec_ids
from kakeya_ref.types import PageLayout, Support

LOG = logging.getLogger("kakeya")


class Proved:
    """A backend whose calls with a layout wait for the self-test of its codec.

    A codec that fails is refused from then on: :meth:`supports` says so, calls raise. Everything
    else is the backend's own.

    Rule: backend.selftest.first

    Parameters
    ----------
    backend : Backend
    where : str
        Its device, for the log.
    """

    def __init__(self, backend: Any, where: str) -> None:
        self.inner, self.where = backend, where
        self._lock = threading.Lock()
        self._refusals: dict[str, str] = {}

    def __reduce__(self) -> tuple[type[Proved], tuple[Any, str]]:
        # Wherever a copy goes, it proves itself anew.
        return Proved, (self.inner, self.where)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name.startswith("_") or not ismethod(found):
            return found
        guarded = self._guarded(found)
        vars(self)[name] = guarded
        return guarded

    def supports(self, layout: PageLayout) -> Support:
        """The backend's answer, once it has shown that it is right."""
        told: Support = self.inner.supports(layout)
        if told.ok:
            known = layout.codec.id in self._refusals
            refusal = self._refusal(layout.codec.id)
            if refusal:
                if not known:
                    LOG.warning("[%s] refused: %s", selftest.RULE, refusal)
                return Support(False, frozenset(), refusal)
        return told

    def prove_first(self) -> None:
        """Prove the first codec of the registry that the backend offers.

        What is wrong with a whole installation shows there, while another backend can still be
        taken.

        Raises
        ------
        Unsupported
            It differs, or no codec is offered.
        """
        for codec_id in codec_ids():
            if selftest.offers(self.inner, codec_id):
                self._prove(codec_id)
                return
        raise Unsupported(selftest.RULE, f"{self.name}: offers no codec, so nothing was tested")

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            for codec_id in _codecs((*args, *options.values())):
                self._prove(codec_id)
            return method(*args, **options)

        return call

    def _prove(self, codec_id: str) -> None:
        refusal = self._refusal(codec_id)
        if refusal:
            raise Unsupported(selftest.RULE, refusal)

    def _refusal(self, codec_id: str) -> str:
        """Why a codec may not be used; empty if its self-test has passed, now or before."""
        known = self._refusals.get(codec_id)
        if known is not None:
            return known
        with self._lock:
            if codec_id not in self._refusals:
                # A device that is recording a graph cannot be tested now, which is no failure.
                getattr(self.inner, "before_proof", lambda codec_id: None)(codec_id)
                begun = time.perf_counter()
                try:
                    made = selftest.prove(self.inner, codec_id)
                except Unsupported as error:
                    self._refusals[codec_id] = error.message
                else:
                    LOG.info(
                        "[%s] %s on %s: %s, %d comparisons in %.0f ms",
                        selftest.RULE,
                        self.name,
                        self.where,
                        codec_id,
                        made,
                        1e3 * (time.perf_counter() - begun),  # the first may spend it compiling
                    )
                    self._refusals[codec_id] = ""
            return self._refusals[codec_id]


def _codecs(arguments: tuple[Any, ...]) -> Iterator[str]:
    """Codecs of the layouts among the arguments of a call."""
    for argument in arguments:
        if isinstance(argument, PageLayout):
            yield argument.codec.id
        elif isinstance(argument, tuple):
            yield from (x.codec.id for x in argument if isinstance(x, PageLayout))
