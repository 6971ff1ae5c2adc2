"""Choosing the prompts of a recipe: versions that are shipped, and files of one's own.

Shipped texts are ``extractors/prompts/<name>.<version>.txt``. A choice is one or several of these, with commas between:
``v2`` (every text that has this version), ``extract.v2`` (that text), ``my/extract.short.txt`` (a file of one's own, named
in the same way). Texts that are not chosen stay as they are by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path

from extractors.errors import JobError
from extractors.prompting import PromptTexts, load_texts, version_of

_FIELDS = {"continue": "rest"}
"""A text's name where it is not the one of its field."""
_SLOTS = {
    "extract": ("{{fields}}",),
    "correct": ("{{keys}}", "{{problems}}"),
    "reask": ("{{problem}}",),
    "pack": ("{{keys}}",),
}
"""What a text must have a place for."""


def choose_texts(choice: str | None, *, own: Mapping[str, str] | None = None) -> PromptTexts:
    """The default texts with what ``choice`` names in their place; of files that ``own`` has by their names, its texts. Raises
    ``JobError`` that lists what there is."""
    texts = load_texts()
    if not choice:
        return texts
    known = {one.name for one in fields(PromptTexts)} - {"version", "own"}
    changes: dict[str, str] = {}
    read: dict[str, str] = {}
    versions: dict[str, str] = {}
    for part in (part.strip() for part in choice.split(",") if part.strip()):
        for name, version, text in _own(part, own or {}) if part.endswith(".txt") else _shipped(part):
            field = _FIELDS.get(name, name)
            if field not in known:
                names = ", ".join(sorted({"continue"} | known - {"rest"}))
                raise JobError(
                    f"{part}: there is no prompt text {name!r}; a file is named NAME.VERSION.txt, NAME one of {names}"
                )
            missing = [slot for slot in _SLOTS.get(name, ()) if slot not in text]
            if missing:
                raise JobError(f"{part}: the text must have {' and '.join(missing)} where they are to be filled in")
            changes[field] = text
            versions[name] = version
            if part.endswith(".txt"):
                read[Path(part).name] = text
    return replace(texts, version=version_of(versions), own=read, **changes)


def _own(part: str, known: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    path = Path(part)
    name, _, version = path.name.removesuffix(".txt").partition(".")
    try:
        text = known[path.name] if path.name in known else path.read_text(encoding="utf-8").strip()
        yield name, version or "own", text
    except OSError as error:
        raise JobError(f"the prompt file {part} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"the prompt file {part} is not UTF-8 text (byte {error.start})") from error


def _shipped(part: str) -> Iterator[tuple[str, str, str]]:
    folder = files("extractors") / "prompts"
    there = sorted(one.name.removesuffix(".txt") for one in folder.iterdir() if one.name.endswith(".txt"))
    chosen = [one for one in there if part in (one, one.partition(".")[2])]
    if not chosen:
        raise JobError(f"there is no prompt {part!r}; there are {', '.join(there)}, or give a file NAME.VERSION.txt")
    for one in chosen:
        name, _, version = one.partition(".")
        yield name, version, (folder / f"{one}.txt").read_text(encoding="utf-8").strip()
