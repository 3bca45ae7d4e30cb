"""Encode and decode on a GPU against a device-to-device copy of the same vectors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.device import tables as gpu_tables
from benchmarks.device.plan import DTYPE, HEADS, TOKENS, Row
from benchmarks.device.timing import Flush, race
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.layout import page_layout
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import PageLayout

DTYPES = {"bfloat16": torch.bfloat16}
JUDGED = 8  # pages of a row that are compared with the reference
MEMORY = 0.6  # of what is free, at most, for the tensors of a row


class TooLarge(Exception):
    """A row does not fit into the memory of the device."""


class Differs(Exception):
    """Other bytes or numbers than the reference's: there is nothing worth timing."""


def measure(backend: Any, row: Row, flush: Flush, seconds: float) -> dict[str, Any]:
    """One row: judged first, then timed.

    Returns
    -------
    dict
        Seconds of ``copy``, ``encode`` and ``decode`` (p20, median, p80, samples), the bytes that
        each has to move, and shares of the copy.

    Raises
    ------
    TooLarge, Differs
    """
    device, dtype = backend.device, DTYPES[DTYPE]
    layout = page_layout(row.codec, row.head_dim, TOKENS)
    pages = row.shape.pages
    free, _ = torch.cuda.mem_get_info(device)
    if 3 * row.nbytes + pages * layout.nbytes > MEMORY * free:
        raise TooLarge(f"{3 * row.nbytes >> 20} MiB of vectors, {free >> 20} MiB free")
    generator = torch.Generator(device).manual_seed(row.head_dim)
    x = torch.empty(pages, TOKENS, row.head_dim, dtype=dtype, device=device)
    x.normal_(generator=generator)
    # Poisoned: a byte that is not written must show.
    y, pool = torch.full_like(x, float("nan")), x.new_full((pages, layout.nbytes), 0xA5).byte()
    slots = torch.randperm(pages, device=device, generator=generator)
    status = backend.new_status()
    known = gpu_tables.of_pages(gpu_tables.beside(layout), np.arange(pages) % HEADS)
    backend.prepare(layout, dtype, tables=known)

    def encode() -> None:
        backend.append(x, layout, pool, slots, status=status, tables=known)

    def decode() -> None:
        backend.read(pool, layout, slots, out=y, status=status, tables=known)

    encode()
    decode()
    judge(x, pool, slots, y, layout, known)
    z = torch.empty_like(x)
    spreads = race(
        {"copy": lambda: z.copy_(x), "encode": encode, "decode": decode},
        flush,
        min_seconds=seconds,
        min_samples=10,
    )
    backend.raise_if_bad(status, layout, "encode")
    moved = {"copy": 2 * x.nbytes, "encode": x.nbytes + pool.nbytes}
    moved["decode"] = moved["encode"]
    return {
        "codec": str(layout.codec),
        "d": row.head_dim,
        "shape": row.shape.name,
        "pages": pages,
        "vector_bytes": x.nbytes,
        "packed_bytes": pool.nbytes,
        **{name: asdict(s) | {"moved": moved[name]} for name, s in spreads.items()},
        **{
            f"{name}_of_copy": spreads["copy"].median / spreads[name].median
            for name in ("encode", "decode")
        },
    }


def judge(
    x: Tensor, pool: Tensor, slots: Tensor, y: Tensor, layout: PageLayout, known: Skeleton | None
) -> None:
    """Stop unless some of the pages are the reference's, byte for byte and bit for bit.

    Raises
    ------
    Differs
    """
    some = torch.linspace(0, len(x) - 1, min(JUDGED, len(x))).long().unique().to(x.device)
    reference, beside = ReferenceBackend(), gpu_tables.of_pages(known, some.cpu().numpy() % HEADS)
    given = x[some].float().cpu().numpy()
    want = torch.from_numpy(reference.encode(given, layout, tables=beside))
    back = torch.from_numpy(reference.decode(want.numpy(), layout, tables=beside)).to(y.dtype)
    if not torch.equal(pool[slots[some]].cpu(), want):
        raise Differs(f"{layout}: other bytes than the reference")
    if not torch.equal(y[some].cpu().view(torch.int16), back.view(torch.int16)):
        raise Differs(f"{layout}: other numbers than the reference")
    if bool(y.isnan().any()):
        raise Differs(f"{layout}: numbers that were never written")
