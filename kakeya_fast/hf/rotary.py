"""Which rotary embedding each layer has, found by asking the model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.rope import Rope
from kakeya_fast.hf.watch import watching
from kakeya_ref.errors import Unsupported

# Positions at which keys are compared with those of position 0, and what rounding may cost.
PLACES = (0, 1, 2, 7, 100)
TOLERANCE = 2e-3


def ropes(model: PreTrainedModel) -> dict[int, Rope]:
    """The rotary embedding of every attention layer.

    A sequence of one token has the same keys in every layer wherever it stands, but for its
    rotation; so one forward of single tokens at several positions tells pairing, partial
    rotation, frequencies and layers without rotation, and shows what is none of these.

    Rule: query.frame.rotation

    Raises
    ------
    Unsupported
        Keys that no known rotation explains: several axes, frequencies that change with length.
    """
    config = model.config.get_text_config(decoder=True)
    found = [b for n, b in model.named_buffers() if n.endswith("inv_freq") and b.dim() == 1]
    kinds = {str(getattr(m, "rope_type", "default")) for m in model.modules()}
    changing = sorted(kinds & {"dynamic", "longrope"})
    axes = getattr(config, "rope_parameters", None) or {}
    if changing or "mrope_section" in str(axes):
        what = ", ".join(changing) or "positions of several axes"
        raise Unsupported("query.frame.rotation", f"{type(model).__name__} has {what}")
    keys: dict[int, Tensor] = {}
    token = min(5, config.vocab_size - 1)
    ids = torch.full((len(PLACES), 1), token, device=model.device)
    at = torch.tensor(PLACES, device=model.device)
    with (
        torch.no_grad(),
        watching(model, lambda c: keys.setdefault(c.layer, c.key[:, :, 0].double())),
    ):
        model(ids, position_ids=at[:, None], use_cache=False, logits_to_keep=1)
    frequencies = {tuple(b.double().tolist()) for b in found}
    candidates = [Rope(()), *(Rope(f, inter) for f in frequencies for inter in (False, True))]
    return {layer: _best(layer, k, at, candidates) for layer, k in keys.items()}


def _best(layer: int, keys: Tensor, at: Tensor, candidates: list[Rope]) -> Rope:
    """The candidate that turns the key at position 0 (first row) into all others."""
    size = keys.shape[-1]
    fits = [r for r in candidates if 2 * len(r.frequencies) <= size and size % 2 == 0]
    first = keys[:1].expand_as(keys)
    errors = [float((r.turned(first, at[:, None]) - keys).norm() / keys.norm()) for r in fits]
    least = min(range(len(fits)), key=errors.__getitem__)
    if not errors[least] < TOLERANCE:
        raise Unsupported(
            "query.frame.rotation",
            f"no known rotation explains the keys of layer {layer} ({errors[least]:.1e} off)",
        )
    return fits[least]
