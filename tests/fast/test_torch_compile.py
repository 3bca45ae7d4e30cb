"""The codec core is one graph, and compiling it changes no byte."""

import shutil

import pytest
import torch

from kakeya_fast.torch_ops.core import COMPILE_OPTIONS, PageCore
from kakeya_ref.layout import page_layout

CODECS = ["raw:dtype=f16", "fp8", "int:b=3", "int:b=4,axis=channel,g=24", "scalar:b=3", "d4", "e8"]


def agree(core, x, **how):
    """Whether compiled encode and decode equal the plain ones."""
    torch._dynamo.reset()
    page, bad = core.encode(x)
    pairs = [
        (torch.compile(core.encode, fullgraph=True, **how)(x), (page, bad)),
        (torch.compile(core.coefficients, fullgraph=True, **how)(page), core.coefficients(page)),
        (torch.compile(core.vectors, fullgraph=True, **how)(page), core.vectors(page)),
    ]
    return all(
        # Tokens marked bad may hold NaN, which equals nothing.
        torch.equal(a.nan_to_num(), b.nan_to_num())
        for got, want in pairs
        for a, b in zip(got, want, strict=True)
    )


@pytest.mark.parametrize("codec", CODECS)
def test_core_is_one_graph(codec):
    core = PageCore(page_layout(codec, 96, 16), torch.device("cpu"))
    x = torch.randn(2, 16, 96, generator=torch.Generator().manual_seed(2)) * 3
    x[1, 3] = 1e30
    assert agree(core, x, backend="aot_eager")


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("codec", ["int:b=3", "scalar:b=3"])
def test_compiled_core_keeps_every_byte(codec):
    core = PageCore(page_layout(codec, 96, 16), torch.device("cpu"))
    x = torch.randn(64, 16, 96, generator=torch.Generator().manual_seed(3))
    assert agree(core, x, options=COMPILE_OPTIONS)
