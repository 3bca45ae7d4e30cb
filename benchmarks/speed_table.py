"""The speed result as Markdown, and its targets as verdicts."""

from __future__ import annotations

from typing import Any

ENCODE_SHARE, DECODE_SHARE = 0.15, 0.25
TARGET_CODECS, TARGET_DIMS = ("scalar", "e8"), (64, 128)
# How many times the reference, by what is timed.
TIMES_REFERENCE = {
    "scalar": {"encode": 50, "decode": 50},
    "e8": {"encode": 50, "decode": 50},
    "trellis": {"encode": 20},
}
DEFINITION = (
    "GB/s are 1e9 bytes of fp32 vectors per second, for copy, encode and decode alike; "
    "medians, with the 20th and 80th percentile in brackets. The copy is `np.copyto` of the "
    "same vectors by one thread, timed in turn with the codec in the same process."
)
CLOCKS = {
    "wall": "Wall clock, {threads} threads per backend.",
    "cpu": "CPU time of this process and one thread per backend: the machine was shared, and wall "
    "clock would have measured the others. Two cores do up to twice as much against the same copy.",
}


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with what was measured; empty where the rows do not cover it."""
    found = []
    for row in _large(rows, "numba"):
        if row["d"] not in TARGET_DIMS:
            continue
        if row["codec"] in TARGET_CODECS:
            for what, share in (("encode", ENCODE_SHARE), ("decode", DECODE_SHARE)):
                got = row[what]["median"] / row["copy"]["median"]
                found.append(_verdict(row, f"{what} / copy", share, got))
        for slow in _large(rows, "ref"):
            if (slow["codec"], slow["d"]) == (row["codec"], row["d"]):
                for what, times in TIMES_REFERENCE.get(row["codec"], {}).items():
                    got = row[what]["median"] / slow[what]["median"]
                    found.append(_verdict(row, f"{what} / reference", times, got))
    return found


def markdown(result: dict[str, Any]) -> str:
    """The whole table as a document."""
    where, loads = result["machine"], result["machine"]
    lines = [
        "# Speed on a CPU",
        "",
        f"{where['cpu']}, {where['cores']} cores, {where['system']}; {result['date']}, commit "
        f"{result['commit']}; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
        f"Load average before and after: {loads['load_before'][0]:.1f}, "
        f"{loads['load_after'][0]:.1f} (above the number of cores, other work took part of it).",
        "",
        DEFINITION,
        "",
        CLOCKS[result["clock"]].format(**result),
        "",
        *_table(
            ("backend", "codec", "shape", "D", "copy", "encode", "of copy", "decode", "of copy"),
            [_cells(row) for row in result["rows"]],
        ),
        "",
        "## Targets",
        "",
        *_table(
            ("codec", "D", "what", "target", "measured", ""),
            [
                (
                    f"`{v['codec']}`",
                    str(v["d"]),
                    v["what"],
                    f"{v['target']:g}",
                    f"{v['measured']:.3g}",
                    "met" if v["met"] else "**missed**",
                )
                for v in result["targets"]
            ],
        ),
        "",
    ]
    return "\n".join(lines)


def _large(rows: list[dict[str, Any]], backend: str) -> list[dict[str, Any]]:
    return [r for r in rows if r["backend"] == backend and r["shape"] == "large"]


def _verdict(row: dict[str, Any], what: str, target: float, got: float) -> dict[str, Any]:
    return {
        "codec": row["codec"],
        "d": row["d"],
        "what": what,
        "target": target,
        "measured": got,
        "met": got >= target,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    copy = row["copy"]["median"]
    shape = f"{row['shape']}, {row['pages']} pages"
    cells = [row["backend"], f"`{row['codec']}`", shape, str(row["d"]), f"{copy:.2f}"]
    for what in ("encode", "decode"):
        r = row[what]
        cells.append(f"{r['median']:.3g} [{r['p20']:.3g}, {r['p80']:.3g}]")
        cells.append(f"{r['median'] / copy:.1%}")
    return tuple(cells)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    rule = ("---",) * 3 + ("---:",) * (len(header) - 3)
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]
