"""Real, non-repeating text, pinned: the same bytes on every machine, or a different SHA-256.

Repeated paragraphs make any cache look good, so texts here are running prose, a paragraph that
occurs twice is kept once, and passages are disjoint.
"""

from __future__ import annotations

import gettext
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kakeya_fast.quality.fetch import Package, fetch
from kakeya_ref.errors import Malformed, UsageError

CORPUS = Package(
    "brotli==1.2.1",
    "brotli-1.2.1.tar.gz",
    "02b2f7b5a83485efe448a44ddf7983def05c3bb1dcf917d4f7154070260e13de",
    7.4,
)
MEMBERS = "brotli-1.2.1/tests/testdata/"

# Catalogues of messages, the same for every platform.
HANDBOOK = Package(
    "mercurial==7.2.4",
    "mercurial-7.2.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"
    ".manylinux_2_28_x86_64.whl",
    "851e0e7036e75157a1cd517799a2e727b3ec6295a3a59c5667ad7004f121b317",
    7.6,
    ("--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"),
)
AT_LENGTH = 120

CODE = (
    "argparse", "tarfile", "typing", "inspect", "subprocess", "doctest", "pickletools",
    "_pydecimal", "ssl", "shutil", "smtplib", "optparse", "statistics", "difflib", "ast",
    "dataclasses",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A text, its name, its SHA-256 (of the UTF-8 bytes) and where it comes from."""

    name: str
    description: str
    text: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the UTF-8 bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Passage:
    """``ids`` are the special prefix of the model, then tokens ``start ...`` of the text."""

    index: int
    start: int
    ids: tuple[int, ...]


def manual() -> Text:
    """The Python language manual as the standard library carries it (``pydoc_data.topics``)."""
    from pydoc_data.topics import topics

    text = unique_paragraphs("\n\n".join(topics.values()))
    return Text("manual", "Python language reference, from pydoc_data.topics of this Python", text)


def workshop() -> Text:
    """Proceedings of a Library of Congress workshop of 1992, public domain, plain English prose."""
    text = unique_paragraphs(_members("lcet10.txt"))
    return Text(
        "workshop",
        "Workshop on Electronic Texts, Library of Congress 1992 (Canterbury corpus)",
        text,
    )


def books() -> Text:
    """Paradise Lost, Alice and As You Like It, public domain: long texts, for long passages."""
    text = unique_paragraphs(_members("plrabn12.txt", "alice29.txt", "asyoulik.txt"))
    return Text("books", "Milton, Carroll and Shakespeare (Canterbury corpus)", text)


def _members(*names: str) -> str:
    archive = fetch(CORPUS)
    found = []
    with tarfile.open(archive) as tar:
        for name in names:
            try:
                member = tar.extractfile(MEMBERS + name)
            except KeyError:
                member = None
            if member is None:
                raise Malformed("model.fetch.sha256", f"{archive.name} lacks {name}")
            found.append(member.read().decode("latin-1").replace("\r\n", "\n"))
    return "\n\n".join(found)


def code() -> Text:
    """Source of some large modules of the standard library of this Python: code, not prose."""
    import sysconfig

    folder = Path(sysconfig.get_paths()["stdlib"])
    whole = "\n\n".join((folder / f"{name}.py").read_text("utf-8") for name in CODE)
    text = unique_paragraphs(whole)
    return Text("code", "modules of the standard library of this Python, as source", text)


def _handbook(language: str, name: str) -> Text:
    """What a program says at length, in the order of the English originals."""
    with zipfile.ZipFile(fetch(HANDBOOK)) as wheel:
        packed = wheel.read(f"mercurial/locale/{language}/LC_MESSAGES/hg.mo")
    # The library keeps no public list of what it read.
    messages: dict[Any, str] = vars(gettext.GNUTranslations(io.BytesIO(packed)))["_catalog"]
    said = sorted((k, v) for k, v in messages.items() if isinstance(k, str) and k != v)
    text = unique_paragraphs("\n\n".join(v for _, v in said if len(v) > AT_LENGTH))
    return Text(
        name, f"help of Mercurial in {name.title()}, messages of over {AT_LENGTH} characters", text
    )


NAMED: dict[str, Callable[[], Text]] = {
    "manual": manual, "workshop": workshop, "books": books, "code": code,
    "portuguese": lambda: _handbook("pt_BR", "portuguese"),
    "russian": lambda: _handbook("ru", "russian"),
}  # fmt: skip


def load_text(name_or_path: str) -> Text:
    """A named text, or a UTF-8 file of the user's own (taken as it is).

    Raises
    ------
    UsageError
        Neither a name nor a readable UTF-8 file (``text.name.known``).
    Unsupported, Malformed
        The pinned package cannot be had, see :func:`kakeya_fast.quality.fetch.fetch`.
    """
    if name_or_path in NAMED:
        return NAMED[name_or_path]()
    try:
        text = Path(name_or_path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "text.name.known",
            f"{name_or_path!r} is neither one of {', '.join(NAMED)} nor a UTF-8 file ({error})",
        ) from error
    return Text(Path(name_or_path).name, "a file of the user's own", text)


def unique_paragraphs(text: str) -> str:
    """The text with every paragraph that already occurred left out (white space aside)."""
    seen: set[str] = set()
    kept = []
    for paragraph in text.split("\n\n"):
        key = " ".join(paragraph.split())
        if key and key not in seen:
            seen.add(key)
            kept.append(paragraph.strip("\n"))
    return "\n\n".join(kept) + "\n"


def passages(ids: list[int], prefix: list[int], ctx: int, count: int) -> list[Passage]:
    """``count`` disjoint windows of ``ctx`` tokens (prefix included), spread over the text.

    Raises
    ------
    UsageError
        The text is too short (``text.passages.disjoint``).

    Examples
    --------
    >>> [p.start for p in passages(list(range(100)), [], 10, 3)]
    [11, 44, 77]
    """
    body = ctx - len(prefix)
    if count < 1 or body < 2:
        raise UsageError("text.passages.disjoint", f"{count} passages of {ctx} tokens mean nothing")
    if count * body > len(ids):
        raise UsageError(
            "text.passages.disjoint",
            f"{count} disjoint passages of {ctx} tokens need {count * body}, text has {len(ids)}",
        )
    stride = len(ids) // count
    # In the middle of its share: title pages and indexes at the ends are no prose.
    starts = [stride * i + (stride - body) // 2 for i in range(count)]
    return [
        Passage(i, start, (*prefix, *ids[start : start + body])) for i, start in enumerate(starts)
    ]
