"""Settings say all that differs between the caches of a run, in one canonical string."""

import pytest

from kakeya_fast.quality.setting import Setting, parse_ranges, ranges
from kakeya_ref.errors import UsageError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("scalar:b=4/e8:q=10", "scalar/e8"),
        ("turbo:b=3@page=512", "turbo@page=512"),
        ("skeleton@metric=workshop,residual=256", "skeleton@residual=256,metric=workshop"),
        ("raw@exact=1+0,protocol=snapshot", "raw@exact=0..1,protocol=snapshot"),
        ("raw@protocol=inforward", "raw"),
        ("raw@sliding=library", "raw"),
        ("e8@sliding=pack,plan=p.toml", "e8@plan=p.toml,sliding=pack"),
        ("raw@exact=-1+0+5+6+-2", "raw@exact=-2..-1+0+5..6"),
    ],
)
def test_one_string_for_one_setting(text, canonical):
    found = Setting.parse(text)
    assert str(found) == canonical
    assert Setting.parse(canonical) == found


@pytest.mark.parametrize(
    "text",
    [
        "turbo@pages=1",
        "turbo@page",
        "turbo@page=x",
        "turbo@page=1,page=2",
        "turbo@exact=a",
        "turbo@protocol=live",
        "scalar@sliding=yes",
        "scalar@sliding=pack,protocol=snapshot",
    ],
)
def test_options_that_do_not_exist_are_refused(text):
    with pytest.raises(UsageError, match=r"quality\.setting\.known"):
        Setting.parse(text)


def test_ranges_read_back():
    for indices in ((), (3,), (0, 1, 2), (-2, -1, 0, 1), (0, 2, 3, 9)):
        assert parse_ranges(ranges(indices)) == indices


def test_pages_of_tabled_codecs_are_long_unless_said_otherwise():
    assert Setting.parse("turbo").page_tokens(32) == 512
    assert Setting.parse("scalar/skeleton").page_tokens(32) == 512
    assert Setting.parse("scalar").page_tokens(32) == 32
    assert Setting.parse("scalar@page=64").page_tokens(32) == 64
