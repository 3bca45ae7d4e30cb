"""How far errors move outputs: against derivatives, for every form of attention."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from kakeya_fast.hf.watch import ROWS, Call  # noqa: E402

FIRST, PAGE = 4, 8


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (11, None), (None, 1.5), (11, 1.5)])
def test_weights_are_squared_derivatives_of_the_outputs(groups, window, softcap):
    made = torch.Generator().manual_seed(3)
    heads, tokens, size = 2, 30, 6
    q = torch.randn(1, heads * groups, tokens, size, generator=made, dtype=torch.float64)
    k, v = torch.randn(2, 1, heads, tokens, size, generator=made, dtype=torch.float64)
    at = torch.arange(tokens)
    seen = (at <= at[:, None]) & (at > at[:, None] - (window or tokens))

    def outputs(errors):
        wide = (x.repeat_interleave(groups, 1) for x in (k, v))
        keys, values = wide
        logits = 0.4 * (q @ keys.transpose(2, 3)) + errors
        if softcap:
            logits = softcap * (logits / softcap).tanh()
        return logits.masked_fill(~seen, -torch.inf).softmax(-1) @ values

    errors = torch.zeros(1, heads * groups, tokens, tokens, dtype=torch.float64)
    # Errors of one query change its output alone: one derivative for all of them.
    slopes = [
        torch.autograd.functional.jacobian(lambda e, n=n: outputs(e)[..., n].sum((0, 1, 2)), errors)
        for n in range(size)
    ]
    pairs = sum(s[0].square() for s in slopes)
    coded = (at >= FIRST) & ((at - FIRST) // PAGE < ((at - FIRST) // PAGE)[:, None])
    pairs = (pairs * coded).unflatten(0, (heads, groups))
    of_keys, of_queries = Call(0, q, k, v, 0.4, window, softcap).moved(FIRST, PAGE)
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
