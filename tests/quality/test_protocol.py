"""On a tiny model: lossless codecs do no damage, coarse ones do, chunks do not show."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tinymodel import VOCAB  # noqa: E402

from kakeya_fast.quality import protocol  # noqa: E402
from kakeya_fast.quality.models import load_model  # noqa: E402
from kakeya_fast.quality.protocol import Options, Setting, compare, measure_passage  # noqa: E402
from kakeya_fast.quality.report import Report  # noqa: E402
from kakeya_fast.quality.run import run, steps  # noqa: E402
from kakeya_fast.quality.texts import load_text, passages  # noqa: E402
from kakeya_ref.errors import UsageError  # noqa: E402

OPTIONS = Options(chunk=48, warmup=40, page_tokens=16, backend="torch")
RAW, FINE, COARSE = (Setting.parse(s) for s in ("raw", "scalar:b=6", "scalar:b=1"))


@pytest.fixture(scope="module")
def loaded(tiny):
    return load_model(str(tiny))


@pytest.fixture(scope="module")
def passage(loaded):
    return passages(loaded.tokens(load_text("manual").text), loaded.prefix, 160, 2)[0]


def test_raw_is_lossless_and_coarser_is_worse(loaded, passage):
    raw, fine, coarse = measure_passage(loaded.model, passage, [RAW, FINE, COARSE], OPTIONS)
    per_token = [s.kl / s.tokens for s in (raw, fine, coarse)]
    assert raw.tokens == 160 - 40 - 1
    assert abs(per_token[0]) < 1e-5
    assert raw.agree == raw.tokens
    assert 1e-5 < per_token[1] < per_token[2]
    assert coarse.agree < coarse.tokens
    assert coarse.sizes["codes_bytes"] < fine.sizes["codes_bytes"] < raw.sizes["codes_bytes"]


def test_chunks_do_not_show(loaded, passage):
    one = measure_passage(loaded.model, passage, [COARSE], OPTIONS)[0]
    other = measure_passage(
        loaded.model, passage, [COARSE], Options(160, 40, page_tokens=16, backend="torch")
    )[0]
    assert one.tokens == other.tokens
    assert one.kl == pytest.approx(other.kl, rel=1e-3)
    assert one.dnll == pytest.approx(other.dnll, rel=1e-3, abs=1e-3)


def test_sliding_layers_are_coded_where_asked(passage):
    torch.manual_seed(3)
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=24,
        layer_types=kinds, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.Gemma3ForCausalLM(config).eval()
    options = Options(chunk=26, warmup=40, page_tokens=48, backend="torch")
    some = [Setting.parse(f"{c}@sliding=pack") for c in ("raw", "scalar:b=2")]
    raw, all_coded, one = measure_passage(
        model, passage, [*some, Setting.parse("scalar:b=2")], options
    )
    assert abs(raw.kl / raw.tokens) < 1e-5
    assert raw.agree == raw.tokens
    assert all_coded.kl > one.kl > 0
    # The same bytes of the full layer, and a window's of the other.
    assert all_coded.sizes["codes_bytes"] > one.sizes["codes_bytes"] > 0


@pytest.mark.parametrize("how", ["inforward", "snapshot"])
def test_what_is_handed_over_is_what_a_forward_would_have_stored(loaded, passage, monkeypatch, how):
    """Chunks whose queries read no page: 4 sinks and one page of 48 end with the second chunk."""
    options = Options(chunk=26, warmup=10, page_tokens=48, backend="torch")
    setting = Setting("scalar:b=1", "scalar:b=1", protocol=how)
    ran = []
    real = protocol.hand_over
    monkeypatch.setattr(protocol, "hand_over", lambda *a: ran.append(a[2]) or real(*a))
    short = measure_passage(loaded.model, passage, [setting], options)[0]
    assert ran == [0, 26]
    monkeypatch.setattr(protocol, "_all_exact", lambda *_: 0)
    full = measure_passage(loaded.model, passage, [setting], options)[0]
    assert short.tokens == full.tokens == 160 - 10 - 1
    assert short.kl == pytest.approx(full.kl, rel=1e-3)
    assert short.kl > 0.1
    assert short.dnll == pytest.approx(full.dnll, rel=1e-3, abs=1e-3)
    assert (short.agree, short.sizes) == (full.agree, full.sizes)


def test_a_chunk_inside_the_warm_up_has_no_logits(loaded, passage):
    one = Options(chunk=48, warmup=60, page_tokens=16, backend="torch")
    many = Options(chunk=20, warmup=60, page_tokens=16, backend="torch")
    a, b = (measure_passage(loaded.model, passage, [COARSE], o)[0] for o in (one, many))
    assert a.tokens == b.tokens == 160 - 60 - 1
    assert a.kl == pytest.approx(b.kl, rel=1e-3)


def test_compare_against_the_definition():
    torch.manual_seed(1)
    base, packed = torch.randn(70, 11), torch.randn(70, 11)
    targets = torch.randint(0, 11, (70,))
    p, q = base.double().log_softmax(-1), packed.double().log_softmax(-1)
    tokens, dnll, kl, agree = compare(base.log_softmax(-1), packed, targets)
    assert tokens == 70
    assert kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-5)
    assert dnll == pytest.approx(
        float((p - q)[torch.arange(70), targets].sum()), rel=1e-5, abs=1e-5
    )
    assert agree == int((base.argmax(-1) == packed.argmax(-1)).sum())


def test_warm_up_longer_than_the_passage_is_refused(loaded, passage):
    with pytest.raises(UsageError, match=r"quality\.warmup\.short"):
        measure_passage(loaded.model, passage, [RAW], Options(warmup=159, backend="torch"))


def test_report_is_resumed_and_reads_back(loaded, tmp_path):
    out = tmp_path / "report.json"
    calls = []
    again = []
    text = load_text("manual")
    options = {"ctx": 96, "count": 2, "options": OPTIONS, "out": out}
    first = run(loaded, text, [RAW, COARSE], **options, step=lambda: calls.append(1))
    stored = json.loads(out.read_text())
    assert len(calls) == steps(96, 2, 2, OPTIONS)
    assert stored["summary"] == first.summary()
    assert stored["text"]["sha256"] == text.sha256
    assert [s["passages"] for s in stored["summary"]] == [2, 2]
    # What is already there is not run again: the stored scores come back unchanged.
    stored["scores"][0][stored["columns"].index("kl")] = 123.0
    stored["environment"]["commit"] = "earlier"
    out.write_text(json.dumps(stored))
    second = run(loaded, text, [RAW, COARSE], **options, step=lambda: again.append(1))
    assert second.scores[0].kl == 123.0
    assert len(again) == len(calls)
    assert second.environment["commit"] == "earlier", "a whole run keeps its own commit"
    # Half a run of another commit is measured anew.
    stored["scores"] = stored["scores"][:2]
    out.write_text(json.dumps(stored))
    third = Report.start(loaded, text, 0, [RAW, COARSE], 96, 2, OPTIONS)
    assert third.resume(out) == set()


def test_workers_measure_what_one_process_does(loaded, tmp_path):
    out, calls = tmp_path / "report.json", []
    given = {"ctx": 96, "count": 2, "options": OPTIONS}
    one = run(loaded, load_text("manual"), [RAW, COARSE], **given)
    two = run(
        loaded, load_text("manual"), [RAW, COARSE], **given, workers=2, out=out,
        step=lambda: calls.append(1),
    )  # fmt: skip
    assert [(s.setting, s.passage) for s in two.scores] == [
        (s.setting, s.passage) for s in one.scores
    ]
    for mine, theirs in zip(one.scores, two.scores, strict=True):
        assert theirs.kl == pytest.approx(mine.kl, rel=1e-4, abs=1e-4)
        assert theirs.sizes == mine.sizes
    assert len(calls) >= steps(96, 2, 2, OPTIONS)
    assert len(json.loads(out.read_text())["scores"]) == 4


def test_another_run_is_not_resumed(loaded, tmp_path):
    out = tmp_path / "report.json"
    text = load_text("manual")
    run(loaded, text, [RAW], ctx=96, count=1, options=OPTIONS, out=out)
    other = Report.start(loaded, text, 0, [COARSE], 96, 1, OPTIONS)
    assert other.resume(out) == set()
    assert other.scores == []


def test_settings_are_canonical():
    assert Setting.parse("scalar:b=4/e8:q=3") == Setting("scalar", "e8:q=3")
    assert str(Setting.parse("e8:q=10")) == "e8"
