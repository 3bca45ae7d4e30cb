"""``kakeya inspect``: planes of a page, what page bytes hold, bytes of a sequence or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kakeya_fast.cli.screen import Json, emit, show
from kakeya_fast.cli.tablebytes import table_nbytes, usual_page
from kakeya_ref.errors import UsageError
from kakeya_ref.layout import page_layout, sequence_nbytes
from kakeya_ref.types import PageLayout


def inspect(
    codec: Annotated[str, typer.Argument(help="Codec string of keys, e.g. e8:q=10.")] = "scalar",
    v: Annotated[str | None, typer.Option("--v", help="Codec of values; default as keys.")] = None,
    head_dim: Annotated[int, typer.Option(help="Numbers of a vector, D.")] = 64,
    page_tokens: Annotated[
        int | None, typer.Option(help="Tokens of a page, P; default 32, with tables 512.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Also: bytes of a sequence this long.")] = None,
    sinks: Annotated[int, typer.Option(help="First tokens kept exact.")] = 4,
    exact_bits: Annotated[int, typer.Option(help="Bits of an exact element.")] = 16,
    hex: Annotated[str | None, typer.Option("--hex", help="Read page bodies from hex digits.")] = (
        None
    ),
    file: Annotated[Path | None, typer.Option(help="Read page bodies from a file.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Bytes by part for this model; needs --ctx.")
    ] = None,
    ctx: Annotated[int, typer.Option(help="Context length for --model.")] = 4096,
    as_json: Json = False,
) -> None:
    """Show where every byte of a page, a sequence or a model's cache goes."""
    size = page_tokens or usual_page(codec, v or codec)
    key, value = (page_layout(text, head_dim, size) for text in (codec, v or codec))
    result: dict[str, Any]
    if model is not None:
        from kakeya_fast.cli.modelbytes import model_bytes

        result = model_bytes(model, str(key.codec), str(value.codec), size, sinks, ctx)
        if not as_json:
            _show_model(result)
    elif hex is not None or file is not None:
        from kakeya_fast.cli.pagebytes import describe

        if table_nbytes(key):
            raise UsageError(
                "codec.table.given", f"pages of {key.codec} mean nothing without tables"
            )
        result = describe(_body(hex, file), key)
        if not as_json:
            _show_contents(result, key)
    else:
        result = {"layout": _planes(key)}
        if value != key:
            result["v_layout"] = _planes(value)
        if tokens is not None:
            result["sequence"] = _sequence(key, value, tokens, sinks, exact_bits)
        if not as_json:
            _show_layouts(result)
    if as_json:
        emit(result)


def _body(digits: str | None, file: Path | None) -> bytes:
    if file is None:
        try:
            return bytes.fromhex(digits or "")
        except ValueError as error:
            raise UsageError("cli.inspect.input", f"--hex: {error}") from error
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError("cli.inspect.input", f"{file}: {error.strerror}") from error


def _planes(layout: PageLayout) -> dict[str, Any]:
    return {
        "codec": str(layout.codec),
        "head_dim": layout.head_dim,
        "tokens": layout.tokens,
        "nbytes": layout.nbytes,
        "bits_per_element": layout.bits_per_element,
        "planes": [
            {
                "name": p.name,
                "offset": p.offset,
                "nbytes": p.nbytes,
                "width": p.width,
                "rows": p.rows,
                "row": p.row,
                "shift": p.shift,
            }
            for p in layout.planes
        ],
    }


def _sequence(k: PageLayout, v: PageLayout, n: int, sinks: int, exact_bits: int) -> dict[str, Any]:
    if n < 1 or sinks < 0 or exact_bits not in (16, 32):
        raise UsageError(
            "cli.inspect.input", "want --tokens 1 or more, --sinks 0 or more, --exact-bits 16 or 32"
        )
    pages = max(0, n - sinks) // k.tokens
    tables = pages * (table_nbytes(k) + table_nbytes(v))
    total = sequence_nbytes(k, v, n, sinks, exact_bits) + tables
    return {
        "tokens": n,
        "sinks": sinks,
        "exact_bits": exact_bits,
        "pages": pages,
        "page_bytes": pages * (k.nbytes + v.nbytes),
        "table_bytes": tables,
        "exact_bytes": total - tables - pages * (k.nbytes + v.nbytes),
        "true_bytes": total,
        "bits_per_element": 8 * total / (n * (k.head_dim + v.head_dim)),
        "ratio_vs_bf16": 2 * n * (k.head_dim + v.head_dim) / total,
    }


def _show_layouts(result: dict[str, Any]) -> None:
    for name in ("layout", "v_layout"):
        if name not in result:
            continue
        x = result[name]
        show(
            f"{x['codec']}, D={x['head_dim']}, {x['tokens']} tokens: {x['nbytes']} bytes, "
            f"{x['bits_per_element']:.4f} bits per element",
            ["plane", "offset", "bytes", "bits of a field", "rows", "fields of a row", "from bit"],
            [
                tuple(
                    str(p[c]) for c in ("name", "offset", "nbytes", "width", "rows", "row", "shift")
                )
                for p in x["planes"]
            ],
        )
    if "sequence" in result:
        s = result["sequence"]
        show(
            f"{s['tokens']} tokens of one layer and KV head, keys and values",
            ["part", "bytes"],
            [
                (f"{s['pages']} pages", f"{s['page_bytes']:,}"),
                *([("tables", f"{s['table_bytes']:,}")] if s["table_bytes"] else []),
                (f"sinks and unfilled page, {s['exact_bits']} bits", f"{s['exact_bytes']:,}"),
                ("all", f"{s['true_bytes']:,}"),
                ("bits per element", f"{s['bits_per_element']:.3f}"),
                ("against bf16", f"{s['ratio_vs_bf16']:.2f}x"),
            ],
        )


def _show_contents(result: dict[str, Any], layout: PageLayout) -> None:
    show(
        f"{result['pages']} page bodies of {layout}, {layout.nbytes} bytes each",
        ["what", "count", "least", "most", "mean", "note"],
        [
            (
                r["what"],
                f"{r['count']:,}",
                f"{r['least']:.6g}",
                f"{r['most']:.6g}",
                f"{r['mean']:.6g}",
                r["note"],
            )
            for r in result["contents"]
        ],
    )


def _show_model(result: dict[str, Any]) -> None:
    show(
        f"{result['model']} at {result['ctx']} tokens, keys {result['k']}, values {result['v']}",
        ["part", "layers", "MB", "bf16 MB", "ratio"],
        [
            (
                r["part"],
                str(r["layers"]),
                f"{r['bytes'] / 1e6:.3f}",
                f"{r['bf16_bytes'] / 1e6:.3f}",
                f"{r['bf16_bytes'] / r['bytes']:.2f}x" if r["bf16_bytes"] else "–",
            )
            for r in result["parts"]
        ],
    )
