"""One page layout on one device as two pure tensor functions, fit for ``torch.compile``."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.affine import Affine
from kakeya_fast.torch_ops.fp8 import Fp8
from kakeya_fast.torch_ops.lattice import Lattice
from kakeya_fast.torch_ops.pages import write_page
from kakeya_fast.torch_ops.raw import Raw
from kakeya_fast.torch_ops.scalar import Scalar
from kakeya_fast.torch_ops.trellis import Trellis
from kakeya_ref.types import PageLayout

# inductor would otherwise skip the rounding to float16 between two steps of ``int``.
COMPILE_OPTIONS = {"emulate_precision_casts": True}

CODECS = {
    "raw": Raw,
    "fp8": Fp8,
    "int": Affine,
    "scalar": Scalar,
    "d4": Lattice,
    "e8": Lattice,
    "trellis": Trellis,
}


class PageCore:
    """Encode and decode without Python decisions on data: faults come back as a mask.

    Rule: encode.batch.independent, encode.input.untouched, decode.bytes.only

    ``torch.compile(core.encode, fullgraph=True, options=COMPILE_OPTIONS)`` gives the same bytes
    on the CPU, where inductor leaves multiply and add apart.
    """

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        self.layout = layout
        self.codec = CODECS[layout.codec.id](layout, device)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Page bodies.

        Parameters
        ----------
        x : (N, P, D) float32, finite

        Returns
        -------
        pages : (N, layout.nbytes) uint8
        bad : (N, P) bool
            Tokens the format cannot carry; their page is not valid.
        """
        fields, bad = self.codec.fields(x)
        return write_page(self.layout, fields), bad

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients in the coded basis.

        Parameters
        ----------
        pages : (N, layout.nbytes) uint8

        Returns
        -------
        y : (N, P, D) float32
        bad : (N, P) bool
            Tokens whose bytes no encoder can have written; their numbers mean nothing.
        """
        return self.codec.coefficients(pages)

    def vectors(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors; shapes as in :meth:`coefficients`."""
        y, bad = self.codec.coefficients(pages)
        return self.codec.vectors(y), bad
