"""What is captured is what the cache stores and what attention asks."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import DynamicCache  # noqa: E402

from kakeya_fast.hf import build_kakeya_cache  # noqa: E402
from kakeya_fast.quality.capture import capture, full_layers  # noqa: E402
from kakeya_fast.quality.metric import query_metric  # noqa: E402
from kakeya_fast.quality.models import load_model  # noqa: E402
from kakeya_fast.quality.texts import load_text, passages  # noqa: E402
from kakeya_ref.errors import UsageError  # noqa: E402


@pytest.fixture(scope="module")
def loaded(tiny):
    return load_model(str(tiny))


@pytest.fixture(scope="module")
def ids(loaded):
    return passages(loaded.tokens(load_text("manual").text), loaded.prefix, 90, 1)[0].ids


def test_keys_and_values_are_those_of_the_cache(loaded, ids):
    cache = DynamicCache(config=loaded.model.config)
    with torch.inference_mode():
        loaded.model(torch.tensor([ids]), past_key_values=cache)
    calls = []
    found = capture(loaded.model, ids, [1], chunk=32, step=lambda: calls.append(1))
    assert list(found) == [1]
    assert len(calls) == 3
    assert np.allclose(found[1].k, cache.layers[1].keys[0], atol=1e-5)
    assert np.allclose(found[1].v, cache.layers[1].values[0], atol=1e-5)
    assert found[1].stream("v") is found[1].v
    assert found[1].q is None


@pytest.mark.parametrize("packed", [False, True])
def test_queries_are_those_of_attention(loaded, ids, packed):
    """Softmax of the captured queries and keys, times the values, is what attention returns."""
    if packed:
        build_kakeya_cache(loaded.model)
    before = loaded.model.config._attn_implementation
    assert before.startswith("kakeya_") == packed
    seen = []
    attention = loaded.model.model.layers[0].self_attn
    hook = attention.o_proj.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    found = capture(loaded.model, ids, [0], queries=True, chunk=128)[0]
    hook.remove()
    assert loaded.model.config._attn_implementation == before
    q, k, v = (torch.from_numpy(x) for x in (found.q, found.k, found.v))
    k, v = (x.repeat_interleave(len(q) // len(x), 0) for x in (k, v))
    score = q @ k.transpose(1, 2) * attention.scaling
    score += torch.full(score.shape[1:], -torch.inf).triu(1)
    out = (score.softmax(-1) @ v).transpose(0, 1).flatten(1)
    assert torch.allclose(out, seen[0][0], atol=1e-4)


def test_a_layer_that_is_not_there_is_refused(loaded, ids):
    with pytest.raises(UsageError, match=r"capture\.layer\.range"):
        capture(loaded.model, ids, [2])


def test_full_layers_of_a_model_with_windows():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=4,
    )
    assert full_layers(Gemma3ForCausalLM(config)) == [5]


def test_the_metric_is_that_of_the_middle_of_the_text(loaded):
    text = load_text("manual")
    (passage,) = passages(loaded.tokens(text.text), loaded.prefix, 200, 1)
    q = capture(loaded.model, passage.ids, [0], queries=True)[0].q
    found = query_metric(loaded, text, 200)
    assert sorted(found) == [0, 1]
    rows = q[2:].reshape(-1, 16).astype(np.float64)
    moment = rows.T @ rows / len(rows)
    factor = found[0][1]
    share = (factor @ factor.T) / np.trace(factor @ factor.T)
    assert np.allclose(share, moment / np.trace(moment), atol=2e-3)
