"""``kakeya codecs``: the registry, and what each codec costs."""

from __future__ import annotations

from itertools import product
from typing import Any

from kakeya_fast.cli.screen import Json, emit, show
from kakeya_fast.cli.tablebytes import TABLED_PAGE, table_nbytes
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec, registry, resolved, spelled, table_kind

HEAD_DIMS = (64, 128)
PAGE_TOKENS = 32
# Of codecs with a table: what a fit would choose is the data's business, so half of all ranks.
RANK_SHARE = 2


def codecs(as_json: Json = False) -> None:
    """List codecs: parameters, ranges, status and true bits per element of a page."""
    rows = [_row(name, entry) for name, entry in registry()["codecs"].items()]
    if as_json:
        emit(
            {
                "format": registry()["format"],
                "page_tokens": PAGE_TOKENS,
                "tabled": {"page_tokens": TABLED_PAGE, "rank": f"D/{RANK_SHARE}"},
                "codecs": rows,
            }
        )
        return
    show(
        f"Codecs, format {registry()['format']}; true bits per element, pages of {PAGE_TOKENS}; "
        f"with a table, pages of {TABLED_PAGE} at rank D/{RANK_SHARE}, the table included",
        [
            "codec",
            "status",
            "parameters",
            *[f"default\nD={d}" for d in HEAD_DIMS],
            "least … most\nD=64",
        ],
        [
            (
                r["id"],
                r["status"],
                "; ".join(_range(n, p) for n, p in r["params"].items()) or "none",
                *[f"{r['bits']['default'][str(d)]:.2f}" for d in HEAD_DIMS],
                " … ".join(f"{r['bits'][end][str(HEAD_DIMS[0])]:.2f}" for end in ("least", "most")),
            )
            for r in rows
        ],
    )


def _row(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    corners = [
        dict(zip(_ends(entry), values, strict=True)) for values in product(*_ends(entry).values())
    ]
    strings = [_string(name, c) for c in corners]
    cost = {s: _bits(s, HEAD_DIMS[0]) for s in strings}
    wanted = {"default": name, "least": min(cost, key=cost.__getitem__)}
    wanted["most"] = max(cost, key=cost.__getitem__)
    return {
        "id": name,
        "number": entry["number"],
        "status": entry["status"],
        "since": entry["since"],
        "params": entry.get("params", {}),
        "bits": {
            which: {
                "codec": str(parse_codec(string)),
                **{str(d): _bits(string, d) for d in HEAD_DIMS},
            }
            for which, string in wanted.items()
        },
    }


def _ends(entry: dict[str, Any]) -> dict[str, list[Any]]:
    """Both ends of every range, all choices of a choice; the seed and what steers a fit are out."""
    return {
        n: p.get("choices") or [p["min"], p["max"]]
        for n, p in entry.get("params", {}).items()
        if n not in ("seed", "rank", "out") and not p.get("fit")
    }


def _bits(string: str, head_dim: int) -> float:
    codec = parse_codec(string)
    if table_kind(codec) != "skeleton":
        return page_layout(codec, head_dim, PAGE_TOKENS).bits_per_element
    codec = resolved(codec, rank=head_dim // RANK_SHARE)
    layout = page_layout(codec, head_dim, TABLED_PAGE)
    return 8 * (layout.nbytes + table_nbytes(layout)) / (TABLED_PAGE * head_dim)


def _string(name: str, values: dict[str, Any]) -> str:
    rules = registry()["codecs"][name].get("params", {})
    tail = ",".join(f"{n}={spelled(rules[n], v)}" for n, v in values.items())
    return f"{name}:{tail}" if tail else name


def _range(name: str, rule: dict[str, Any]) -> str:
    if "choices" in rule:
        return f"{name}={'|'.join(rule['choices'])} ({rule['default']})"
    low, high, usual = (spelled(rule, rule[which]) for which in ("min", "max", "default"))
    return f"{name}={low}..{high} ({usual})"
