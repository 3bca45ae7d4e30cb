"""Decode steps over keys in frames through the CUDA backend: what reading by tiles gives.

On the CPU the kernels come from the host build; on a GPU they are the device's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kakeya_conformance.tables import given
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec

pytest.importorskip("kakeya_fast.hf", exc_type=ImportError)
from kakeya_fast.hf import decode, framed
from kakeya_fast.hf.keytables import LayerTables
from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.policy import Policy
from kakeya_fast.hf.rope import Rope
from kakeya_ref.skeletons import Skeleton, parts

P, SIZE, HEADS, GROUPS = 16, 64, 2, 3
CUTS = [100, 1, 8, 1, 90, 3, 1, 1, 5, 1]
HALVES = Rope(tuple(10000.0 ** (-np.arange(SIZE // 2) / (SIZE // 2))))
CASES = {
    "frames of a page": (HALVES, 16, {}),
    "frames of three pages, moved": (HALVES, 48, {"move": 5000}),
    "padding": (HALVES, 16, {"pads": (5, 0, 40)}),
    "crops": (HALVES, 32, {"pads": (0, 3), "crops": (1, 4)}),
    "part of the numbers turn": (Rope((1.0, 0.1, 0.01), True), 16, {}),
    "no positions": (Rope(()), 16, {"pads": (0, 3)}),
    "capped": (HALVES, 16, {"softcap": 3.0}),
}


def tables(rope: Rope, frame: int, codec: str) -> LayerTables:
    layout = page_layout(codec, SIZE, P)
    bodies = np.concatenate([given("plausible", h, 1, layout).bodies for h in range(HEADS)])
    basis = [parts(body, layout.codec, SIZE).basis for body in bodies]
    return LayerTables(Skeleton(bodies, np.stack(basis)), rope, frame)


def fill(device, backend, codecs, rope, frame, *, pads=(0,), crops=(), move=0, **options):
    """Outputs of every piece of random tokens, and the layer."""
    k, v = codecs[0] + f",f={frame}", codecs[1]
    rule = Policy(parse_codec(k), parse_codec(v), 3, P, backend, keys=tables(rope, frame, k))
    past, out, total = PackedLayer(rule), [], 0
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    for n, new in enumerate(CUTS):
        total = past.state.length + new if n else new
        places = (torch.arange(total - new, total) - torch.tensor(pads)[:, None] + move).to(device)
        past.update(drawn(len(pads), HEADS, new, SIZE), drawn(len(pads), HEADS, new, SIZE))
        q = torch.arange(total - new, total)[:, None]
        mask = (torch.arange(total) <= q).expand(len(pads), 1, new, total).clone()
        for row, pad in enumerate(pads):
            mask[row, :, :, :pad] = False
        query = drawn(len(pads), HEADS * GROUPS, new, SIZE) * 2
        got = past.attend(query, mask.to(device), SIZE**-0.5, places=places, **options)
        out.append(got.float().cpu())
        if n in crops:
            past.crop(-21)
    return out, past


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "codecs", [("query:b=3", "trellis:b=3"), ("query:b=2.2", "scalar:b=4")], ids=str
)
def test_frames_are_read_in_place(device, case, codecs, monkeypatch) -> None:
    """Rule: query.attend.frame, cache.attend.fused, attend.merge"""
    rope, frame, options = CASES[case]
    # Runs of a few frames each merge, and some of them are turned by one product.
    monkeypatch.setattr(framed, "FRAMES", 5)
    monkeypatch.setattr(framed, "NUMBERS", 1)
    monkeypatch.setattr(framed, "FEW", 4)
    inner, direct = decode.attend, []

    def watch(*given):
        direct.append(inner(*given))
        return direct[-1]

    monkeypatch.setattr(decode, "attend", watch)
    mine, past = fill(device, "cuda", codecs, rope, frame, **options)
    assert [x is not None for x in direct] == [n <= 8 for n in CUTS]
    assert decode.reader_of(past.state, torch.float32).refused == ""
    theirs, _ = fill(
        device, "auto" if "trellis" in codecs[1] else "torch", codecs, rope, frame, **options
    )
    assert past.state.pages.used > 5
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-2)
