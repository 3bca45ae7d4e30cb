"""From exact pages to the codec, layout and table that each of them is packed with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kakeya_ref.errors import ShapeError
from kakeya_ref.fitting import Fit, fit, for_page
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import resolved, table_kind
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import Codec, PageLayout

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """What one page of one KV head is packed with; no tables for a codec that needs none."""

    layout: PageLayout
    tables: Skeleton | None = None

    @property
    def word(self) -> tuple[int, int]:
        """Rank, and outliers over 8, as the page table keeps them."""
        params = dict(self.layout.codec.params)
        return int(params["rank"]), int(params.get("out", 0)) // 8


@lru_cache(maxsize=4096)
def layout_of(codec: Codec, rank: int, out: int, like: PageLayout) -> PageLayout:
    """Layout of a page of a fitted codec, for vectors and pages as in ``like``."""
    chosen = {"rank": rank} | ({"out": out} if "out" in dict(codec.params) else {})
    return page_layout(resolved(codec, **chosen), like.head_dim, like.tokens)


class Fitter:
    """Fits of one stream of a layer.

    Attributes
    ----------
    codec : Codec
        As it was asked for.
    layout : PageLayout
        Of its pages, or, where a fit chooses the rank, of the widest page.
    metric : (H, D, D) float64, optional
        Cholesky factors of the second moments of the queries, by KV head.
    fitted : bool
        Whether the codec has a table at all.
    """

    def __init__(self, codec: Codec, layout: PageLayout, metric: F64 | None = None) -> None:
        params = dict(codec.params)
        self.codec, self.layout = codec, layout
        self.fitted = table_kind(codec) == "skeleton"
        self.metric = metric if self.fitted else None
        self.share, self.cut = bool(params.get("share", 0)), int(params.get("cut", 0))

    def choose(self, x: Tensor, rows: list[int], known: dict[int, Fit]) -> list[Chosen]:
        """What each page of each head is packed with.

        Rule: cache.table.causal, codec.fit.metric

        Parameters
        ----------
        x : (M, H, P, D)
            Exact pages, those of one row in order.
        rows : M row numbers
        known : dict
            Tables that rows share between their pages; those of rows that begin are added.

        Returns
        -------
        list of M * H, heads of a page together
        """
        if not self.fitted:
            return [Chosen(self.layout)] * (x.shape[0] * x.shape[1])
        host = np.ascontiguousarray(x.detach().to("cpu").float().numpy())
        out = []
        for row, page in zip(rows, host, strict=True):
            if self.share:
                if row not in known:
                    known[row] = self._fit(page.reshape(-1, page.shape[-1]), self._pooled())
                fits = [known[row]] * len(page)
            else:
                fits = [
                    self._fit(head, None if self.metric is None else self.metric[h])
                    for h, head in enumerate(page)
                ]
            for found, head in zip(fits, page, strict=True):
                params = dict(for_page(found, head, self.cut).params)
                layout = layout_of(self.codec, params["rank"], params.get("out", 0), self.layout)
                out.append(Chosen(layout, found.tables))
        return out

    def _fit(self, x: NDArray[np.float32], metric: F64 | None) -> Fit:
        found = fit(x, self.codec, metric=metric)
        # Without a metric, encoders project on the basis of the table: nothing more to keep.
        return found if metric is not None else replace(found, tables=Skeleton(found.tables.bodies))

    def _pooled(self) -> F64 | None:
        """One factor for a table of all heads: that of their mean second moment."""
        if self.metric is None:
            return None
        return np.linalg.cholesky((self.metric @ self.metric.swapaxes(1, 2)).mean(0))


def check_metric(metric: F64 | None, heads: int, size: int) -> None:
    """Refuse a metric that does not fit the keys of its layer.

    Raises
    ------
    ShapeError
    """
    if metric is not None and metric.shape != (heads, size, size):
        raise ShapeError(
            "codec.fit.metric",
            f"the metric of a layer is ({heads}, {size}, {size}), got {metric.shape}",
        )
