"""Prompts: versioned text files, the schema in the model's words, the record fenced as data.

The system message is the same for every record of a recipe and comes first, so that its prefix is
computed once; the record, picture before text, is the user message, and whatever is asked about it later
(a correction, the rest of a list, a second look) only adds lines after it, so that the record's own prefix is
reused as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import orjson

from extractors.qwen.requests import Image, Message
from extractors.tools.words import RULE as LOOK_UPS
from schemas.outcomes import FieldProblem
from schemas.verbatim import is_verbatim

NEWEST = {"extract": "v2"}
"""The texts of which there is a later version than the first."""
_SAYS_CODES = "that carry the same code"
"""What the first version says of the lines around a record, and a prompt of one's own that was made from it."""
_MOST_PROBLEMS = 12
_MOST_CHARACTERS = 240
_MOST_LAST = 2_000
_NULL_RULE = "- What the record does not say is null"
"""How the rule begins whose place another takes when nulls are left out."""
_EQUALS = "[=\u207c\u208c\u2550\u2a74\u2e40\u30a0\ua78a\ufe66\uff1d]"
_LIKE_A_FENCE = re.compile(rf"[\u2261\u2263\u2a75\u2a76\U0001f7f0]|{_EQUALS}[\W_\u115f\u1160\u3164\uffa0]*{_EQUALS}")
"""Two signs of equality, or what looks like them, with no letter or digit between that can be seen; or one that is two."""
_FIELDS, _SCHEMAS_ORDER = "Fields of the JSON object", ", in this order:"
"""The line above the fields, and what it says where they are written in the schema's order."""
_ONLY_A_PICTURE = "The record is the picture; it has no text of its own."


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """The texts of one prompt version, as read from ``extractors/prompts``. ``image`` is a rule for recipes
    whose records have pictures. ``own`` are those that were read from files of one's own, by the file's name."""

    version: str
    extract: str
    correct: str
    reask: str
    rest: str
    look: str
    image: str
    omit: str
    order: str
    compact: str
    pack: str
    own: Mapping[str, str] = field(default_factory=dict, hash=False)


def version_of(chosen: Mapping[str, str]) -> str:
    """The version of the texts, such as ``v1+extract.v2``, by the ``chosen`` version of each."""
    others = (f"{name}.{version}" for name, version in {**NEWEST, **chosen}.items() if version != "v1")
    return "+".join(["v1", *others])


def load_texts() -> PromptTexts:
    """The texts that are used where none is chosen: the newest of each."""
    folder = files("extractors") / "prompts"
    extract, correct, reask, rest, look, image, omit, order, compact, pack = (
        (folder / f"{name}.{NEWEST.get(name, 'v1')}.txt").read_text(encoding="utf-8").strip()
        for name in ("extract", "correct", "reask", "continue", "look", "image", "omit", "order", "compact", "pack")
    )
    return PromptTexts(
        version_of({}),
        extract=extract,
        correct=correct,
        reask=reask,
        rest=rest,
        look=look,
        image=image,
        omit=omit,
        order=order,
        compact=compact,
        pack=pack,
    )


class Prompter:
    """Makes the messages of one recipe's requests."""

    def __init__(
        self,
        texts: PromptTexts,
        schema: Mapping[str, Any],
        *,
        instructions: str = "",
        pictures: bool = False,
        omit_nulls: bool = False,
        text_order: bool = False,
        compact: bool = False,
        look_ups: bool = False,
    ) -> None:
        self.texts = texts
        self.codes = _SAYS_CODES in texts.extract
        """Whether the model is told that the lines around every record carry a code."""
        self._instructions = instructions
        self._ways = (pictures, omit_nulls, text_order, compact, look_ups)
        self._tail = ""
        extra = [f"- {line.strip()}" for line in instructions.splitlines() if line.strip()]
        if pictures:
            extra.insert(0, texts.image)
        if compact:
            extra.insert(0, texts.compact)
        if look_ups:
            extra.insert(0, LOOK_UPS)
        rules = texts.extract.split("\n")
        if text_order:
            rules = [line.replace(_SCHEMAS_ORDER, ":") if line.startswith(_FIELDS) else line for line in rules]
            extra.insert(0, texts.order)
        if omit_nulls:
            kept = [line for line in rules if not line.startswith(_NULL_RULE)]
            place = next((at for at, line in enumerate(rules) if line.startswith(_NULL_RULE)), None)
            if place is None:
                # A prompt of one's own says it in other words.
                extra.insert(0, texts.omit)
            else:
                kept.insert(place, texts.omit)
            rules = kept
        system = "\n".join(rules).replace("{{fields}}", describe(schema)).replace("{{instructions}}", "\n".join(extra))
        self.system = Message("system", system.rstrip())

    def about(
        self,
        schema: Mapping[str, Any],
        *,
        also: str = "",
        omit_nulls: bool | None = None,
        text_order: bool | None = None,
    ) -> Prompter:
        """The same way of asking for another schema, with the rules of ``also`` (one a line) after the instructions.
        ``omit_nulls`` and ``text_order`` where they are not as they were."""
        pictures, omitted, ordered, compact, look_ups = self._ways
        return Prompter(
            self.texts,
            schema,
            instructions=f"{self._instructions}\n{also}",
            pictures=pictures,
            omit_nulls=omitted if omit_nulls is None else omit_nulls,
            text_order=ordered if text_order is None else text_order,
            compact=compact,
            look_ups=look_ups,
        )

    def adding(self, tail: str) -> Prompter:
        """The same with some lines after every record."""
        copied = copy(self)
        copied._tail = f"\n\n{tail}"
        return copied

    def extract(self, text: str, *, code: str, images: tuple[Image, ...] = ()) -> tuple[Message, ...]:
        """The first question about a record. ``code`` seeds the fence; see ``fence``."""
        return (self.system, Message("user", f"{self._shown(text, code, images)}{self._tail}", images))

    def pack(self, texts: Sequence[str], *, code: str) -> Message:
        """One question about several records, numbered from 1."""
        # What one of them has like a fence must look like no other's either.
        coded = self.codes or any(map(_LIKE_A_FENCE.search, texts))
        fenced = [
            f"Record {number}:\n{fence(text, code=f'{code}/{number}', coded=coded)}"
            for number, text in enumerate(texts, start=1)
        ]
        tail = self.texts.pack.replace("{{count}}", str(len(texts)))
        tail = tail.replace("{{keys}}", _keys([str(number) for number in range(1, len(texts) + 1)]))
        return Message("user", "\n\n".join([*fenced, tail]))

    def correct(
        self, text: str, problems: Sequence[FieldProblem], *, code: str, images: tuple[Image, ...] = ()
    ) -> tuple[Message, ...]:
        """Ask again for the failing paths only. Bounded: at most 12 problems of 240 characters each,
        and nothing of earlier attempts but the last values."""
        asked = problems[:_MOST_PROBLEMS]
        lines = "\n".join(_problem_line(problem) for problem in asked)
        tail = self.texts.correct.replace("{{keys}}", _keys([p.path for p in asked])).replace("{{problems}}", lines)
        return self._after(text, tail, code=code, images=images)

    def reask(self, text: str, problem: str, *, code: str, images: tuple[Image, ...] = ()) -> tuple[Message, ...]:
        """Ask for the whole answer again, saying in one line what was wrong with the last."""
        return self._after(text, self.texts.reask.replace("{{problem}}", _clip(problem)), code=code, images=images)

    def rest(
        self, text: str, keys: Sequence[str], *, done: int, last: str, code: str, images: tuple[Image, ...] = ()
    ) -> tuple[Message, ...]:
        """Ask for the rest of the list at ``keys[0]``, of which ``done`` items are there, and for the other
        ``keys``, which come after it. ``last`` are the last items as JSON, of which the end is shown."""
        tail = self.texts.rest.replace("{{list}}", _keys(keys[:1])).replace("{{done}}", str(done))
        tail = tail.replace("{{keys}}", _keys(keys)).replace("{{last}}", last[-_MOST_LAST:])
        return self._after(text, tail, code=code, images=images)

    def look(
        self, text: str, fields: Mapping[str, Mapping[str, Any]], *, code: str, images: tuple[Image, ...] = ()
    ) -> tuple[Message, ...]:
        """Ask a second time for just ``fields``: their paths with their schemas."""
        lines = "\n".join(_fields({"properties": fields}, indent=""))
        tail = self.texts.look.replace("{{keys}}", _keys(list(fields))).replace("{{fields}}", lines)
        return self._after(text, tail, code=code, images=images)

    def _after(self, text: str, tail: str, *, code: str, images: tuple[Image, ...]) -> tuple[Message, ...]:
        return (self.system, Message("user", f"{self._shown(text, code, images)}{self._tail}\n\n{tail}", images))

    def _shown(self, text: str, code: str, images: Sequence[Image]) -> str:
        """The record in words: fenced, or one sentence where it is nothing but its picture."""
        if images and not text.strip():
            return _ONLY_A_PICTURE
        return fence(text, code=code, coded=self.codes)


def correctable(problems: Sequence[FieldProblem]) -> Sequence[FieldProblem]:
    """The problems that one correction asks about (the first 12)."""
    return problems[:_MOST_PROBLEMS]


def fence(text: str, *, code: str, coded: bool = False) -> str:
    """The record between two lines that it cannot forge. Where it has anything that looks like one of them, they carry a
    code, hashed from ``code``, and hashed again while the text happens to contain it; elsewhere none, which costs tokens
    and tells the model nothing, unless it is to be ``coded``."""
    if not coded and not _LIKE_A_FENCE.search(text):
        return f"=== RECORD\n{text}\n=== END"
    mark = hashlib.sha256(code.encode()).hexdigest()[:8]
    while mark in text:
        mark = hashlib.sha256(mark.encode()).hexdigest()[:8]
    return f"=== RECORD {mark}\n{text}\n=== END {mark}"


def describe(schema: Mapping[str, Any]) -> str:
    """The fields of an object schema as an indented list: ``- name: type  # description``."""
    return "\n".join(_fields(schema, indent=""))


def _fields(schema: Mapping[str, Any], *, indent: str) -> list[str]:
    lines: list[str] = []
    for name, one in schema.get("properties", {}).items():
        note = str(one.get("description") or _branch(one).get("description") or "").strip()
        comment = f"  # {' '.join(note.split())}" if note else ""
        lines.append(f"{indent}- {orjson.dumps(name).decode()}: {type_words(one)}{comment}")
        nested = _nested(one)
        if nested is not None:
            lines.extend(_fields(nested, indent=indent + "  "))
    return lines


def type_words(schema: Mapping[str, Any]) -> str:
    """A field's type in a few words, such as ``one of "a", "b", or null`` or ``list of object``."""
    if "const" in schema:
        return orjson.dumps(schema["const"]).decode()
    if "enum" in schema:
        return "one of " + ", ".join(orjson.dumps(value).decode() for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            words = list(dict.fromkeys(type_words(branch) for branch in schema[key]))
            if "null" in words:
                words.remove("null")
                words.append("null")
            return " or ".join(words)
    kind = schema.get("type")
    if isinstance(kind, list):
        words = [type_words({**schema, "type": one}) for one in kind]
        return " or ".join(sorted(words, key=lambda word: word == "null"))
    if kind == "array":
        items = schema.get("items")
        return f"list of {type_words(items)}" if isinstance(items, Mapping) else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, Mapping) and not schema.get("properties"):
            return f"object of name to {type_words(values)}"
        return "object"
    if kind == "string":
        if is_verbatim(schema):
            return "string copied word for word"
        named = {"date": "date YYYY-MM-DD", "date-time": "date-time ISO 8601", "time": "time HH:MM:SS"}
        form = str(schema.get("format") or "")
        return named.get(form) or (f"{form} string" if form in ("uuid", "email", "uri", "duration") else "string")
    if kind == "boolean":
        return "true or false"
    return str(kind) if kind else "any value"


def _branch(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first branch of a union that is not null, or the schema itself."""
    for key in ("anyOf", "oneOf"):
        for branch in schema.get(key, ()):
            if branch.get("type") != "null":
                return dict(branch)
    return schema


def _nested(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object schema whose fields should be listed below a field, through unions and lists."""
    inner = _branch(schema)
    if inner.get("properties"):
        return inner
    for key in ("items", "additionalProperties"):
        if isinstance(inner.get(key), Mapping):
            return _nested(inner[key])
    return None


def _keys(paths: Sequence[str]) -> str:
    return ", ".join(orjson.dumps(path).decode() for path in dict.fromkeys(paths))


def _problem_line(problem: FieldProblem) -> str:
    where = orjson.dumps(problem.path).decode() if problem.path else "the whole answer"
    gave = f" You gave {_clip(problem.value)}." if problem.value is not None else ""
    return f"- {where}: {_clip(problem.message)}.{gave}"


def _clip(text: str) -> str:
    flat = " ".join(text.split()).rstrip(".")
    return flat if len(flat) <= _MOST_CHARACTERS else flat[: _MOST_CHARACTERS - 1] + "…"
