"""Any order of appending, cropping, selecting and moving, against plain tensors."""

import numpy as np
import pytest
import torch
from test_attention import causal

from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.policy import Policy
from kakeya_ref.registry import parse_codec

P, SINKS, HEADS, D = 16, 3, 2, 8


class Mirror:
    """What a plain cache would hold: all keys and values, and each row's padding."""

    def __init__(self, rows: int, random: np.random.Generator):
        self.random = random
        self.k = torch.zeros(rows, HEADS, 0, D)
        self.v = torch.zeros(rows, HEADS, 0, D)
        self.pad()

    def pad(self) -> None:
        rows = self.k.shape[0]
        self.pads = self.random.integers(0, 40, rows) * self.random.integers(0, 2, rows)

    def append(self, layer: PackedLayer) -> None:
        new = int(self.random.choice([1, 1, 1, 2, 7, 16, 33, 70]))
        k, v, q = torch.randn(3, len(self.pads), HEADS, new, D).unbind(0)
        self.k, self.v = torch.cat([self.k, k], 2), torch.cat([self.v, v], 2)
        total = self.k.shape[2]
        mask = causal(len(self.pads), new, total, self.pads.tolist())
        layer.update(k, v)
        got = layer.attend(q, mask if self.pads.any() or new < total else None, 0.4)
        score = (q @ self.k.mT * 0.4).masked_fill(~mask, -torch.inf)
        expected = score.softmax(-1).nan_to_num() @ self.v
        torch.testing.assert_close(got, expected.transpose(1, 2), rtol=1e-4, atol=1e-5)
        assert layer.state.tail_k.shape[2] < P or layer.record_past

    def crop(self, layer: PackedLayer) -> None:
        n = int(self.random.choice([0, 1, 5, 20, 50, 1000]))
        keep = max(0, self.k.shape[2] - n)
        self.k, self.v = self.k[:, :, :keep], self.v[:, :, :keep]
        layer.crop(-n)
        if keep == 0:
            self.pad()

    def select(self, layer: PackedLayer) -> None:
        rows = torch.from_numpy(self.random.integers(0, len(self.pads), 3))
        self.take(rows)
        layer.reorder_cache(rows)

    def repeat(self, layer: PackedLayer) -> None:
        if layer.state is not None and len(self.pads) < 6:
            self.take(torch.arange(len(self.pads)).repeat_interleave(2))
            layer.batch_repeat_interleave(2)

    def take(self, rows: torch.Tensor) -> None:
        self.k, self.v, self.pads = self.k[rows], self.v[rows], self.pads[rows.numpy()]

    def record(self, layer: PackedLayer) -> None:
        layer.record_past = not layer.record_past

    def move(self, layer: PackedLayer) -> None:
        layer.offload()
        layer.prefetch()

    def refuse(self, layer: PackedLayer) -> None:
        k = torch.full((len(self.pads), HEADS, 40, D), torch.nan)
        with pytest.raises(ValueError, match="finite"):
            layer.update(k, k)

    def check(self, layer: PackedLayer) -> None:
        state = layer.state
        assert layer.get_seq_length() == self.k.shape[2]
        if state is None:
            return
        for got, want in zip(layer.dense(), (self.k, self.v), strict=True):
            for row, pad in enumerate(self.pads):
                assert torch.equal(got[row, :, pad:], want[row, :, pad:])
        assert state.pages.bodies.shape[1] == state.pages.used
        live = np.arange(state.pages.used) < state.pages.count[:, None]
        assert ((state.pages.length > 0) == live).all()


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_operations(seed):
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    raw = parse_codec("raw")
    layer = PackedLayer(Policy(raw, raw, SINKS, P, "torch"))
    mirror = Mirror(3, random)
    kinds = ["append"] * 6 + ["crop", "select", "repeat", "record", "move", "refuse"]
    for _ in range(50):
        getattr(mirror, random.choice(kinds))(layer)
        mirror.check(layer)
    assert layer.state is not None
