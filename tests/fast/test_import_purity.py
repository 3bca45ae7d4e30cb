"""Importing the package costs NumPy and the standard library, nothing else."""

import subprocess
import sys

HEAVY = ("torch", "numba", "cupy", "transformers", "typer", "rich", "matplotlib", "hypothesis")


def test_import_loads_no_optional_dependency():
    code = f"import sys, kakeya_fast; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_looking_at_backends_imports_none_of_them():
    code = (
        "import sys, kakeya_fast\n"
        "assert 'torch' in kakeya_fast.available_backends()\n"
        f"print(kakeya_fast.__version__, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]")


def test_auto_works_without_numba_and_names_what_is_missing():
    code = (
        "import sys, logging\n"
        "sys.modules['numba'] = None\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        "import kakeya_fast\n"
        "print('got', kakeya_fast.get_backend().name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "got torch" in run.stdout
    assert "numba needs numba, not installed" in run.stdout
