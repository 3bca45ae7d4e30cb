"""Decode steps through the CUDA backend: what decoding every page gives, in few calls.

On the CPU the kernels come from the host build; on a GPU they are the device's.
"""

from __future__ import annotations

import pytest
import torch

from kakeya_ref.registry import parse_codec

pytest.importorskip("kakeya_fast.hf", exc_type=ImportError)
from kakeya_fast.hf import decode, policy
from kakeya_fast.hf.layer import PackedLayer

P, HEADS, GROUPS = 16, 2, 3


def steps(device, backend, codecs, size, cuts, pads, crops=(), residual=0, window=None, **options):
    """Outputs of every piece of random tokens, and the layer."""
    generator = torch.Generator().manual_seed(3)
    dtype = options.pop("dtype", torch.float32)
    parsed = [parse_codec(codec) for codec in codecs]
    rule = policy.Policy(*parsed, 3, P, backend, residual=residual, window=window)
    past, rows, out = PackedLayer(rule), len(pads), []
    masked = options.pop("masked", True)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    for n, new in enumerate(cuts):
        past.update(drawn(rows, HEADS, new, size), drawn(rows, HEADS, new, size))
        total = past.state.length
        q = torch.arange(total - new, total)[:, None]
        mask = (torch.arange(total) <= q).expand(rows, 1, new, total).clone()
        for row, pad in enumerate(pads):
            mask[row, :, :, :pad] = False
        if window is not None:
            mask &= torch.arange(total) > q - window
        query = drawn(rows, HEADS * GROUPS, new, size) * 2
        given = mask.to(device) if masked else None
        out.append(past.attend(query, given, size**-0.5, **options).float().cpu())
        if n in crops:
            past.crop(-21)
    return out, past


CASES = {
    "one row": {"pads": [0]},
    "no mask": {"pads": [0], "masked": False},
    "padding": {"pads": [5, 0, 40]},
    "residual": {"pads": [5, 0], "residual": 25},
    "crops": {"pads": [0, 3], "crops": (1, 4)},
    "capped": {"pads": [0, 3], "softcap": 3.0},
    "learned sinks": {"pads": [0], "s_aux": torch.tensor([0.5, -1, 2, 0, 1, 0])},
    "window": {"pads": [0, 3], "window": 70},
    "halves": {"pads": [0], "dtype": torch.bfloat16},
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_reads_what_decoding_reads(device, case, monkeypatch) -> None:
    """Rule: cache.attend.fused, cache.read.recent-exact, cache.read.own-page-exact"""
    options = CASES[case]
    if "s_aux" in options:
        options = options | {"s_aux": options["s_aux"].to(device)}
    cuts = [100, 1, 8, 1, 90, 3, 1, 1, 5, 1, 1]
    given = (("scalar:b=3", "scalar:b=4"), 64, cuts)
    inner, direct = decode.attend, []

    def watch(*given):
        direct.append(inner(*given))
        return direct[-1]

    monkeypatch.setattr(decode, "attend", watch)
    mine, _ = steps(device, "cuda", *given, **options)
    assert [x is not None for x in direct] == [n <= 8 for n in cuts]
    theirs, _ = steps(device, "torch", *given, **options)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-2)


@pytest.mark.parametrize(
    ("codecs", "size"),
    [(("trellis", "trellis"), 128), (("scalar:b=2", "trellis"), 64), (("scalar", "scalar"), 256)],
    ids=str,
)
def test_every_codec_with_a_kernel_is_read_so(device, codecs, size) -> None:
    """Rule: cache.attend.fused"""
    given = codecs, size, [80, 1, 4, 1], [0, 5]
    mine, past = steps(device, "cuda", *given)
    assert decode.reader_of(past.state, torch.float32).refused == ""
    theirs, _ = steps(device, "torch" if "trellis" not in codecs else "auto", *given)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-2)


def test_tables_move_only_when_pages_change(device) -> None:
    """Rule: rate.bytes.true"""
    _, past = steps(device, "cuda", ("scalar", "scalar"), 64, [70, 1], [0], masked=False)
    state = past.state

    def there():
        return state.pages.block_table().on(state.device, 0, state.step_from)

    before, pages = there(), state.pages.used
    for new in range(P):
        kv = torch.ones(1, HEADS, 1, 64, device=device)
        past.update(kv, kv)
        past.attend(torch.ones(1, HEADS * GROUPS, 1, 64, device=device), None, 0.1)
        same = all(a is b for a, b in zip(there(), before, strict=True))
        assert same == (state.pages.used == pages), new
    assert state.pages.used == pages + 1
