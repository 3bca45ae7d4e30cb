"""One forward pass in which every layer reads what a codec gave back, in the order of a cache.

The whole passage goes through the model at once. In every attention layer, sliding ones included,
keys and values of complete pages are encoded to bytes and decoded; a query reads the sinks, the
unfilled page and its own page exactly, and all others decoded: what the cache promises
([cache.read.own-page-exact]), without its bookkeeping.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from kakeya_fast import get_backend
from kakeya_fast.hf.keytables import KeyTables
from kakeya_fast.quality.report import environment
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec

NAME = "kakeya_damage"
SINKS, PAGE = 4, 32

_active: list[Damage | None] = [None]


@dataclass
class Damage:
    """Codecs of both streams, and what they cost.

    Attributes
    ----------
    k, v : str
        Codec strings; ``raw`` leaves a stream alone.
    tables : KeyTables, optional
        For keys of ``query``.
    layer : int
        The layer whose streams are being coded.
    nbytes, elements : dict of stream to int
        Bytes of all pages that were encoded, and their numbers.
    """

    k: str
    v: str
    tables: KeyTables | None = None
    layer: int = -1
    nbytes: dict[str, int] = field(default_factory=lambda: {"k": 0, "v": 0})
    elements: dict[str, int] = field(default_factory=lambda: {"k": 0, "v": 0})

    def keys(self, layer: int, k: Tensor) -> Tensor:
        """Keys (1, H, n * P, D) of pages from position 4 on, decoded."""
        if parse_codec(self.k).id != "query":
            return self._coded("k", self.k, k, None)
        tables = self.tables.layers[layer]
        at = torch.arange(k.shape[2], device=k.device)
        frames = (at - at % tables.frame) + SINKS
        framed = self._coded("k", self.k, tables.framed(k, frames), tables)
        return tables.rope.turned(framed, frames)

    def values(self, v: Tensor) -> Tensor:
        """Values of the same pages, decoded."""
        return self._coded("v", self.v, v, None)

    def _coded(self, stream: str, codec: str, x: Tensor, tables: Any) -> Tensor:
        if codec == "raw":
            return x
        heads, size = x.shape[1], x.shape[3]
        layout = page_layout(codec, size, PAGE)
        backend = backend_on(x.device)
        pages = x[0].unflatten(1, (-1, PAGE)).transpose(0, 1).flatten(0, 1)
        option = {} if tables is None else {"tables": tables.of_pages(len(pages) // heads)}
        bodies = backend.encode_tensor(pages, layout, **option)
        self.nbytes[stream] += bodies.numel()
        self.elements[stream] += pages.numel()
        out = backend.decode_tensor(bodies, layout, **option)
        return out.unflatten(0, (-1, heads)).transpose(0, 1).flatten(1, 2)[None].to(x)

    def bits(self, stream: str) -> float:
        """True bits per number of a page; those of bf16 where nothing is coded."""
        if not self.elements[stream]:
            return 16.0
        return 8 * self.nbytes[stream] / self.elements[stream]


@cache
def backend_on(device: torch.device) -> Any:
    """The backend that codes, as a cache would choose it."""
    return get_backend("auto", str(device))


def enter_run(data: dict[str, Any], model: Any) -> None:
    """Add to the ``runs`` of a result file where and by what is measured from here on."""
    device = model.device
    run = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "backend": backend_on(device).name,
        "torch": torch.__version__,
        "commit": environment()["commit"],
    }
    runs = data.setdefault("runs", [])
    if runs[-1:] != [run]:
        runs.append(run)


def install(model: Any) -> None:
    """Let a model attend through here."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


@torch.inference_mode()
def logits(model: Any, ids: Tensor, skip: int, damage: Damage | None) -> Tensor:
    """Logits of positions ``skip ..`` but the last, with every layer damaged."""
    _active[0] = damage
    try:
        return model(ids, use_cache=False, logits_to_keep=ids.shape[1] - skip).logits[0, :-1]
    finally:
        _active[0] = None


def _attend(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float = 1.0, **_: Any
) -> tuple[Tensor, None]:
    damage, tokens = _active[0], q.shape[2]
    pages = max(0, tokens - SINKS) // PAGE
    end = SINKS + pages * PAGE
    read_k, read_v = k, v
    if damage is not None and pages:
        inside = slice(SINKS, end)
        damage.layer = module.layer_idx
        read_k, read_v = k.clone(), v.clone()
        read_k[:, :, inside] = damage.keys(module.layer_idx, k[:, :, inside])
        read_v[:, :, inside] = damage.values(v[:, :, inside])
    out = torch.empty_like(q)
    window = getattr(module, "sliding_window", None) or tokens
    # Eight pages of queries at a time: what they may not see is hardly computed.
    bounds = [(0, SINKS), *((a, a + PAGE) for a in range(SINKS, end, PAGE)), (end, tokens)]
    owner = torch.bucketize(
        torch.arange(tokens, device=q.device),
        torch.tensor([stop for _, stop in bounds], device=q.device),
        right=True,
    )
    for some in _joined(bounds, 8):
        a, b = some[0][0], some[-1][1]
        low = max(0, a - window + 1)
        rows = torch.arange(a, b, device=q.device)[:, None]
        columns = torch.arange(low, b, device=q.device)
        seen = (columns <= rows) & (columns > rows - window)
        own = seen & (owner[low:b] == owner[a:b, None])
        # Every key as it was read, then those of the queries' pages once more, exact.
        keys = torch.cat([read_k[:, :, low:b], k[:, :, a:b]], 2)
        values = torch.cat([read_v[:, :, low:b], v[:, :, a:b]], 2)
        out[:, :, a:b] = nn.functional.scaled_dot_product_attention(
            q[:, :, a:b],
            keys,
            values,
            torch.cat([seen & ~own, own[:, a - low :]], 1),
            scale=scaling,
            enable_gqa=True,
        )
    return out.transpose(1, 2).contiguous(), None


def _joined(bounds: list[tuple[int, int]], count: int) -> list[list[tuple[int, int]]]:
    kept = [bound for bound in bounds if bound[0] < bound[1]]
    return [kept[i : i + count] for i in range(0, len(kept), count)]


def compared(base: Tensor, found: Tensor, targets: Tensor) -> np.ndarray:
    """Per token: KL(base || found) in nats, ΔNLL of the true next token, equal top-1 (n, 3)."""
    rows = []
    for at in range(0, len(targets), 64):
        part = slice(at, at + 64)
        p, q = base[part], found[part].float().log_softmax(-1)
        want = targets[part, None]
        kl = (p.exp() * (p - q)).sum(-1)
        dnll = (p.gather(1, want) - q.gather(1, want))[:, 0]
        rows.append(torch.stack([kl, dnll, (p.argmax(-1) == q.argmax(-1)).float()], 1).cpu())
    return torch.cat(rows).double().numpy()
