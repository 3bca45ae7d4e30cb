"""Wrong use is refused with the rule's name, before anything has changed."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from hf_tiny import cache, held_bytes, llama, model, page_bytes, prompt
from transformers import (
    BertConfig,
    BertModel,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from kakeya_fast import hf
from kakeya_fast.hf import build_kakeya_cache
from kakeya_ref.errors import RangeError, ShapeError, Unsupported, UsageError


def test_training_mode():
    of = model("Llama").train()
    with pytest.raises(Unsupported, match=r"^\[cache.model.eval\]"):
        build_kakeya_cache(of)


def test_models_without_a_decoder_cache():
    tiny = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1}
    t5 = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    models = [
        T5ForConditionalGeneration(t5),
        MambaForCausalLM(MambaConfig(**tiny, state_size=4)),
        BertModel(BertConfig(**tiny, intermediate_size=16, num_attention_heads=2)),
        torch.nn.Linear(2, 2),
    ]
    for of in models:
        with pytest.raises(Unsupported, match=r"^\[cache.model.kv\]"):
            build_kakeya_cache(of.eval())


def test_head_dim_is_checked_before_any_token():
    with pytest.raises(ShapeError, match=r"^\[page.head-dim.multiple-of-8\]"):
        build_kakeya_cache(model("Llama", head_dim=12))
    assert build_kakeya_cache(model("Llama", head_dim=24)).get_seq_length() == 0


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [
        ({"k": "nosuch"}, UsageError, "codec.string.known"),
        ({"v": "scalar:b=9"}, UsageError, "codec.params.range"),
        ({"sinks": -1}, UsageError, "cache.option.range"),
        ({"sinks": 1.5}, UsageError, "cache.option.range"),
        ({"attention": "fast"}, UsageError, "cache.option.range"),
        ({"page_tokens": 24}, ShapeError, "page.tokens.multiple-of-16"),
        ({"backend": "nosuch"}, Unsupported, "backend.name.explicit"),
    ],
    ids=str,
)
def test_options(options, error, rule):
    of = model("Llama")
    before = of.config._attn_implementation
    with pytest.raises(error, match=rf"^\[{rule}\]"):
        build_kakeya_cache(of, **options)
    assert of.config._attn_implementation == before


def filled(codec="scalar:b=4", tokens=70):
    past = cache(llama(), codec)
    llama()(prompt(2, tokens), past_key_values=past)
    return past


def same(layer, before):
    """Whether a layer holds what its deep copy held."""
    a, b = layer.state, before.state
    parts = ("tail_k", "tail_v", "sink_k", "sink_v")
    return (
        (a.length, a.settled, a.tail_from) == (b.length, b.settled, b.tail_from)
        and all(torch.equal(getattr(a, n), getattr(b, n)) for n in parts)
        and all(page_bytes(layer, row) == page_bytes(before, row) for row in range(2))
        and held_bytes(layer) == held_bytes(before)
    )


@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_and_no_token_is_lost(stream, value):
    layer = filled().layers[0]
    before = copy.deepcopy(layer)
    kv = [torch.randn(2, 2, 40, 16), torch.randn(2, 2, 40, 16)]
    kv[stream][1, 0, 7, 3] = value
    with pytest.raises(RangeError, match=r"^\[num.input.finite\].*row 1, token 77"):
        layer.update(*kv)
    assert same(layer, before)


@pytest.mark.parametrize("bad", [0, 1])
def test_where_looking_is_late_a_forward_is_refused_as_a_whole(monkeypatch, bad):
    """Rule: num.input.finite, cache.step.whole"""
    monkeypatch.setattr(hf.layer, "LATE", ("cpu",))
    past = filled()
    before = copy.deepcopy(past)
    kv = [torch.randn(2, 2, 5, 16) for _ in past.layers]
    kv[bad][0, 1, 3, 7] = torch.nan

    def forward():
        for layer, x in zip(past.layers, kv, strict=True):
            layer.update(x.nan_to_num(), x)
            layer.attend(torch.randn(2, 4, 5, 16), None, 1.0)

    with pytest.raises(RangeError, match=r"^\[num.input.finite\].*values of row 0, token 73"):
        forward()
    assert all(same(a, b) for a, b in zip(past.layers, before.layers, strict=True))
    # Where nothing has read them, the next forward says so.
    past.layers[0].update(kv[bad], kv[bad])
    with pytest.raises(RangeError, match=r"^\[num.input.finite\].*keys of row 0, token 73"):
        past.layers[0].update(kv[1 - bad], kv[1 - bad])


@pytest.mark.parametrize("codec", ["int:b=4,g=16", "raw:dtype=f16"])
def test_a_value_the_codec_cannot_carry_takes_its_step_back(codec):
    layer = filled(codec).layers[0]
    before = copy.deepcopy(layer)
    for row in (0, 1):
        kv = torch.randn(2, 2, 40, 16)
        kv[row, 1, 12] = 1e30
        layer.update(kv, kv)
        with pytest.raises(RangeError):
            layer.attend(torch.randn(2, 4, 40, 16), None, 1.0)
        assert same(layer, before)
    kv = torch.randn(2, 2, 40, 16)
    layer.update(kv, kv)
    assert layer.attend(torch.randn(2, 4, 40, 16), None, 1.0).isfinite().all()
    assert layer.get_seq_length() == 110


def test_nan_of_a_broken_model_surfaces_as_an_error():
    of = model("Llama")
    of.model.layers[0].mlp.down_proj.weight.data[0, 0] = torch.nan
    past = cache(of)
    with pytest.raises(RangeError, match=r"^\[num.input.finite\]"):
        of(prompt(1, 9), past_key_values=past)


def test_tensors_that_do_not_continue_the_cache():
    layer = filled().layers[0]
    before = copy.deepcopy(layer)
    good = torch.zeros(2, 2, 3, 16)
    for k, v in [
        (good[:1], good[:1]),
        (good[:, :1], good[:, :1]),
        (good[..., :8], good),
        (good, good[..., :8]),
        (good.double(), good.double()),
        (good, good[:, :, :2]),
        (good[0], good[0]),
    ]:
        with pytest.raises(ShapeError, match=r"^\[cache.append.shape\]"):
            layer.update(k, v)
    assert same(layer, before)


def test_queries_and_masks_that_do_not_fit():
    layer = filled().layers[0]
    before = copy.deepcopy(layer)
    kv, q = torch.randn(2, 2, 3, 16), torch.randn(2, 4, 3, 16)
    for query, mask in [
        (q[:1], None),
        (q[:, :3], None),
        (q[..., :8], None),
        (q, torch.ones(2, 1, 3, 72, dtype=torch.bool)),
        (q, torch.ones(2, 3, 3, 73, dtype=torch.bool)),
        (q, torch.ones(2, 1, 3, 74, dtype=torch.bool)),
        (q, torch.ones(2, 73, dtype=torch.bool)),
    ]:
        layer.update(kv, kv)
        with pytest.raises(ShapeError, match=r"^\[cache.attend.shape\]"):
            layer.attend(query, mask, 1.0)
        assert same(layer, before)
    layer.update(kv, kv)
    assert layer.attend(q, None, 1.0).shape == (2, 3, 4, 16)
    for query in (q, q[:, :, :1]):
        with pytest.raises(UsageError, match=r"^\[cache.attend.order\]"):
            layer.attend(query, None, 1.0)


@pytest.mark.parametrize(
    "kinds", [["full_attention"] * 4, ["sliding_attention", "full_attention"] * 2]
)
def test_a_failure_in_a_late_layer_takes_the_forward_out_of_every_layer(kinds, monkeypatch):
    """Rule: cache.step.whole"""
    of = model("Gemma3", num_hidden_layers=4, layer_types=kinds, sliding_window=20)
    past, twin = cache(of, "scalar:b=4"), cache(of, "scalar:b=4")
    ids, bad, good = prompt(2, 60), prompt(2, 50, seed=2), prompt(2, 50, seed=3)
    fail = RangeError("num.input.finite", "as if")

    def broken(layer, name):
        monkeypatch.setattr(layer, name, lambda *a, **k: (_ for _ in ()).throw(fail))

    for first in (True, False):
        report = past.report()
        for name in ("_check", "_starts"):
            broken(past.layers[3], name)
            with pytest.raises(RangeError):
                of(bad, past_key_values=past)
            monkeypatch.undo()
            assert [x.get_seq_length() for x in past.layers] == [0 if first else 60] * 4
            assert past.report() == report
        inputs = ids if first else good
        out, expected = (of(inputs, past_key_values=c).logits for c in (past, twin))
        assert torch.equal(out, expected)
    for a, b in zip(past.layers, twin.layers, strict=True):
        assert type(a) is type(b)
        if hasattr(a, "state"):
            assert page_bytes(a, 0) == page_bytes(b, 0) != b""
    assert not past.step._marks


def test_an_unfinished_forward_is_not_undone_by_the_next_one():
    past = filled()
    layer = past.layers[0]
    kv = torch.randn(2, 2, 70, 16)
    layer.update(kv, kv)
    layer.attend(torch.randn(2, 4, 70, 16), None, 1.0)
    before = copy.deepcopy(layer)
    with pytest.raises(RangeError):
        layer.update(kv * torch.nan, kv)
    assert layer.get_seq_length() == 140
    assert all(page_bytes(layer, row) == page_bytes(before, row) for row in range(2))
    assert torch.equal(layer.dense()[0], before.dense()[0])


def test_tokens_that_no_attention_came_for_and_no_codec_takes():
    layer = filled("int:b=4,g=16").layers[0]
    before = copy.deepcopy(layer)
    huge = torch.full((2, 2, 40, 16), 1e30)
    layer.update(huge, huge)
    with pytest.raises(RangeError):
        layer.update(huge / 1e30, huge / 1e30)
    assert same(layer, before)
    layer.update(huge, huge)
    with pytest.raises(RangeError):
        layer.crop(-1)
    assert layer.get_seq_length() == 70
    assert torch.equal(layer.dense()[1], before.dense()[1])


def test_gradients():
    with torch.enable_grad(), pytest.raises(Unsupported, match=r"^\[cache.model.eval\]"):
        llama()(prompt(1, 5), past_key_values=cache(llama()))


@pytest.mark.parametrize("tokens", [5, -0.5, "1", None])
def test_crops_that_are_no_number_to_remove(tokens):
    """Layers that are the library's own, which would take a length, stay as they are too."""
    past = filled()
    with pytest.raises(UsageError, match=r"^\[cache.crop.negative\]"):
        past.crop(tokens)
    assert past.get_seq_length() == 70
    kinds = ["sliding_attention", "full_attention"]
    hybrid = model("Gemma3", layer_types=kinds, sliding_window=20)
    past = build_kakeya_cache(hybrid)
    hybrid(prompt(1, 12), past_key_values=past)
    before = [past.get_seq_length(i) for i in range(len(past.layers))]
    with pytest.raises(UsageError, match=r"^\[cache.crop.negative\]"):
        past.crop(tokens)
    assert [past.get_seq_length(i) for i in range(len(past.layers))] == before


def test_a_mask_that_uncovers_padding():
    past = cache(llama())
    mask = torch.tensor([[1] * 8, [0] * 8])
    llama()(prompt(2, 8), attention_mask=mask, past_key_values=past)
    with pytest.raises(Unsupported, match=r"^\[cache.row.start\]"):
        llama()(prompt(2, 4), attention_mask=torch.ones(2, 12).long(), past_key_values=past)


def test_errors_survive_pickling():
    with pytest.raises(UsageError) as caught:
        filled().crop(1)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_library_range(monkeypatch):
    for found in ("4.57.0", "5.22.3", "6.0.0"):
        monkeypatch.setattr(hf, "version", lambda _, found=found: found)
        with pytest.raises(Unsupported, match=r"^\[cache.library.range\]"):
            hf._check_library()
    monkeypatch.setattr(hf, "version", lambda _: "5.99.0.dev0")
    assert hf._check_library() is None


def test_import_is_lazy():
    code = "import sys, kakeya_fast; print({'torch', 'numba', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
