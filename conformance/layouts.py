"""Fixed layouts of each profile, and what a backend announces."""

from __future__ import annotations

from dataclasses import dataclass

from kakeya_ref.contract import Backend
from kakeya_ref.layout import page_layout, residual_width
from kakeya_ref.registry import codec_ids, parse_codec, table_kind
from kakeya_ref.types import PageLayout

# (codec string, head dim, tokens): the default page, then what an implementer forgets first --
# a head dim that is not a power of two, an odd width, seed 0, the ends of every parameter.
QUICK: tuple[tuple[str, int, int], ...] = (
    ("raw", 128, 16),
    ("raw:dtype=f16", 80, 16),
    ("raw:dtype=bf16", 72, 16),
    ("fp8", 128, 16),
    ("fp8", 80, 32),
    ("int", 128, 32),
    ("int:b=3,g=24,axis=channel", 80, 32),
    ("scalar", 128, 32),
    ("scalar:b=3,seed=0", 80, 16),
    ("trellis", 128, 32),
    ("trellis:b=3,seed=0", 80, 16),
    ("trellis:b=1,gain=unbiased", 64, 16),
    ("d4", 128, 32),
    ("d4:q=3,seed=0", 80, 16),
    ("e8", 128, 32),
    ("e8:q=4,seed=7", 80, 16),
    ("d4:q=5", 24, 16),
    ("e8:q=1", 8, 16),
    ("skeleton:k=5,res=4,rank=11", 64, 16),
    ("skeleton:k=1,time=none,store=bf16,rank=6", 80, 32),
    ("turbo:rank=16,out=16", 64, 16),
    ("turbo:b=2,k=3,levels=own,store=bf16,seed=0,rank=21,out=8", 80, 32),
    ("query", 64, 16),
    ("query:b=2.1,f=1", 40, 32),
)
STANDARD: tuple[tuple[str, int, int], ...] = (
    ("raw:dtype=f16", 64, 64),
    ("fp8", 64, 64),
    ("int", 64, 64),
    ("scalar", 64, 64),
    ("d4", 64, 64),
    ("e8", 64, 64),
    ("raw:dtype=bf16", 576, 16),
    ("fp8", 576, 16),
    ("int:b=8,g=1024", 96, 16),
    ("int:b=1,g=8", 112, 16),
    ("int:b=5,g=32,axis=channel", 192, 48),
    ("scalar:b=1", 96, 16),
    ("scalar:b=7,seed=4294967295", 112, 16),
    ("scalar:b=8", 576, 16),
    ("trellis:b=1", 64, 64),
    ("trellis:b=8", 96, 16),
    ("trellis:gain=unbiased", 40, 32),
    ("trellis:b=4,seed=4294967295", 576, 16),
    ("d4:q=1", 112, 16),
    ("d4:q=110,seed=2", 192, 16),
    ("e8:q=110,seed=2", 192, 16),
    ("e8:q=38", 576, 16),
    ("skeleton:rank=48", 128, 32),
    ("skeleton:k=256,res=64,rank=64", 64, 16),
    ("skeleton:k=2,res=1,time=none,rank=1", 8, 16),
    ("skeleton:k=17,res=3,store=bf16,rank=100", 112, 48),
    ("turbo:rank=128", 128, 32),
    ("turbo:b=1,k=256,rank=1", 8, 16),
    ("turbo:b=4,k=1,levels=own,rank=40,out=640", 40, 16),
    ("turbo:b=4,seed=4294967295,rank=77,out=24", 192, 16),
    ("query:b=2.5", 128, 32),
    ("query:b=1", 8, 16),
    ("query:b=7,f=128", 24, 48),
)
# What is asked for where any layout of a codec will do: its default, or, where a fit would have
# to choose the rank, one that every head dim has room for.
PLAIN = {"skeleton": "skeleton:rank=8", "turbo": "turbo:rank=8"}
DEEP_DIMS = (8, 16, 24, 40, 96, 128, 192, 256, 320, 576)
HEAD_DIMS = tuple(range(8, 577, 8))
TOKENS = (16, 32, 48, 64)


def fixed_layouts(profile: str) -> list[PageLayout]:
    """Layouts on which every ``layout`` check runs."""
    rows = list(QUICK)
    if profile != "quick":
        rows += STANDARD
    if profile == "thorough":
        codecs = dict.fromkeys(text for text, _, _ in (*QUICK, *STANDARD))
        rows += [(text, d, 16) for text in codecs for d in DEEP_DIMS if _has_room(text, d, 16)]
    return [page_layout(*row) for row in dict.fromkeys(rows)]


def plain(codec_id: str) -> str:
    """A codec string of this codec that makes a layout at every shape."""
    return PLAIN.get(codec_id, codec_id)


def _has_room(text: str, d: int, p: int) -> bool:
    """Whether rank and outliers of a codec string fit a page of this shape."""
    codec = parse_codec(text)
    if table_kind(codec) != "skeleton":
        return True
    out = codec.integer("out") if codec.id == "turbo" else 0
    return codec.integer("rank") <= d and out <= p * residual_width(codec)


@dataclass(frozen=True)
class Offer:
    """What a backend announces for one codec.

    ``shapes`` are the (head dim, tokens) at which its plain codec string is offered.
    """

    codec_id: str
    features: frozenset[str]
    shapes: tuple[tuple[int, int], ...]
    everywhere: bool

    def layouts(self, backend: Backend, profile: str) -> list[PageLayout]:
        """Fixed layouts of this codec that are offered; else the plain codec at a few shapes."""
        fixed = [lay for lay in fixed_layouts(profile) if lay.codec.id == self.codec_id]
        offered = [lay for lay in fixed if backend.supports(lay).ok]
        if offered:
            return offered
        few = (self.shapes[0], self.shapes[-1])
        return [page_layout(plain(self.codec_id), d, p) for d, p in dict.fromkeys(few)]


def announced(backend: Backend) -> dict[str, Offer]:
    """Codec id -> what the backend offers, asked at every shape the suite may draw."""
    found: dict[str, Offer] = {}
    shapes = [(d, p) for d in HEAD_DIMS for p in TOKENS]
    for codec_id in codec_ids():
        text = plain(codec_id)
        answers = {shape: backend.supports(page_layout(text, *shape)) for shape in shapes}
        offered = tuple(shape for shape, answer in answers.items() if answer.ok)
        features = frozenset().union(*(answers[shape].features for shape in offered))
        others = [lay for lay in fixed_layouts("standard") if lay.codec.id == codec_id]
        for layout in others:
            answer = backend.supports(layout)
            if answer.ok:
                features |= answer.features
        if features:
            found[codec_id] = Offer(codec_id, features, offered, len(offered) == len(shapes))
    return found
