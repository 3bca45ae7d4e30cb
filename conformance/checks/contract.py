"""What a backend says about itself, and keeps."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kakeya_conformance.compare import is_floats, is_pages, refuses, want
from kakeya_conformance.layouts import announced, fixed_layouts
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.trial import Trial
from kakeya_ref.contract import BACKEND_API
from kakeya_ref.errors import Unsupported
from kakeya_ref.types import Support

FEATURES = frozenset({"decode", "encode", "attend"})
FRESH = """
import sys, pathlib, numpy as np
from kakeya_conformance.loader import load_backend
from kakeya_ref.layout import page_layout
from kakeya_ref.skeletons import Skeleton
target, codec, d, p, source, table, result = sys.argv[1:]
backend, _ = load_backend(target)
layout = page_layout(codec, int(d), int(p))
body = np.frombuffer(pathlib.Path(table).read_bytes(), np.uint8)
beside = {"tables": Skeleton(body[None])} if body.size else {}
y = backend.decode(pathlib.Path(source).read_bytes(), layout, **beside)
pathlib.Path(result).write_bytes(np.ascontiguousarray(y).astype("<f4").tobytes())
"""


@check(rules=["backend.profile.declared"], level="bits", over="backend")
def check_contract__declares_name_and_profile(t: Trial) -> None:
    """A backend has a name and one of the two profiles."""
    name, profile = getattr(t.backend, "name", None), getattr(t.backend, "profile", None)
    want(isinstance(name, str) and name != "", f"name is {name!r}")
    want(profile in ("exact", "bounded"), f"profile is {profile!r}")
    api = getattr(t.backend, "api", BACKEND_API)
    want(api == BACKEND_API, f"backend speaks API {api}, this suite {BACKEND_API}")


@check(rules=["backend.support.honest"], level="bits", over="backend")
def check_contract__answers_for_every_layout(t: Trial) -> None:
    """``supports`` answers any layout with known features or with a reason, the same one twice."""
    for layout in fixed_layouts("standard"):
        answer = t.backend.supports(layout)
        want(isinstance(answer, Support), f"{layout}: supports returned {answer!r}")
        want(answer == t.backend.supports(layout), f"{layout}: two answers differ")
        if answer.ok:
            want(answer.features <= FEATURES, f"{layout}: unknown features {answer.features}")
            want("decode" in answer.features, f"{layout}: decoding is the one required feature")
        else:
            want(answer.reason != "", f"{layout}: not supported, but no reason given")


@check(rules=["backend.codec.offered"], level="bits", over="backend")
def check_contract__refuses_what_it_does_not_offer(t: Trial) -> None:
    """A layout or feature that is not announced raises Unsupported."""
    asked = 0
    for layout in fixed_layouts("standard"):
        answer = t.backend.supports(layout)
        if not answer.ok or "decode" not in answer.features:
            asked += 1
            with refuses(Unsupported, "backend.codec.offered"):
                t.decode(np.zeros((1, layout.nbytes), dtype=np.uint8), layout)
        if not answer.ok or "encode" not in answer.features:
            asked += 1
            with refuses(Unsupported, "backend.codec.offered"):
                t.encode(np.zeros((1, layout.tokens, layout.head_dim), np.float32), layout)
    if not asked:
        raise NotApplicable("every layout of the suite is offered")


@check(rules=["backend.support.honest"], level="bits", needs={"decode"})
def check_contract__does_what_it_announces(t: Trial) -> None:
    """An announced layout is decoded, and encoded where that is announced, without an error."""
    t.decode(t.reference_pages(t.some()))
    if "encode" in t.backend.supports(t.layout).features:
        t.encode(t.some())


@check(rules=["rate.bytes.true"], level="bits", needs={"encode"})
def check_encode__rate_is_the_bytes(t: Trial) -> None:
    """Encoding returns exactly N * nbytes bytes, for no page, one page and three."""
    for n in (0, 1, 3):
        is_pages(t.encode(t.some(n=n)), t.layout, n)


@check(rules=["page.shape.exact"], level="bits", needs={"decode"})
def check_decode__gives_n_p_d_float32(t: Trial) -> None:
    """Decoding returns (N, P, D) float32 in both bases, for no page, one page and three."""
    for n in (0, 1, 3):
        pages = t.reference_pages(t.some(n=n))
        is_floats(t.decode(pages), t.layout, n)
        is_floats(t.decode(pages, basis="coefficients"), t.layout, n)


@check(rules=["decode.bytes.only"], level="bits", needs={"decode"}, over="backend")
def check_decode__needs_nothing_but_bytes(t: Trial) -> None:
    """A fresh process decodes the same page, and table body, to the same vectors."""
    if not t.target:
        raise NotApplicable("the backend has no module:attr name, so no fresh process can load it")
    offers = list(announced(t.backend).values())
    layout = offers[-1].layouts(t.backend, "quick")[0]
    pages = t.reference_pages(t.some(layout=layout), layout)
    here = t.decode(pages, layout)
    with tempfile.TemporaryDirectory() as folder:
        source, table, result = (Path(folder, name) for name in ("page", "table", "floats"))
        source.write_bytes(pages.tobytes())
        beside = t.tables(layout=layout)
        table.write_bytes(b"" if beside is None else beside.bodies.tobytes())
        words = [str(layout.codec), str(layout.head_dim), str(layout.tokens)]
        run = subprocess.run(
            [sys.executable, "-c", FRESH, t.target, *words, *map(str, (source, table, result))],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            check=False,
        )
        want(run.returncode == 0, f"the fresh process failed: {run.stderr[-400:]}")
        there = np.frombuffer(result.read_bytes(), dtype="<f4").astype(np.float32)
    t.agree_vectors(there.reshape(here.shape), here, layout)
