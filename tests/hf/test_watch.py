"""How far errors move outputs: against derivatives, for every form of attention."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hf_tiny import model, prompt  # noqa: E402

from kakeya_fast.hf.watch import ROWS, Call, watching  # noqa: E402

FIRST, PAGE = 4, 8


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Gemma2", {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 16}),
        ("GptOss", {"num_local_experts": 2, "num_experts_per_tok": 2}),
        ("Llama", {}),
    ],
)
def test_a_model_that_is_listened_to_answers_as_before(family, options):
    of, calls = model(family, **options), []
    ids = prompt(1, 40)
    before, name = of(ids).logits, of.config._attn_implementation
    with watching(of, calls.append):
        assert torch.allclose(of(ids).logits, before, atol=1e-5)
    assert torch.equal(of(ids).logits, before)
    assert of.config._attn_implementation == name
    assert [c.layer for c in calls] == [0, 1]
    assert all((c.softcap is not None) == (family == "Gemma2") for c in calls)
    assert all((c.sinks is not None) == (family == "GptOss") for c in calls)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("window", "softcap", "sinks"),
    [
        (None, None, False), (11, None, False), (None, 1.5, False), (11, 1.5, False),
        (None, None, True), (11, 1.5, True),
    ],
)  # fmt: skip
def test_weights_are_squared_derivatives_of_the_outputs(groups, window, softcap, sinks):
    made = torch.Generator().manual_seed(3)
    heads, tokens, size = 2, 30, 6
    q = torch.randn(1, heads * groups, tokens, size, generator=made, dtype=torch.float64)
    k, v = torch.randn(2, 1, heads, tokens, size, generator=made, dtype=torch.float64)
    own = torch.randn(heads * groups, generator=made, dtype=torch.float64) if sinks else None
    at = torch.arange(tokens)
    seen = (at <= at[:, None]) & (at > at[:, None] - (window or tokens))

    def outputs(errors):
        wide = (x.repeat_interleave(groups, 1) for x in (k, v))
        keys, values = wide
        logits = 0.4 * (q @ keys.transpose(2, 3)) + errors
        if softcap:
            logits = softcap * (logits / softcap).tanh()
        logits = logits.masked_fill(~seen, -torch.inf)
        if sinks:
            given = own[:, None, None].expand(*logits.shape[1:3], 1)[None]
            logits = torch.cat([logits, given], -1)
        return logits.softmax(-1)[..., :tokens] @ values

    errors = torch.zeros(1, heads * groups, tokens, tokens, dtype=torch.float64)
    # Errors of one query change its output alone: one derivative for all of them.
    slopes = [
        torch.autograd.functional.jacobian(lambda e, n=n: outputs(e)[..., n].sum((0, 1, 2)), errors)
        for n in range(size)
    ]
    pairs = sum(s[0].square() for s in slopes)
    coded = (at >= FIRST) & ((at - FIRST) // PAGE < ((at - FIRST) // PAGE)[:, None])
    pairs = (pairs * coded).unflatten(0, (heads, groups))
    of_keys, of_queries = Call(0, q, k, v, 0.4, window, softcap, own).moved(FIRST, PAGE)
    assert torch.allclose(of_keys, pairs.sum((1, 2)), rtol=1e-4, atol=1e-6)
    assert torch.allclose(of_queries, pairs.sum(3), rtol=1e-4, atol=1e-6)
    assert of_keys[:, FIRST : FIRST + PAGE].min() > 0
    assert of_keys[:, :FIRST].max() == of_keys[:, -2:].max() == 0


def test_long_passages_are_taken_in_parts():
    made = torch.Generator().manual_seed(4)
    q, k, v = torch.randn(3, 1, 1, 2 * ROWS + 7, 4, generator=made)
    whole = Call(0, q, k, v, 0.5).moved(FIRST, PAGE)
    short = Call(0, *(x[:, :, : ROWS + 3] for x in (q, k, v)), 0.5).moved(FIRST, PAGE)
    assert torch.allclose(whole[1][..., : ROWS + 3], short[1])
    assert float(whole[0].sum()) == pytest.approx(float(whole[1].sum()), rel=1e-6)
