"""Calibrated keys in the cache: frames, positions, rotations, tables, relocation.

Rule: query.frame.start, query.attend.frame
"""

from __future__ import annotations

import hf_tiny as tiny
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from kakeya_fast.hf import build_kakeya_cache, load_tables
from kakeya_fast.hf.calibrate import Statistics, statistics, tables
from kakeya_fast.hf.rope import Rope, Spread, turned_moments
from kakeya_fast.hf.rotary import ropes
from kakeya_fast.hf.watch import Call
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Malformed, Unsupported, UsageError
from kakeya_ref.layout import page_layout

K = "query:b=7"


def calibrated(model, frame: int = 32):
    """Tables of a tiny model from random tokens."""
    ids = [row.tolist() for row in tiny.prompt(3, 128, seed=5)]
    return tables(model, statistics(model, ids), frame=frame, context=512)


def cache(model, known, k: str = K, **options):
    return build_kakeya_cache(model, k=k, v="raw", tables=known, page_tokens=16, **options)


@torch.no_grad()
def run(model, past, ids, cut: int, **given):
    """Logits of all tokens, fed in pieces of ``cut``."""
    out, mask = [], given.get("attention_mask")
    for at in range(0, ids.shape[1], cut):
        more = {} if mask is None else {"attention_mask": mask[:, : at + cut]}
        if "position_ids" in given:
            more["position_ids"] = given["position_ids"][:, at : at + cut]
        out.append(model(ids[:, at : at + cut], past_key_values=past, **more).logits)
    return torch.cat(out, 1)


@pytest.fixture(scope="module")
def llama():
    model = tiny.model("Llama", seed=3)
    return model, calibrated(model)


@pytest.mark.parametrize("frame", [1, 16, 32, 48])
@pytest.mark.parametrize("cut", [1, 7, 150])
def test_seven_bits_read_almost_like_none(frame: int, cut: int) -> None:
    """Every frame length, both ways of scoring: transformed queries and formed keys."""
    model = tiny.model("Llama", seed=3)
    ids = tiny.prompt(2, 150, seed=9)
    want = model(ids).logits
    past = cache(model, calibrated(model, frame), f"query:b=7,f={frame}")
    got = run(model, past, ids, cut)
    assert (got - want).norm() < 0.03 * want.norm()
    assert past.layers[0].state.pages.count.tolist() == [9, 9]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Llama", {}),
        ("Llama", {"rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }}),
        ("Llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                                       "original_max_position_embeddings": 64}}),
        ("Cohere", {}),
        ("Glm", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                     "partial_rotary_factor": 0.5}}),
        ("Gemma3", {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}),
        ("SmolLM3", {"no_rope_layers": [1, 0]}),
    ],
)  # fmt: skip
def test_rotations_are_found(family: str, options: dict) -> None:
    """Halves, neighbours, partial, scaled, per layer, none: all by asking the model.

    Rule: query.frame.rotation
    """
    model = tiny.model(family, seed=4, **options)
    found = ropes(model)
    assert set(found) == {0, 1}
    if family == "Cohere":
        assert found[0].interleaved
        assert len(found[0].frequencies) == 8
    if family == "Glm":
        assert len(found[0].frequencies) == 4
    if family == "Gemma3":
        assert found[0].frequencies != found[1].frequencies
    if family == "SmolLM3":
        assert [len(found[i].frequencies) for i in (0, 1)] == [8, 0]
    ids = tiny.prompt(1, 100, seed=9)
    got = run(model, cache(model, calibrated(model)), ids, 33)
    want = model(ids).logits
    assert (got - want).norm() < 0.03 * want.norm()


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotations_that_change_are_refused(kind: str) -> None:
    """Rule: query.frame.rotation"""
    how = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    if kind == "longrope":
        how |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
        how["original_max_position_embeddings"] = 64
    model = tiny.model("Llama", rope_parameters=how)
    with pytest.raises(Unsupported, match=r"\[query.frame.rotation\]"):
        ropes(model)


def test_left_padding_and_far_positions_change_nothing(llama) -> None:
    """Positions are the model's: a padded row holds the bytes of the row alone, at its own.

    Rule: query.frame.positions
    """
    model, known = llama
    ids = tiny.prompt(2, 90, seed=2)
    given = tiny.padded(ids, [0, 21])
    mask = given["attention_mask"]
    places = (mask.cumsum(1) - 1).clamp(min=0)
    both = cache(model, known)
    run(model, both, given["input_ids"], 90, attention_mask=mask, position_ids=places)
    alone = cache(model, known)
    run(model, alone, given["input_ids"][1:, 21:], 69)
    pages, own = both.layers[1].state.pages, alone.layers[1].state.pages
    assert pages.shift.tolist() == [0, -21]
    # Keys of a batch and of a row alone differ in the last bit, on some CPUs in many of them, and
    # a walk may leave another near tie for it. At a wrong position hardly a code would agree.
    assert (pages.bodies[1, : own.count[0]] == own.bodies[0]).float().mean() > 0.85


def test_positions_with_holes_are_refused(llama) -> None:
    """Rule: query.frame.positions"""
    model, known = llama
    ids, places = tiny.prompt(1, 60), torch.arange(60)[None].clone()
    places[:, 30:] += 5
    with pytest.raises(Unsupported, match=r"\[query.frame.positions\]"):
        run(model, cache(model, known), ids, 60, position_ids=places)


@pytest.mark.parametrize("frame", [1, 32])
def test_a_page_can_be_moved(frame: int) -> None:
    """Relocated pages score like those that were coded there.

    Rule: query.frame.relocate
    """
    model = tiny.model("Llama", seed=3)
    known = calibrated(model, frame)
    rope = known.layers[0].rope
    make = torch.Generator().manual_seed(1)
    x = torch.randn(1, 2, 84, 16, generator=make)
    values = torch.randn(1, 2, 84, 16, generator=make)
    stores = []
    for at in (0, 700):
        layer = cache(model, known, f"query:b=7,f={frame}").layers[0]
        keys = rope.turned(x, torch.arange(84) + at)
        layer.update(keys, values)
        q = torch.randn(1, 4, 84, 16, generator=torch.Generator().manual_seed(2))
        places = torch.arange(84)[None] + at
        layer.attend(rope.turned(q, places[0]), None, 0.25, places=places)
        stores.append(layer.state.pages)
    here, there = stores
    # Coding is exact given frame coordinates; these differ by the rounding of the rotation.
    here.relocate(np.array([700]))
    assert (here.frames(0, 5) == there.frames(0, 5)).all()
    q = torch.randn(1, 2, 6, 16, generator=make)
    scores = []
    for store in stores:
        backend = model_backend(store)
        y = store.decode(0, 5, 0, backend, "coefficients")
        scores.append(store.framed(y, 0, 5).scores(q))
    assert (scores[0] - scores[1]).norm() < 0.02 * scores[1].norm()
    assert (here.bodies == there.bodies).float().mean() > 0.95


def model_backend(store):
    import kakeya_fast

    return kakeya_fast.get_backend("auto", str(store.bodies.device))


def test_few_and_many_queries_score_alike(llama) -> None:
    """Rule: query.attend.frame"""
    model, known = llama
    past = cache(model, known)
    run(model, past, tiny.prompt(1, 150, seed=6), 50)
    store = past.layers[0].state.pages
    keys = store.framed(store.decode(0, 9, 0, model_backend(store), "coefficients"), 0, 9)
    q = torch.randn(1, 2, 3, 16, generator=torch.Generator().manual_seed(2))
    few, many = keys.scores(q), q @ keys.formed().transpose(2, 3)
    assert torch.allclose(few, many, atol=1e-4 * float(many.abs().max()))


def test_bytes_do_not_depend_on_the_cut(llama) -> None:
    """The same keys in one call, in pieces, and token by token. Rule: query.frame.start"""
    model, known = llama
    make = torch.Generator().manual_seed(8)
    k, v = (torch.randn(1, 2, 90, 16, generator=make) for _ in "kv")
    q = torch.randn(1, 4, 90, 16, generator=make)
    found = []
    for cut in (90, 13, 1):
        layer = cache(model, known).layers[0]
        for at in range(0, 90, cut):
            part = slice(at, at + cut)
            places = torch.arange(90)[None, part]
            layer.update(k[:, :, part], v[:, :, part])
            layer.attend(q[:, :, part], None, 0.25, places=places)
        found.append(layer.state.pages.bodies)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_tables_are_checked_before_use(llama, tmp_path) -> None:
    """Rule: query.tables.given, query.tables.match, query.frame.pages, query.stream.keys"""
    model, known = llama
    with pytest.raises(UsageError, match=r"\[query.tables.given\].*kakeya calibrate"):
        cache(model, None)
    with pytest.raises(UsageError, match=r"\[query.tables.given\]"):
        build_kakeya_cache(model, k="scalar", v="scalar", tables=known)
    with pytest.raises(UsageError, match=r"\[query.tables.match\]"):
        cache(model, known, "query:f=64")
    with pytest.raises(UsageError, match=r"\[query.tables.match\]"):
        cache(tiny.model("Llama", seed=99), known)
    with pytest.raises(UsageError, match=r"\[query.frame.pages\]"):
        cache(model, calibrated(model, 24), "query:f=24")
    with pytest.raises(UsageError, match=r"\[query.stream.keys\]"):
        build_kakeya_cache(model, k=K, v="query", tables=known)
    path = tmp_path / "t.safetensors"
    known.save(path)
    again = load_tables(path)
    again.check(model)
    assert (again.layers[1].known.bodies == known.layers[1].known.bodies).all()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Malformed, match=r"\[query.tables.match\]"):
        load_tables(path)
    header = {"format": "kakeya-query-1", "rotation": "{}", "frame": "32", "made": "{}"}
    for lost in ({}, {"rotation": "{"}, {"frame": "wide"}, {"sha256": "0", "model": ""}):
        save_file({"x": np.zeros(1, np.float32)}, path, metadata=header | lost)
        with pytest.raises(Malformed, match=r"\[query.tables.match\]"):
            load_tables(path)
    path.write_bytes(b"no tables")
    with pytest.raises(UsageError, match=r"\[query.tables.match\]"):
        load_tables(path)


def test_calibration_needs_text(llama) -> None:
    """Rule: query.calibrate.text"""
    with pytest.raises(UsageError, match=r"\[query.calibrate.text\]"):
        statistics(llama[0], [[1, 2]])


@pytest.mark.parametrize("options", [{"frame": 0}, {"context": 0}, {"alike": 1.5}, {"alike": -0.1}])
def test_tables_of_nothing_are_refused(llama, options) -> None:
    """Rule: query.calibrate.text"""
    with pytest.raises(UsageError, match=r"\[query.calibrate.text\]"):
        tables(llama[0], Statistics({}), **options)


@pytest.mark.parametrize("interleaved", [False, True])
def test_moments_turn_as_vectors_do(interleaved: bool) -> None:
    """Moments of turned vectors, from the moments of the unturned ones."""
    rope, rng = Rope((1.0, 0.3, 0.01), interleaved), np.random.default_rng(0)
    x = rng.standard_normal((400, 10)) @ rng.standard_normal((10, 10)) + 3
    mean, second = turned_moments(x.mean(0), x.T @ x / len(x), rope, Spread(7))
    turned = [rope.turned(torch.from_numpy(x), torch.full((400,), p)).numpy() for p in range(7)]
    y = np.concatenate(turned)
    assert np.allclose(mean, y.mean(0))
    assert np.allclose(second, y.T @ y / len(y))
    _, far = turned_moments(x.mean(0), x.T @ x / len(x), rope, Spread(1, 50.0, 1.0))
    fine = np.linspace(0, 50, 4001)
    waves = [np.exp(1j * w * fine).mean() for w in (1.0, 0.3, 2.0)]
    assert np.allclose(Spread(1, 50.0, 1.0).wave(np.array([1.0, 0.3, 2.0])), waves, atol=2e-3)
    assert np.isclose(np.trace(far), np.trace(x.T @ x / len(x)))


@pytest.mark.parametrize("size", [6, 7, 10])
@pytest.mark.parametrize("interleaved", [False, True])
def test_many_positions_turn_by_one_product(interleaved: bool, size: int) -> None:
    """Rule: query.attend.frame"""
    rope, made = Rope((1.0, 0.3, 0.01), interleaved), torch.Generator().manual_seed(size)
    x = torch.randn(2, 3, 4, size, dtype=torch.float64, generator=made)
    matrix = torch.randn(3, size, 5, dtype=torch.float64, generator=made)
    at = torch.tensor([[0, 3, -50], [7000, 1, 2]])
    factors = rope.factors(x, matrix)
    mine = torch.einsum("bfw,bwhme->bhfme", rope.rows(at, size, torch.float64), factors)
    turned = rope.turned(x[:, :, None], at[:, None, :, None])
    torch.testing.assert_close(mine, turned @ matrix[:, None])


def test_bits_go_to_keys_that_somebody_looks_at(llama) -> None:
    """Half of the keys vary in other directions, but no query looks there."""
    made = torch.Generator().manual_seed(2)
    k = torch.randn(1, 1, 516, 16, generator=made)
    even = torch.arange(516) % 2 == 0
    k[..., even, 8:], k[..., ~even, :8] = 0, 0
    k[..., 0] = torch.where(even, 3.0, -9.0)
    q = torch.randn(1, 1, 516, 16, generator=made)
    q[..., 0] = 8
    found = Statistics({0: Rope(())})
    found.add(Call(0, q, k, torch.randn(1, 1, 516, 16, generator=made), 0.25))
    seen = k[0, :, even][:, :32].numpy()
    error = {}
    for alike in (1.0, 0.0):
        known = tables(llama[0], found, frame=32, alike=alike)
        layout, table = page_layout("query:b=2,f=32", 16, 32), known.layers[0].of_pages(1)
        reference = ReferenceBackend()
        body = reference.encode(seen, layout, tables=table)
        error[alike] = np.square(reference.decode(body, layout, tables=table) - seen).mean()
        assert known.made["alike"] == alike
    assert error[0.0] < 0.7 * error[1.0]


def test_a_head_that_looks_at_its_own_page_alone_counts_all_keys_alike(llama, caplog) -> None:
    made = torch.Generator().manual_seed(2)
    q, k, v = torch.randn(3, 1, 1, 30, 16, generator=made)  # less than a page behind the sinks
    found = Statistics({0: Rope(())})
    found.add(Call(0, q, k, v, 0.25))
    one, other = (tables(llama[0], found, alike=a).layers[0].known for a in (1.0, 0.0))
    assert np.array_equal(one.bodies, other.bodies)
    assert caplog.text.count("1 heads read no coded key") == 1  # not where all count alike anyway
