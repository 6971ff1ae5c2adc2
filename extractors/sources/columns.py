"""Which columns name a record, hold its text and are kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extractors.documents.converted import DocumentLimits
from extractors.errors import SourceError
from extractors.sources.pictures import PictureFinder
from extractors.sources.text_template import TextTemplate, listed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for, not yet compared with any source. ``text`` is a column or a template; ``image_root``
    and ``image_hosts`` bound where pictures may come from, ``documents`` what one document may take; ``page_pictures``:
    pages without text are asked about as pictures."""

    id: str | None = None
    text: str | None = None
    keep: tuple[str, ...] = ()
    image: str | None = None
    image_root: str | None = None
    image_hosts: tuple[str, ...] = ()
    documents: DocumentLimits = field(default_factory=DocumentLimits)
    page_pictures: bool = False

    def pictures(self, base: Path) -> PictureFinder | None:
        """Who finds the pictures of a source in the folder ``base``; None where none were asked for."""
        if self.image is None:
            return None
        root = None if self.image_root is None else Path(self.image_root)
        return PictureFinder(base=base, root=root, hosts=self.image_hosts)


@dataclass(frozen=True, slots=True)
class Columns:
    """What to read. ``id`` None: a content hash. ``keep`` pairs a source column with its new name."""

    id: str | None
    text: TextTemplate
    keep: tuple[tuple[str, str], ...]
    image: str | None = None


def choose(
    wanted: Wanted,
    present: Sequence[str],
    *,
    texts: Sequence[str],
    place: str,
    exists: Callable[[str], bool] | None = None,
) -> Columns:
    """Settle the columns of a source.

    ``present`` are its columns, ``texts`` those that hold text, ``place`` is what to call it in messages.
    ``exists`` may find a column that is not in ``present`` (a key of a later JSON line). Raises
    ``SourceError`` that lists the columns there are.
    """
    known = set(present)

    def need(name: str, option: str) -> str:
        if name in known or (exists is not None and exists(name)):
            return name
        close = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
        close = close or [each for each in present if each.lower() == name.lower()]
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SourceError(f"{place} has no column {name!r} ({option}); it has: {listed(present)}{hint}")

    identity = None if wanted.id is None else need(wanted.id, "--id")
    image = None if wanted.image is None else need(wanted.image, "--image")
    keep: list[tuple[str, str]] = []
    for entry in wanted.keep:
        column, _, renamed = (entry, "", "") if entry in known or ":" not in entry else entry.rpartition(":")
        keep.append((need(column, "--keep"), renamed or column))
    names = [name for _, name in keep]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"--keep names {listed(twice)} twice; give one of them another name with column:name")
    return Columns(identity, _text(wanted, known, need, texts, identity, present, place), tuple(keep), image)


def _text(
    wanted: Wanted,
    known: set[str],
    need: Callable[[str, str], str],
    texts: Sequence[str],
    identity: str | None,
    present: Sequence[str],
    place: str,
) -> TextTemplate:
    if wanted.text is not None:
        if wanted.text in known or "{" not in wanted.text:
            return TextTemplate.column(need(wanted.text, "--text"))
        template = TextTemplate.parse(wanted.text)
        for column in template.columns:
            need(column, "--text")
        return template
    if wanted.image is not None and ("text" not in known or wanted.image == "text"):
        return TextTemplate.nothing()
    if "text" in known or not present:
        return TextTemplate.column("text")
    candidates = [name for name in texts if name != identity]
    if len(candidates) == 1:
        return TextTemplate.column(candidates[0])
    if candidates:
        raise SourceError(
            f"{place} has several columns that may be the text: {listed(candidates)}; choose one with --text, "
            f'or join some: --text "{{{candidates[0]}}}\\n{{{candidates[1]}}}"'
        )
    raise SourceError(f"{place} has no column with text; it has: {listed(present)}; choose one with --text")
