"""Mutants that compute rightly and behave badly: state, neighbours, memory, promises."""

from __future__ import annotations

import time

import numpy as np
from patching import Mutant

from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import KakeyaError, RangeError
from kakeya_ref.types import Support


class BatchDependent(Mutant):
    rule = "encode.batch.independent"

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        if len(body) > 1 and layout.codec.id == "scalar":
            body[1:, 0] = np.maximum(body[1:, 0], body[0, 0])
        return body


class LastPageDropped(Mutant):
    rule = "rate.bytes.true"
    codecs = ("fp8",)

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        return body[: len(body) - (len(body) > 2)]


class InputMutated(Mutant):
    rule = "encode.input.untouched"

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        if isinstance(x, np.ndarray) and x.flags.writeable:
            x *= x.dtype.type(0.5)
        return body


class ReadOnlyRefused(Mutant):
    rule = "encode.input.untouched"

    def encode(self, x, layout, **options):
        if not x.flags.writeable and x.flags.owndata:
            raise ValueError("array is read-only")
        return super().encode(x, layout, **options)


class StridesMisread(Mutant):
    rule = "encode.input.strided"

    def encode(self, x, layout, **options):
        if isinstance(x, np.ndarray) and x.size and not x.flags.c_contiguous:
            x = x.ravel(order="K").reshape(x.shape)
        return super().encode(x, layout, **options)


class PageRowsMisread(Mutant):
    rule = "encode.input.strided"

    def decode(self, pages, layout, **options):
        if isinstance(pages, np.ndarray) and pages.base is not None and pages.strides[0] > 0:
            flat = np.lib.stride_tricks.as_strided(pages, pages.shape, (layout.nbytes, 1))
            return super().decode(flat.copy(), layout, **options)
        return super().decode(pages, layout, **options)


class RemembersTheLastEncode(Mutant):
    rule = "decode.bytes.only"

    def __init__(self):
        self.last = None

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        self.last = np.array(x, dtype=np.float32)
        return body

    def decode(self, pages, layout, *, basis="vectors", **options):
        out = super().decode(pages, layout, basis=basis, **options)
        if basis == "vectors" and self.last is not None and self.last.shape == out.shape:
            return self.last
        return out


class NeedsAnEncodeFirst(Mutant):
    rule = "decode.bytes.only"
    scales = None

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        type(self).scales = True
        return body

    def decode(self, pages, layout, **options):
        out = super().decode(pages, layout, **options)
        return out if self.scales else np.zeros_like(out)


class SharedResult(Mutant):
    rule = "encode.output.deterministic"

    def __init__(self):
        self.room = {}

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        room = self.room.setdefault(body.shape, np.empty_like(body))
        room[...] = body
        return room


class EveryFifthCallDiffers(Mutant):
    rule = "encode.output.deterministic"

    def __init__(self):
        self.calls = 0

    def encode(self, x, layout, **options):
        body = super().encode(x, layout, **options)
        self.calls += 1
        if self.calls % 5 == 0 and body.size:
            body[0, -1] ^= 1
        return body


class SharedScratch(ReferenceBackend):
    rule = "encode.output.deterministic"
    codecs = ("scalar",)

    def __init__(self):
        self.scratch = None

    def encode(self, x, layout, **options):
        self.scratch = x
        time.sleep(0.0005)
        return super().encode(self.scratch, layout, **options)


class ForgetsAfterARefusal(Mutant):
    rule = "backend.error.atomic"

    def __init__(self):
        self.broken = False

    def encode(self, x, layout, **options):
        try:
            body = super().encode(x, layout, **options)
        except RangeError:
            self.broken = True
            raise
        if self.broken and body.size:
            body[0, 0] ^= 1
            self.broken = False
        return body


class RefusesWithoutAReason(Mutant):
    rule = "backend.support.honest"

    def supports(self, layout):
        return Support(layout.head_dim != 576)


class RefusesAndDoesItAnyway(Mutant):
    rule = "backend.codec.offered"

    def supports(self, layout):
        return Support(layout.head_dim != 576, reason="head dim 576 is not offered")


class AnnouncesTooMuch(Mutant):
    rule = "backend.support.honest"

    def encode(self, x, layout, **options):
        if layout.head_dim == 80:
            raise KakeyaError("backend.support.honest", "not written yet")
        return super().encode(x, layout, **options)


class NoSuchProfile(Mutant):
    rule = "backend.profile.declared"
    profile = "nearly"


class ClaimsToBeExact(Mutant):
    """Rounds the decoded vectors to half precision, as a bounded backend may not do either."""

    rule = "backend.profile.exact"

    def decode(self, pages, layout, **options):
        return super().decode(pages, layout, **options).astype(np.float16).astype(np.float32)


class BoundedInName(Mutant):
    """Claims profile bounded and halves every tenth token."""

    rule = "backend.profile.bounded"
    profile = "bounded"

    def encode(self, x, layout, **options):
        if isinstance(x, np.ndarray) and x.ndim == 3:
            x = x.copy()
            x[:, ::10] *= x.dtype.type(0.5)
        return super().encode(x, layout, **options)
