"""A page depends on its own vectors and on nothing else: neighbours, order, history, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kakeya_conformance.compare import same_bytes, want
from kakeya_conformance.model import check
from kakeya_conformance.tables import needed
from kakeya_conformance.trial import Trial

ROUNDS = 4


@check(rules=["encode.batch.independent"], level="bits", needs={"encode"})
def check_encode__pages_ignore_their_neighbours(t: Trial) -> None:
    """A page alone, in a batch, and in the batch backwards has the same bytes."""
    x = np.concatenate([t.some(n=2), t.some("outliers", 1), t.some("sparse", 1)])
    together = t.encode(x)
    same_bytes(t.encode(np.ascontiguousarray(x[::-1])), together[::-1], t.layout)
    for i in range(len(x)):
        same_bytes(t.encode(x[i : i + 1]), together[i : i + 1], t.layout)


@check(rules=["decode.bytes.only"], level="bits", needs={"decode"})
def check_decode__pages_ignore_their_neighbours(t: Trial) -> None:
    """A page alone, in a batch, and in the batch backwards decodes to the same vectors."""
    x = np.concatenate([t.some(n=2), t.some("outliers", 1), t.some("sparse", 1)])
    body = t.reference_pages(x)
    together = t.decode(body)
    t.agree_vectors(t.decode(np.ascontiguousarray(body[::-1])), together[::-1])
    for i in range(len(x)):
        t.agree_vectors(t.decode(body[i : i + 1]), together[i : i + 1])


@check(rules=["encode.input.strided"], level="bits", needs={"encode"})
def check_encode__reads_any_strides(t: Trial) -> None:
    """Transposed, reversed, padded, broadcast and Fortran-ordered vectors are read right."""
    x = t.some(n=3)
    n, p, d = x.shape
    wide = np.full((n, p, d + 5), np.nan, dtype=np.float32)
    wide[..., 2:-3] = x
    views = [
        np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1),
        np.asfortranarray(x),
        wide[..., 2:-3],
        np.repeat(x, 2, axis=1)[:, ::2],
        np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    ]
    plain = t.encode(x)
    for view in views:
        same_bytes(t.encode(view), plain, t.layout)
    one = np.broadcast_to(x[:1], x.shape)
    same_bytes(t.encode(one), np.repeat(plain[:1], n, axis=0), t.layout)


@check(rules=["encode.output.deterministic"], level="bits", needs={"encode"})
def check_encode__repeats(t: Trial) -> None:
    """Encoding the same vectors again gives the same bytes, and results do not share memory."""
    x = t.some("outliers")
    first = t.encode(x)
    kept = first.copy()
    for _ in range(ROUNDS):
        same_bytes(t.encode(x), kept, t.layout)
    t.encode(t.some("sparse"))
    same_bytes(first, kept, t.layout)


@check(rules=["decode.bytes.only"], level="bits", needs={"decode"})
def check_decode__has_no_memory(t: Trial) -> None:
    """Decoding is not changed by decoding, or encoding, anything else in between."""
    body = t.reference_pages(t.some())
    other = t.reference_pages(t.some("outliers"))
    first = t.decode(body)
    kept = first.copy()
    t.agree_decode(other)
    if "encode" in t.backend.supports(t.layout).features:
        t.encode(t.some("sparse"))
        t.agree_decode(other)
    t.agree_vectors(t.decode(body), kept)
    t.agree_vectors(first, kept)


@check(rules=["decode.bytes.only"], level="bits", needs={"encode", "decode"})
def check_decode__forgets_what_was_encoded(t: Trial) -> None:
    """After encoding one batch, decoding the bytes of another gives the other."""
    a, b = t.some(), t.some("outliers")
    pages_a = t.encode(a)
    t.encode(b)
    t.agree_decode(pages_a)
    zeroed = np.zeros_like(pages_a)
    t.agree_decode(zeroed)
    if not needed(t.layout):
        want(not t.decode(zeroed).any(), f"{t.layout}: zero bytes did not decode to zero")


@check(
    rules=["encode.output.deterministic", "decode.bytes.only"],
    level="bits",
    needs={"encode", "decode"},
)
def check_contract__calls_may_run_together(t: Trial) -> None:
    """Two threads that encode and decode at once get what each gets alone."""
    inputs = [t.some(), t.some("outliers")]
    wanted = [t.encode(x).copy() for x in inputs]
    read = [t.decode(body).copy() for body in wanted]

    def work(i: int) -> None:
        for _ in range(ROUNDS):
            same_bytes(t.encode(inputs[i]), wanted[i], t.layout)
            t.agree_vectors(t.decode(wanted[i]), read[i])

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(work, i) for i in range(2)]:
            job.result()
