"""Where torch is missing nothing of this folder that needs it is collected."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore_glob = [] if find_spec("torch") else ["test_device_*.py"]


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip where there is no C++ compiler for the host build."""
    from kakeya_fast.cuda.hostbuild import COMPILERS

    if not any(map(shutil.which, COMPILERS)):
        pytest.skip(f"no C++ compiler: none of {', '.join(COMPILERS)}")


@pytest.fixture(params=["cpu", "cuda"])
def device(request, monkeypatch) -> str:
    """Where a cache with ``backend="cuda"`` runs; on the CPU its kernels are the host build's."""
    import torch

    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("torch sees no GPU")
        return "cuda"
    request.getfixturevalue("compiler")
    from hostlaunch import HostLauncher

    from kakeya_fast.cuda.backend import Backend
    from kakeya_fast.hf import policy

    ours, real = Backend(launcher=HostLauncher()), policy._backend
    monkeypatch.setattr(
        policy, "_backend", lambda name, where: ours if name == "cuda" else real(name, where)
    )
    return "cpu"
