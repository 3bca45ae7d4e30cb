"""The report is the truth: every byte the cache reaches, and no dense history among them."""

import json
import tracemalloc

import pytest
import torch
from hf_tiny import cache, held_bytes, llama, model, packed_layers, padded, prompt
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kakeya_fast.hf import PackedLayer, attention
from kakeya_fast.hf.policy import Policy
from kakeya_ref.registry import parse_codec

K4 = parse_codec("scalar:b=4")

CODECS = [
    "raw",
    "fp8",
    "int:b=4,g=16",
    "int:b=2,g=16,axis=channel",
    "scalar:b=3",
    "e8",
    "trellis",
]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("pads", [[0, 0], [0, 50]], ids=str)
def test_total_is_what_is_reachable(codec, pads):
    past = cache(llama(), codec)
    for tokens in (130, 1, 66):
        inputs = padded(prompt(2, tokens), [0, 0])
        mask = torch.ones(2, past.get_seq_length() + tokens, dtype=torch.long)
        mask[1, : pads[1]] = 0
        llama()(inputs["input_ids"], attention_mask=mask, past_key_values=past)
        report = past.report()
        assert report.total == held_bytes(past)
        assert report.tokens == int(mask.sum())
        assert report.dense == 2 * 2 * 2 * 16 * 2 * report.tokens


def test_hybrid_report_counts_the_other_layers():
    kinds = ["sliding_attention", "full_attention"]
    of = model("Gemma3", sliding_window=20, layer_types=kinds)
    past = cache(of, "scalar:b=4")
    of(prompt(1, 100), past_key_values=past)
    report = past.report()
    assert report.other >= 19 * 2 * 16 * 2 * 4
    assert report.total == report.packed + report.other == held_bytes(past)


def test_parts_add_up_and_name_the_planes():
    past = cache(llama(), "scalar:b=3")
    llama()(prompt(1, 4 + 320 + 7), past_key_values=past)
    report = past.report()
    pages = 10 * 2 * 2
    planes = {
        f"{s}.{p}": pages * n
        for s in "kv"
        for p, n in (("scales", 32), ("codes2", 128), ("codes1", 64))
    }
    assert report.planes == planes
    assert report.scales == 2 * pages * 32
    assert report.codes == 2 * pages * 192
    assert (report.padding, report.spare, report.other) == (0, 0, 0)
    assert report.sinks == 2 * 2 * 2 * 4 * 16 * 4
    assert report.tail == 2 * 2 * 2 * 7 * 16 * 4
    assert report.ratio == report.dense / report.packed
    assert report.bits_per_element == pytest.approx(16 / report.ratio)
    assert json.loads(json.dumps(report.as_dict()))["total"] == report.total


def test_empty_cache_reports_zero():
    report = cache(llama()).report()
    assert (report.total, report.tokens, report.ratio, report.bits_per_element) == (0, 0, 0, 0)


def test_long_context_approaches_the_rate_of_the_codec():
    past = cache(llama(torch.bfloat16), "scalar:b=4")
    llama(torch.bfloat16)(prompt(1, 1900), past_key_values=past)
    page = past.layers[0].state.layouts[0].bits_per_element
    assert page == 4.5
    assert page < past.report().bits_per_element < page + 0.3
    dense = past.report().dense // 4
    assert max(t.numel() for t in _tensors(past)) < dense


def test_crop_and_reset_give_memory_back():
    past = cache(llama(), "scalar:b=4")
    llama()(prompt(1, 600), past_key_values=past)
    full = past.report().total
    past.crop(-400)
    assert past.report().total == held_bytes(past) < full * 0.45
    past.reset()
    assert past.report().total == held_bytes(past) == 0


def _tensors(past):
    for layer in packed_layers(past):
        state = layer.state
        yield from (state.pages.bodies, state.tail_k, state.tail_v, state.sink_k, state.sink_v)


class Allocations(TorchDispatchMode):
    """Bytes of the largest new tensor that an operation makes."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {_place(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and _place(x) not in given:
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return out


def _place(x):
    return x.untyped_storage().data_ptr()


def _chunk_at(context: int, backend: str, chunk: int) -> tuple[int, int]:
    """Bytes of the largest tensor, and of the peak of NumPy, while a chunk is taken in and read."""
    layer, made = PackedLayer(Policy(K4, K4, backend=backend)), torch.Generator().manual_seed(1)
    x = torch.randn(1, 2, context + chunk + 1, 64, generator=made)
    layer.update(x[:, :, :context], x[:, :, :context])
    layer.attend(x[:, :, context - 1 : context].repeat(1, 2, 1, 1), None, 0.1)
    new = x[:, :, context : context + chunk]
    tracemalloc.start()
    try:
        with Allocations() as seen:
            layer.update(new, new)
            layer.attend(new.repeat(1, 2, 1, 1), None, 0.1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return seen.largest, peak


@pytest.mark.parametrize(
    ("backend", "chunk"), [("torch", 64), ("numba", 1), ("numba", 8), ("numba", 64)]
)
def test_no_call_makes_anything_as_large_as_the_history(backend, chunk, monkeypatch):
    """Rule: attend.memory.bounded

    A new page moves the packed bytes of a layer once, and the page table counts its pages; apart
    from these, a chunk over 8 times as many tokens takes no more memory.
    """
    monkeypatch.setattr(attention, "TILE", 128)
    _chunk_at(512, backend, chunk)  # what is made once
    short, long = (_chunk_at(n, backend, chunk) for n in (512, 4096))
    packed = 2 * 2 * 4096 * 64 * 4.5 / 8
    dense = 2 * 4096 * 64 * 4  # one stream of one layer
    assert packed < dense < 4 * packed
    assert long[0] <= max(short[0], 1.02 * packed)
    assert long[1] <= short[1] + dense / 16


def test_a_history_that_is_decoded_at_once_would_show(monkeypatch):
    monkeypatch.setattr(attention, "TILE", 1 << 20)
    assert _chunk_at(4096, "torch", 64)[0] >= 2 * 4096 * 64 * 4
