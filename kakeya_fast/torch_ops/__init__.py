"""Page bodies with plain torch operations, on whatever device torch reaches."""

from kakeya_fast.torch_ops.backend import Backend

__all__ = ["Backend"]
