"""Layer plans of real families: what is packed, what stays the library's, and equal tokens."""

import pytest
import torch
from hf_tiny import cache, generate, model, packed_layers, padded, prompt

FOUR = {"num_hidden_layers": 4}
MIXED = ["sliding_attention", "full_attention"] * 2
P, S, C = "PackedLayer", "DynamicSlidingWindowLayer", "DynamicSlidingWindowLayer"
GEMMA3N = {
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 97,
    "laurel_rank": 4,
    "altup_num_inputs": 2,
    "activation_sparsity_pattern": None,
}
GEMMA4 = {
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 97,
    "global_head_dim": 32,
    "layer_types": MIXED,
    "sliding_window": 16,
}

CASES = {
    "no layer_types": ("Llama", {}, [P, P]),
    "qwen2": ("Qwen2", {}, [P, P]),
    "qwen3": ("Qwen3", {}, [P, P]),
    "smollm3": ("SmolLM3", {"pad_token_id": 0}, [P, P]),
    "sliding_window only": ("Mistral", {"sliding_window": 24}, [S, S]),
    "no sliding_window": ("Mistral", {"sliding_window": None}, [P, P]),
    "layer_types": (
        "Qwen2",
        FOUR | {"use_sliding_window": True, "sliding_window": 20, "layer_types": MIXED},
        [S, P, S, P],
    ),
    "cohere2": ("Cohere2", FOUR | {"sliding_window": 20, "layer_types": MIXED}, [S, P, S, P]),
    "gemma2": (
        "Gemma2",
        FOUR | {"sliding_window": 20, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16},
        [S, P, S, P],
    ),
    "gemma3": ("Gemma3", FOUR | {"sliding_window": 20, "layer_types": MIXED}, [S, P, S, P]),
    "attention_chunk_size": (
        "Llama4",
        FOUR
        | {
            "attention_chunk_size": 24,
            "layer_types": ["chunked_attention", "full_attention"] * 2,
            "num_local_experts": 2,
            "intermediate_size_mlp": 32,
            "interleave_moe_layer_step": 1,
        },
        [C, P, C, P],
    ),
    "learned sinks": (
        "GptOss",
        FOUR
        | {
            "sliding_window": 20,
            "layer_types": MIXED,
            "num_local_experts": 2,
            "num_experts_per_tok": 2,
        },
        [S, P, S, P],
    ),
    "no shared layers": (
        "Gemma3n",
        FOUR | GEMMA3N | {"num_kv_shared_layers": 0, "layer_types": MIXED, "sliding_window": 16},
        [S, P, S, P],
    ),
    "shared layers": (
        "Gemma3n",
        FOUR | GEMMA3N | {"num_kv_shared_layers": 2, "layer_types": MIXED, "sliding_window": 16},
        [S, P, "DummyLayer", "DummyLayer"],
    ),
    "head dim per layer": ("Gemma4", FOUR | GEMMA4 | {"num_kv_shared_layers": 0}, [S, P, S, P]),
    "head dim per layer, shared": (
        "Gemma4",
        FOUR | GEMMA4 | {"num_kv_shared_layers": 2},
        [S, P, "DummyLayer", "DummyLayer"],
    ),
    "latents": (
        "DeepseekV3",
        {
            "head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 24,
            "num_key_value_heads": 4,
            "first_k_dense_replace": 2,
        },
        [P, P],
    ),
    "linear layers": (
        "Qwen3Next",
        FOUR
        | {
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 0,
        },
        ["LinearAttentionLayer", P, "LinearAttentionLayer", P],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan_and_equal_tokens(case):
    """Rule: cache.plan.library"""
    family, options, plan = CASES[case]
    of = model(family, **options)
    inputs = padded(prompt(2, 60), [0, 13])
    expected = generate(of, inputs, new=24)
    past = cache(of, "raw")
    assert [type(layer).__name__ for layer in past.layers] == plan
    assert past.attention == ("dense" if case == "latents" else "packed")
    switched = of.config._attn_implementation in ("kakeya_sdpa", "kakeya_eager")
    assert switched == (past.attention == "packed")
    assert torch.equal(generate(of, inputs, past, new=24), expected)
    for layer in packed_layers(past):
        assert layer.state.pages.count.tolist() == [2, 2]
        assert layer.state.tail_k.shape[2] < 32
    # The switched model serves the library's own cache as before.
    assert torch.equal(generate(of, inputs, new=24), expected)


@pytest.mark.parametrize("case", ["gemma3", "shared layers"])
def test_drafting_on_hybrid_models(case):
    family, options, _ = CASES[case]
    of = model(family, **options)
    ids = prompt(1, 20).repeat(1, 3)
    expected = generate(of, ids, new=40)
    got = generate(of, ids, cache(of), new=40, prompt_lookup_num_tokens=5)
    assert torch.equal(got, expected)


def test_head_dims_of_the_plan_are_those_of_the_tokens():
    family, options, _ = CASES["head dim per layer"]
    past = cache(of := model(family, **options), "scalar:b=4")
    generate(of, prompt(1, 50), past, new=2)
    assert [layer.state.layouts[0].head_dim for layer in packed_layers(past)] == [32, 32]
    family, options, _ = CASES["latents"]
    past = cache(of := model(family, **options), "scalar:b=4")
    generate(of, prompt(1, 50), past, new=2)
    assert [x.head_dim for x in past.layers[0].state.layouts] == [16, 8]


def test_multimodal_model_switches_its_text_part_only():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = model("Gemma3", **FOUR, sliding_window=20, layer_types=MIXED).config.to_dict()
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    of = Gemma3ForConditionalGeneration(config).eval()
    ids = prompt(1, 50)
    expected = generate(of, ids, new=8)
    before = of.config.vision_config._attn_implementation
    past = cache(of)
    assert of.config.vision_config._attn_implementation == before
    assert of.config.text_config._attn_implementation.startswith("kakeya_")
    assert torch.equal(generate(of, ids, past, new=8), expected)


def test_predecessors_name_is_the_same_factory():
    import kakeya_fast.hf as hf

    assert hf.build_gemma4_kakeya_cache is hf.build_kakeya_cache
