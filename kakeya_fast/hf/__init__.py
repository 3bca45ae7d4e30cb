"""A packed KV cache for transformers: ``build_kakeya_cache(model)``.

Importing this module loads torch and transformers.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from kakeya_ref.errors import Unsupported

# The cache contract (layers, registries, negative crop) is the one of these versions.
SUPPORTED = ((5, 23), (6, 0))


def _check_library() -> None:
    span = ">={}.{},<{}.{}".format(*SUPPORTED[0], *SUPPORTED[1])
    try:
        found = version("transformers")
    except PackageNotFoundError:
        raise Unsupported("cache.library.range", f"needs transformers {span}: none") from None
    major, minor = (int(part) for part in found.split(".")[:2])
    if not SUPPORTED[0] <= (major, minor) < SUPPORTED[1]:
        raise Unsupported("cache.library.range", f"needs transformers {span}, found {found}")


_check_library()

from kakeya_fast.hf.build import build_kakeya_cache  # noqa: E402
from kakeya_fast.hf.cache import KakeyaCache  # noqa: E402
from kakeya_fast.hf.keytables import KeyTables, load_tables  # noqa: E402
from kakeya_fast.hf.layer import PackedLayer  # noqa: E402
from kakeya_fast.hf.metric import query_metric  # noqa: E402
from kakeya_fast.hf.plan import Plan  # noqa: E402
from kakeya_fast.hf.report import CacheReport  # noqa: E402

# The name of the factory in the predecessor of this project.
build_gemma4_kakeya_cache = build_kakeya_cache

__all__ = [
    "CacheReport",
    "KakeyaCache",
    "KeyTables",
    "PackedLayer",
    "Plan",
    "build_gemma4_kakeya_cache",
    "build_kakeya_cache",
    "load_tables",
    "query_metric",
]
