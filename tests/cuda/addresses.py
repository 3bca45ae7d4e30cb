"""Kernels of a host build with an address sanitizer: ``addresses.py whole | cut``.

A program of its own, for the sanitizer has to come before Python. ``cut`` hands over a pool that is
one row too short.
"""

from __future__ import annotations

import sys

from hostlaunch import HostLauncher
from test_device_attend import SHAPES, Case
from test_host_exact import LAYOUTS, awkward

from kakeya_conformance.tables import given
from kakeya_fast.cuda import host, hostbuild
from kakeya_ref.layout import page_layout

ATTEND = ("plain", "mixed-64-rows", "wide-four", "uneven", "one-page", "calibrated-odd-rows")
QUERY = (("query:b=2.5", 64, 32), ("query:b=5", 576, 16))
DONE = "all done"


def main(which: str) -> None:
    """Run all of it, or what must be caught."""
    hostbuild.FLAGS = (*hostbuild.FLAGS, "-fsanitize=address", "-g1", "-O1")
    for name in ATTEND:
        case = Case(SHAPES[name], HostLauncher())
        q, k, v, paged, scaling = case.given()
        if which == "cut":
            k = k[: int(case.paged.slots.max())].clone()
        case.attention()(q, k, v, paged, scaling, **case.options())
    backend = host.Backend()
    for codec, d, tokens in LAYOUTS:
        layout = page_layout(codec, d, tokens)
        backend.decode(backend.encode(awkward(2, tokens, d), layout), layout)
    for codec, d, tokens in QUERY:
        layout = page_layout(codec, d, tokens)
        tables = given("plausible", 0, 1, layout)
        body = backend.encode(awkward(2, tokens, d), layout, tables=tables)
        backend.decode(body, layout, tables=tables)
    print(DONE, len(ATTEND), len(LAYOUTS), len(QUERY))


if __name__ == "__main__":
    main(sys.argv[1])
