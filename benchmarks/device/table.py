"""The GPU result as Markdown, and its targets as verdicts."""

from __future__ import annotations

from typing import Any

from benchmarks.device.plan import (
    CODECS,
    DIMS,
    DTYPE,
    PREFILL,
    SHAPES,
    STEP,
    TOKENS,
    WALKS,
    flops,
)

TARGETS = {"encode": 0.25, "decode": 0.5}
DEFINITION = (
    f"Vectors are {DTYPE}, pages have {TOKENS} tokens, 8 KV heads. GB/s are 1e9 bytes of these "
    "vectors per second, for copy, encode and decode alike: a share of the copy is a ratio of "
    "times. Medians of CUDA events with the 20th and 80th percentile in brackets; the L2 cache is "
    "overwritten before each sample; copy, encode and decode take turns. "
    "Encode is `append` into scattered slots of a pool, decode is `read` from it, neither waiting "
    "for the device. Targets are for codecs that neither walk a trellis nor multiply by a table. "
    "Each row was compared with the reference before it was timed."
)
STEP_TEXT = (
    f"All sequences of a batch of {STEP['batch']} fill a page in the same step: K and V of "
    f"{STEP['layers']} layers and {STEP['heads']} KV heads, head dim {STEP['head_dim']}, "
    "{pages} pages. This happens once in {tokens} tokens. *Together*: one launch at the end of "
    "the step, which is early enough, since no query reads its own page from bytes; *gathered*: "
    "the vectors of each layer lie in a tensor of their own, and a copy puts them together first; "
    "*by layer*: {launches} launches, one after another; *aside*: the same on {sides} streams side "
    "by side. All four are device times of replaying a CUDA graph; † marks the launch of as many "
    "such pages in the table above, without a graph. `query` is for keys alone: half of launches "
    "and pages. *Eager* is the wall time of the {launches} launches without a graph. This is what "
    "an engine with a pool of its own can have; the cache for transformers packs by layer and "
    "stream, with calls that wait for the device to name what they refuse."
)
STEP_TARGET = 100e-6


def verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """All targets: shares of a copy at the largest shape, the decode step, `trellis` in a prefill.

    Returns
    -------
    list of dict
        ``measured`` is none, and so is ``met``, where nobody measured it on this device.
    """
    rows = {(r["codec"], r["d"]): r for r in result["rows"] if r["shape"] == SHAPES[-1].name}
    found = [
        _verdict(codec, what, rows.get((codec, d), {}).get(f"{what}_of_copy"), target, d=d)
        for codec in CODECS
        if codec.partition(":")[0] not in WALKS
        for d in DIMS
        for what, target in TARGETS.items()
    ]
    steps = {step["codec"]: step for step in result["step"]}
    for codec in CODECS:
        taken = _together(result, steps[codec]) if codec in steps else None
        found.append(_verdict(codec, "step", taken and taken["median"], STEP_TARGET))
    prefills = {one["tokens"]: one for one in result["prefill"]}
    for tokens in PREFILL["tokens"]:
        one = prefills.get(tokens)
        share = one and one["encode"][JUDGED]["median"] / one["layer"]["median"]
        found.append(_verdict("trellis", "prefill", share, PREFILL_TARGET, tokens=tokens))
    return found


def _verdict(
    codec: str, what: str, measured: float | None, target: float, **more: int
) -> dict[str, Any]:
    met = None
    if measured is not None:  # a share of at least; a time or a share under
        met = measured >= target if what in TARGETS else measured < target
    return {"codec": codec, "what": what, **more} | {
        "target": target,
        "measured": measured,
        "met": met,
    }


def counted(targets: list[dict[str, Any]]) -> str:
    """How many targets were met, missed and not measured, in words."""
    count = {met: sum(t["met"] is met for t in targets) for met in (True, False, None)}
    said = [f"{count[True]} of {len(targets)} targets met"]
    said += [f"{count[False]} missed"] if count[False] else []
    said += [f"{count[None]} not measured"] if count[None] else []
    return ", ".join(said)


def markdown(result: dict[str, Any]) -> str:
    """The whole result as a document."""
    device, runs = result["device"], result["runs"]
    lines = [
        f"# Speed on {device['name']}",
        "",
        f"{device['processors']} multiprocessors, {device['memory'] / 2**30:.0f} GiB, L2 "
        f"{device['l2'] / 2**20:.0f} MiB. "
        f"**{counted(verdicts(result))}.**",
        "",
        *(f"* {_run(number, run, runs[-1])}" for number, run in enumerate(runs, 1)),
        "",
        DEFINITION,
        "",
    ]
    several = len(runs) > 1
    header = (*HEADER, "run") if several else HEADER
    cells = [_cells(row) + ((str(row["run"] + 1),) if several else ()) for row in result["rows"]]
    lines += [*_table(header, cells), "", *_absent(result)]
    lines += ["## Targets at the largest shape", ""]
    lines += [*_table(("codec", "", *(f"D = {d}" for d in DIMS), "target"), _targets(result)), ""]
    launches = 2 * STEP["layers"]
    pages = launches * STEP["batch"] * STEP["heads"]
    text = STEP_TEXT.format(launches=launches, pages=pages, tokens=TOKENS, sides=STEP["sides"])
    lines += ["## One decode step", "", text, "", *_table(STEPS, _steps(result)), ""]
    lines += ["## Encoding beside prefill", "", PREFILL_TEXT + _implied(result), ""]
    lines += [*_table(PREFILLS, _prefills(result)), ""]
    checks = [text for run in runs if _same(run, runs[-1]) for text in run["checks"]]
    left = [text for text in runs[-1]["not_run"] if not text.endswith(OUT_OF_TIME)]
    lines += ["## Checks of the newest run's kernels", ""]
    lines += [*(f"* {text}" for text in checks), *(f"* not made: {x}" for x in _unmade(checks)), ""]
    if left:
        lines += ["## Left out", "", *(f"* {text}" for text in left), ""]
    return "\n".join(lines)


def _same(run: dict[str, Any], newest: dict[str, Any]) -> bool:
    return run["kernels"] == newest["kernels"]


def _run(number: int, run: dict[str, Any], newest: dict[str, Any]) -> str:
    """A run in words."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    other = "" if _same(run, newest) else "; other kernels than the newest run's"
    return (
        f"run {number}: {run['date']}, commit {run['commit']}, {run['seconds']:.0f} s; "
        f"driver {run['driver']}, {versions}{other}"
    )


def _absent(result: dict[str, Any]) -> list[str]:
    """Which rates of the plan nobody measured."""
    there = {(row["codec"], row["d"], row["shape"]) for row in result["rows"]}
    said = []
    for shape in reversed(SHAPES):
        gone = {c: [d for d in DIMS if (c, d, shape.name) not in there] for c in CODECS}
        if not any(name == shape.name for _, _, name in there):
            said.append(f"* {shape.name}: all codecs")
            continue
        words = [
            f"`{c}`" + ("" if len(ds) == len(DIMS) else f" at D = {', '.join(map(str, ds))}")
            for c, ds in gone.items()
            if ds
        ]
        said += [f"* {shape.name}: {', '.join(words)}"] if words else []
    return ["What was not measured on this device:", "", *said, ""] if said else []


CHECKS = ("timed kernels that use local memory", "self-test", "conformance")


def _unmade(checks: list[str]) -> list[str]:
    wanted = [*CHECKS, *(f"compute-sanitizer {tool}" for tool in ("memcheck", "racecheck"))]
    made = [text.removeprefix("**failed**: ") for text in checks]
    return [name for name in wanted if not any(text.startswith(name) for text in made)]


STEPS = (
    "codec",
    "target 100 us",
    "together, us",
    "gathered, us",
    "aside, us",
    "by layer, us",
    "eager, us",
)
PREFILLS = ("tokens", "K / V", "a layer, ms", "its K and V, ms", "share", "target")
PREFILL_TARGET = 0.03
PREFILL_TEXT = (
    "The forward of one decoder layer of an 8B model over a prompt, in bf16 with random weights "
    "and torch's own operations, and the append of the keys and values of that layer, one launch "
    f"each. All {STEP['layers']} layers are alike, so the share is that of the model but for "
    f"embedding and output head. Target for `trellis`: {PREFILL_TARGET:.0%}."
)
JUDGED = "trellis/trellis"
OUT_OF_TIME = "no time left"
HEADER = ("codec", "shape", "D", "copy GB/s", "encode GB/s", "of copy", "decode GB/s", "of copy")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def rate(name: str, which: str) -> str:
        return _short(row["vector_bytes"] / row[name][which] / 1e9)

    cells = [f"`{row['codec']}`", row["shape"], str(row["d"]), rate("copy", "median")]
    for name in ("encode", "decode"):
        cells.append(f"{rate(name, 'median')} [{rate(name, 'p80')}, {rate(name, 'p20')}]")
        cells.append(f"{row[f'{name}_of_copy']:.0%}")
    return tuple(cells)


def _targets(result: dict[str, Any]) -> list[tuple[str, ...]]:
    found = {(v["codec"], v["what"], v.get("d")): v for v in verdicts(result)}
    return [
        (
            f"`{codec}`",
            what,
            *(_said(found[codec, what, d], "{:.0%} ") for d in DIMS),
            f"{target:.0%}",
        )
        for codec in CODECS
        if (codec, "encode", DIMS[0]) in found
        for what, target in TARGETS.items()
    ]


def _said(verdict: dict[str, Any], number: str = "") -> str:
    if verdict["met"] is None:
        return "not measured"
    return number.format(verdict["measured"]) + ("met" if verdict["met"] else "**missed**")


def _steps(result: dict[str, Any]) -> list[tuple[str, ...]]:
    steps = {step["codec"]: step for step in result["step"]}
    rows = []
    for verdict in (v for v in verdicts(result) if v["what"] == "step"):
        step = steps.get(verdict["codec"], {})
        together = _together(result, step) if step else None
        mark = "" if "together" in step or not together else "†"
        cells = [_spread(together, 1e6) + mark if together else ""]
        names = ("gathered", "aside", "by_layer", "eager")
        cells += [_spread(step[name], 1e6) if name in step else "" for name in names]
        rows.append((f"`{verdict['codec']}`", _said(verdict) + mark, *cells))
    return rows


def _prefills(result: dict[str, Any]) -> list[tuple[str, ...]]:
    judged = {v["tokens"]: v for v in verdicts(result) if v["what"] == "prefill"}
    known = {found["tokens"]: found for found in result["prefill"]}
    rows = []
    for tokens in PREFILL["tokens"]:
        for pair in map("/".join, PREFILL["codecs"]):
            cells = ["", "", ""]
            if tokens in known:
                layer, times = known[tokens]["layer"], known[tokens]["encode"][pair]
                share = times["median"] / layer["median"]
                cells = [_spread(layer, 1e3), _spread(times, 1e3), f"{share:.1%}"]
            met = _said(judged[tokens]) if pair == JUDGED else ""
            rows.append((str(tokens), f"`{pair}`", *cells, met))
    return rows


def _implied(result: dict[str, Any]) -> str:
    """What the rate of `trellis` says of the target, where the forward was not measured."""
    tokens, d = PREFILL["tokens"][-1], STEP["head_dim"]
    key = ("trellis", d, SHAPES[-1].name)
    row = next((r for r in result["rows"] if (r["codec"], r["d"], r["shape"]) == key), None)
    if row is None or any(one["tokens"] == tokens for one in result["prefill"]):
        return ""
    takes = 2 * row["encode"]["median"] * tokens * STEP["heads"] / (row["pages"] * TOKENS)
    needs = takes / PREFILL_TARGET
    return (
        f" The forward was not measured here. At the rate of the table above `trellis` takes "
        f"{takes * 1e3:.1f} ms for the keys and values of {tokens} tokens in a layer; within the "
        f"target it would only be if the forward of the layer took {needs * 1e3:.0f} ms, "
        f"{flops(tokens) / needs / 1e12:.0f} TFLOP/s."
    )


def _spread(s: dict[str, float], times: float) -> str:
    median, *sides = (_short(s[name] * times) for name in ("median", "p20", "p80"))
    return f"{median} [{', '.join(sides)}]"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _together(result: dict[str, Any], step: dict[str, Any]) -> dict[str, float] | None:
    """Times of one launch for all layers; else of the row that is as many pages."""
    if "together" in step:
        return step["together"]
    same = (step["codec"], STEP["head_dim"], step["pages"])
    found = (row for row in result["rows"] if (row["codec"], row["d"], row["pages"]) == same)
    return next((row["encode"] for row in found), None)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    rule = ("---",) * 2 + ("---:",) * (len(header) - 2)
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]
