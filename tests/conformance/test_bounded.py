"""Profile ``bounded``: a backend that differs in the last bits passes, a worse one does not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from kakeya_conformance import run_checks

sys.path.insert(0, str(Path(__file__).parent))

from bounded_backend import BoundedBackend


class ClaimsTooMuch(BoundedBackend):
    profile = "exact"


class HalvesEveryTenth(BoundedBackend):
    def encode(self, x, layout, **options):
        if isinstance(x, np.ndarray) and x.ndim == 3 and x.dtype == np.float32:
            x = x.copy()
            x[:, ::10] *= np.float32(0.5)
        return super().encode(x, layout, **options)


class LosesBits(BoundedBackend):
    def decode(self, pages, layout, *, basis="vectors", **options):
        out = super().decode(pages, layout, basis=basis, **options)
        return out if basis == "coefficients" else out * np.float32(1 + 2.0**-18)


def test_a_bounded_backend_conforms():
    report = run_checks(BoundedBackend(), codecs=["scalar", "e8"])
    assert report.exit_code == 0, report.to_text()
    assert report.backend_profile == "bounded"


def test_the_same_backend_is_not_exact():
    report = run_checks(ClaimsTooMuch(), codecs=["scalar"])
    assert report.exit_code == 1
    assert any("backend.profile.exact" in f.rules for f in report.failures)


def test_a_worse_encoder_is_not_bounded():
    report = run_checks(HalvesEveryTenth(), codecs=["scalar"], only="agrees_with_reference")
    assert report.exit_code == 1
    assert "more than one step" in report.failures[0].message


def test_a_coarser_decoder_is_not_bounded():
    report = run_checks(LosesBits(), codecs=["e8"], only="check_rotation")
    assert report.exit_code == 1
    assert "off the ideal" in report.failures[0].message
