"""The README is held to the code and to the committed result files."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def test_numbers_are_those_of_the_result_files() -> None:
    """A figure in the README that no committed file holds is a defect."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.readme", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_on_bytes_runs() -> None:
    """The second example needs no model; what its comments promise is asserted here."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    example = next(b for b in blocks if "get_backend" in b)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    layout, pages, back, x = (names[n] for n in ("layout", "pages", "back", "x"))
    assert pages.shape == (1000, layout.nbytes)
    assert pages.dtype == np.uint8
    assert ((back - x) ** 2).mean() < 0.01
