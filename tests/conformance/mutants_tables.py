"""Mutants of codecs with tables: the tables, their planes, and which page reads which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from patching import Mutant

from kakeya_ref import backend, chains, skeletons
from kakeya_ref.errors import Malformed
from kakeya_ref.skeletons import Skeleton

BOTH = ("skeleton", "turbo")
true = {
    "parts": skeletons.parts,
    "project": chains.project,
    "tables_of": chains.tables_of,
    "as_skeleton": backend.as_skeleton,
    "write": backend.write_page,
    "read": backend.read_page,
    "centre_part": chains.centre_part,
}


class LengthsSwapped(Mutant):
    """Stores each of the two lengths of a token where the other belongs."""

    rule = "skeleton.page.layout"
    codecs = ("skeleton",)

    @staticmethod
    def swap(fields):
        if "along" not in fields:
            return fields
        return fields | {"along": fields["proj"], "proj": fields["along"]}


LengthsSwapped.patches = (
    (backend, "write_page", lambda lay, f, n: true["write"](lay, LengthsSwapped.swap(f), n)),
    (backend, "read_page", lambda lay, body: LengthsSwapped.swap(true["read"](lay, body))),
)


class TrendBeforeCentres(Mutant):
    """Reads the planes of a table in another order."""

    rule = "skeleton.table.layout"
    codecs = ("skeleton",)

    @staticmethod
    def parts(body, codec, d):
        found = true["parts"](body, codec, d)
        if not found.trend.size:
            return found
        moved = np.concatenate([found.centres.ravel(), found.trend])
        trend, centres = np.split(moved, [found.trend.size])
        return replace(found, trend=trend, centres=centres.reshape(found.centres.shape))


TrendBeforeCentres.patches = ((chains, "parts", TrendBeforeCentres.parts),)


class CentresAreColumns(Mutant):
    rule = "turbo.table.layout"
    codecs = ("turbo",)

    @staticmethod
    def parts(body, codec, d):
        found = true["parts"](body, codec, d)
        rows, rank = found.centres.shape
        columns = np.ascontiguousarray(found.centres.reshape(rank, rows).T)
        return replace(found, centres=columns)


CentresAreColumns.patches = ((chains, "parts", CentresAreColumns.parts),)


class BasisInsteadOfAnalysis(Mutant):
    rule = "skeleton.encode.project"
    codecs = ("skeleton",)
    patches = ((chains, "project", lambda x, part, analysis: true["project"](x, part, None)),)


class AnalysisInTheDecoder(Mutant):
    """Decodes with the rows it was to encode with."""

    rule = "turbo.decode.synthesis"
    codecs = ("turbo",)

    @staticmethod
    def tables_of(tables, layout, n):
        part, analysis = true["tables_of"](tables, layout, n)
        return (part if analysis is None else replace(part, basis=analysis)), analysis


AnalysisInTheDecoder.patches = ((chains, "tables_of", AnalysisInTheDecoder.tables_of),)


class FirstTableForAll(Mutant):
    rule = "codec.table.given"
    codecs = BOTH
    patches = ((chains, "tables_of", lambda t, lay, n: true["tables_of"](t, lay, 0)),)


class TableOfTheLastCall(Mutant):
    """Remembers tables, and does without being given any."""

    rule = "codec.table.given"
    codecs = ("turbo",)

    def __init__(self):
        self.last = None

    def encode(self, x, layout, *, tables=None, **options):
        return super().encode(x, layout, tables=self.kept(tables), **options)

    def decode(self, pages, layout, *, tables=None, **options):
        return super().decode(pages, layout, tables=self.kept(tables), **options)

    def kept(self, tables):
        self.last = self.last if tables is None else tables
        return self.last


class TablesOfAnyNumber(Mutant):
    """Takes the first tables of too many."""

    rule = "codec.table.shape"
    codecs = ("skeleton",)

    @staticmethod
    def as_skeleton(tables, layout, pages):
        if isinstance(tables, Skeleton) and tables.bodies.ndim == 2 and 1 < len(tables) < pages:
            tables = Skeleton(tables.bodies[:1], None)
        return true["as_skeleton"](tables, layout, pages)


TablesOfAnyNumber.patches = ((backend, "as_skeleton", TablesOfAnyNumber.as_skeleton),)


class TableNanIsTaken(Mutant):
    rule = "codec.table.finite"
    codecs = BOTH

    @staticmethod
    def parts(body, codec, d):
        try:
            return true["parts"](body, codec, d)
        except Malformed as error:
            if error.rule != "codec.table.finite":
                raise
            return true["parts"](np.zeros_like(body), codec, d)


TableNanIsTaken.patches = ((chains, "parts", TableNanIsTaken.parts),)


class LevelsAreSorted(Mutant):
    """Mends levels that it should refuse."""

    rule = "turbo.levels.ascending"
    codecs = ("turbo",)

    @staticmethod
    def parts(body, codec, d):
        try:
            return true["parts"](body, codec, d)
        except Malformed as error:
            if error.rule != "turbo.levels.ascending":
                raise
            return true["parts"](np.zeros_like(body), codec, d)


LevelsAreSorted.patches = ((chains, "parts", LevelsAreSorted.parts),)


class CentreWrapsAround(Mutant):
    rule = "turbo.seg.range"
    codecs = ("turbo",)

    @staticmethod
    def centre_part(fields, part, store, rule):
        seg = fields.get("seg", np.zeros(len(fields["proj"]), np.uint64))
        wrapped = {**fields, "seg": seg % np.uint64(len(part.centres))}
        return true["centre_part"](wrapped, part, store, rule)


CentreWrapsAround.patches = ((chains, "centre_part", CentreWrapsAround.centre_part),)
