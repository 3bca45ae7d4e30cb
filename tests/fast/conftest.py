"""Where torch is not installed its tests are not collected; everything else still runs."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_torch_*.py", "test_dispatch.py"]
