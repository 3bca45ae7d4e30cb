"""A right backend of profile ``bounded``: it rotates with dense float64 matrices."""

from __future__ import annotations

import numpy as np
from patching import Mutant

from kakeya_conformance.oracle import hadamard_matrix
from kakeya_ref.codecs import d4, e8, scalar
from kakeya_ref.rotation import blocks
from kakeya_ref.tables import signs


def dense(y):
    out, start = y.astype(np.float64), 0
    for n in blocks(y.shape[1]):
        out[:, start : start + n] = out[:, start : start + n] @ hadamard_matrix(n)
        start += n
    with np.errstate(over="ignore"):
        return out.astype(np.float32)


class BoundedBackend(Mutant):
    """Differs from the reference in the last bits, as a matrix product on a device would."""

    name = "dense"
    profile = "bounded"
    patches = tuple(
        patch
        for module in (scalar, d4, e8)
        for patch in (
            (module, "rotate", lambda x, seed: dense(x * signs(seed, x.shape[1]))),
            (module, "unrotate", lambda y, seed: dense(y) * signs(seed, y.shape[1])),
        )
    )
