"""Stages against the bytes, against arithmetic done by hand, and the two historic errors."""

import numpy as np
import pytest

from kakeya_fast.quality.stages import stages_of
from kakeya_fast.quality.trace import rotation, trace
from kakeya_ref.errors import UsageError
from kakeya_ref.fitting import fit, for_page
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec
from kakeya_ref.rotation import rotate

D, BLOCK = 32, 128
CODECS = (
    "turbo:b=3",
    "turbo:b=1,k=4,store=bf16",
    "turbo:b=2,levels=own,seed=0",
    "turbo:b=2,cut=20",
    "turbo:b=3,share=1",
    "turbo:b=4,pca=random,vr=80",
    "skeleton",
    "skeleton:time=none,res=3",
    "skeleton:res=64,vr=100,store=bf16",
)


@pytest.fixture(scope="module")
def keys():
    """(2, 300, D): a low rank signal with a large mean, a drift, and noise."""
    rng = np.random.default_rng(11)
    mix = rng.standard_normal((D, D)) * np.geomspace(1, 0.02, D)[:, None]
    x = rng.standard_normal((2, 300, D)) @ mix
    clock = np.linspace(-1, 1, 300)[None, :, None]
    return (x + 3 * rng.standard_normal(D) + 2 * clock * rng.standard_normal(D)).astype(np.float32)


@pytest.mark.parametrize("codec", CODECS)
def test_the_last_stage_is_what_the_bytes_decode_to(keys, codec):
    """Within the rounding of float32 against float64, but for a code that lands on a threshold."""
    found = stages_of(keys, 1, codec, block=BLOCK, backend="ref")
    last, real = found.stages[-2:]
    assert real.name == "bytes"
    assert found.blocks == 2
    assert real.snr == pytest.approx(last.snr, rel=2e-3)
    assert real.corr == pytest.approx(last.corr, abs=1e-5)


@pytest.mark.parametrize("codec", CODECS)
def test_numbers_of_the_last_stage(keys, codec):
    from kakeya_fast.dispatch import get_backend

    page = keys[0, :BLOCK]
    asked = parse_codec(codec)
    fitted = fit(page, asked)
    chosen = for_page(fitted, page, dict(asked.params).get("cut", 0))
    *_, (_, simulated) = trace(page, fitted, chosen)
    layout = page_layout(chosen, D, BLOCK)
    engine = get_backend("ref")
    body = engine.encode(page[None], layout, tables=fitted.tables)
    decoded = engine.decode(body, layout, tables=fitted.tables)[0]
    off = np.abs(simulated - decoded).max(axis=1) > 1e-4 * np.abs(page).max()
    assert off.mean() <= 0.02, "more than the odd code on a threshold"


def test_bits_add_up_to_page_and_table(keys):
    found = stages_of(keys, 0, "turbo:b=2,cut=15", block=BLOCK, backend="ref")
    bits = [s.bits for s in found.stages]
    assert bits == sorted(bits)
    page = keys[0, :BLOCK]
    total = 0
    for at in (0, BLOCK):
        page = keys[0, at : at + BLOCK]
        fitted = fit(page, parse_codec("turbo:b=2,cut=15"))
        layout = page_layout(for_page(fitted, page, 15), D, BLOCK)
        total += layout.nbytes + fitted.tables.bodies.nbytes + 4
    assert bits[-1] == pytest.approx(8 * total / (2 * BLOCK * D))


def test_each_stage_adds_what_it_stores(keys):
    found = {s.name: s for s in stages_of(keys, 0, "turbo:b=3", block=BLOCK, backend="ref").stages}
    pca, plain = found["principal components"], found["residual, unquantised"]
    assert plain.snr == pytest.approx(pca.snr, rel=1e-6), "a rotation loses nothing"
    assert found["centres"].snr < found["quantiser"].snr < plain.snr
    # 95 % of the variance inside the basis: the SNR of the centred vectors is 1 / 5 %.
    assert 20 <= pca.centred < 25


def test_more_bits_are_better_unless_an_error_is_injected(keys):
    """D-01a and D-01b: the scale of another transform, and a gain that nobody reads."""
    right = {}
    for inject in ("scale", "norm"):
        found = stages_of(keys, 0, "turbo:b=3,vr=99", block=BLOCK, backend="ref", inject=inject)
        right = found.by_bits
        wrong = found.injected_by_bits
        quantised = next(s for s in found.stages if s.name == "quantiser")
        broken = next(s for s in found.injected if s.name == "quantiser")
        assert right[3] == pytest.approx(quantised.snr)
        assert wrong[3] == pytest.approx(broken.snr)
        assert quantised.snr > 5 * broken.snr, "the error costs a wide factor"
        assert quantised.corr > broken.corr
        assert right[4] > 8 * right[1], "the right codec gains with every bit"
        assert wrong[4] / wrong[1] < right[4] / right[1] / 4, "the wrong one hardly does"
        before = next(s for s in found.injected if s.name == "residual, unquantised")
        assert before.snr == pytest.approx(found.stages[2].snr), "nothing else is touched"
    assert right[1] < right[2] < right[3] < right[4]
    assert wrong[4] < 1.5 * wrong[1], "without its size, more bits of a residual are worth nothing"


def test_a_metric_moves_the_error_where_queries_do_not_look(keys):
    rng = np.random.default_rng(5)
    scale = np.where(np.arange(D) < 4, 30.0, 0.3)
    metric = np.stack([np.diag(scale)] * 2)
    asked = parse_codec("turbo:b=2,vr=80")
    page = keys[0, :BLOCK]
    *_, (_, plain) = trace(page, fit(page, asked), fit(page, asked).codec)
    white = fit(page, asked, metric=metric[0])
    *_, (_, seen) = trace(page, white, white.codec)
    q = rng.standard_normal((200, D)) * scale
    cost = [float((((y - page) @ q.T) ** 2).sum()) for y in (plain, seen)]
    assert cost[1] < cost[0]
    found = stages_of(keys, 0, asked, block=BLOCK, backend="ref", metric=metric)
    assert found.stages[-1].snr == pytest.approx(found.stages[-2].snr, rel=2e-3)


@pytest.mark.parametrize(("width", "seed"), [(8, 1), (24, 7), (64, 0)])
def test_the_rotation_is_that_of_the_format(width, seed):
    x = np.random.default_rng(width).standard_normal((5, width))
    matrix = rotation(width, seed)
    assert np.allclose(matrix @ matrix.T, np.eye(width))
    assert np.allclose(x @ matrix, rotate(x.astype(np.float32), seed), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"codec": "scalar"}, "stages.codec.tabled"),
        ({"codec": "turbo:rank=8"}, "stages.codec.tabled"),
        ({"codec": "skeleton", "inject": "scale"}, "stages.inject.known"),
        ({"codec": "turbo", "inject": "sign"}, "stages.inject.known"),
        ({"codec": "turbo", "head": 2}, "stages.head.range"),
        ({"codec": "turbo", "block": 512}, "stages.block.whole"),
    ],
)
def test_what_means_nothing_is_refused(keys, options, rule):
    given = {"head": 0, "block": BLOCK, "backend": "ref"} | options
    with pytest.raises(UsageError, match=rule.replace(".", r"\.")):
        stages_of(keys, given.pop("head"), given.pop("codec"), **given)
