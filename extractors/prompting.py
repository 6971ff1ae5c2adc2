"""Prompts: versioned text files, the schema in the model's words, the record fenced as data.

The system message is the same for every record of a recipe and comes first, so that its prefix is
computed once; the record is the user message, and a correction only adds lines after it, so that the
record's own prefix is reused as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import orjson

from extractors.qwen.requests import Message
from schemas.outcomes import FieldProblem

VERSION = "v1"
_MOST_PROBLEMS = 12
_MOST_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """The three texts of one prompt version, as read from ``extractors/prompts``."""

    version: str
    extract: str
    correct: str
    reask: str


def load_texts(version: str = VERSION) -> PromptTexts:
    """Read a prompt version's files. Raises ``FileNotFoundError`` for an unknown version."""
    folder = files("extractors") / "prompts"
    extract, correct, reask = (
        (folder / f"{name}.{version}.txt").read_text(encoding="utf-8").strip()
        for name in ("extract", "correct", "reask")
    )
    return PromptTexts(version=version, extract=extract, correct=correct, reask=reask)


class Prompter:
    """Makes the messages of one recipe's requests."""

    def __init__(self, texts: PromptTexts, schema: Mapping[str, Any], *, instructions: str = "") -> None:
        self.texts = texts
        extra = "\n".join(f"- {line.strip()}" for line in instructions.splitlines() if line.strip())
        system = texts.extract.replace("{{fields}}", describe(schema)).replace("{{instructions}}", extra).rstrip()
        self.system = Message("system", system)

    def extract(self, text: str, *, code: str) -> tuple[Message, ...]:
        """The first question about a record. ``code`` seeds the fence; see ``fence``."""
        return (self.system, Message("user", fence(text, code=code)))

    def correct(self, text: str, problems: Sequence[FieldProblem], *, code: str) -> tuple[Message, ...]:
        """Ask again for the failing paths only. Bounded: at most 12 problems of 240 characters each,
        and nothing of earlier attempts but the last values."""
        shown = problems[:_MOST_PROBLEMS]
        lines = "\n".join(_problem_line(problem) for problem in shown)
        keys = ", ".join(orjson.dumps(path).decode() for path in dict.fromkeys(p.path for p in shown))
        tail = self.texts.correct.replace("{{keys}}", keys).replace("{{problems}}", lines)
        return (self.system, Message("user", f"{fence(text, code=code)}\n\n{tail}"))

    def reask(self, text: str, problem: str, *, code: str) -> tuple[Message, ...]:
        """Ask for the whole answer again, saying in one line what was wrong with the last."""
        tail = self.texts.reask.replace("{{problem}}", _clip(problem))
        return (self.system, Message("user", f"{fence(text, code=code)}\n\n{tail}"))


def correctable(problems: Sequence[FieldProblem]) -> Sequence[FieldProblem]:
    """The problems that one correction asks about (the first 12)."""
    return problems[:_MOST_PROBLEMS]


def fence(text: str, *, code: str) -> str:
    """The record between two lines that it cannot forge: their code is hashed from ``code``, and hashed
    again while the text happens to contain it."""
    mark = hashlib.sha256(code.encode()).hexdigest()[:8]
    while mark in text:
        mark = hashlib.sha256(mark.encode()).hexdigest()[:8]
    return f"=== RECORD {mark}\n{text}\n=== END {mark}"


def describe(schema: Mapping[str, Any]) -> str:
    """The fields of an object schema as an indented list: ``- name: type  # description``."""
    return "\n".join(_fields(schema, indent=""))


def _fields(schema: Mapping[str, Any], *, indent: str) -> list[str]:
    lines: list[str] = []
    for name, field in schema.get("properties", {}).items():
        note = str(field.get("description") or _branch(field).get("description") or "").strip()
        comment = f"  # {' '.join(note.split())}" if note else ""
        lines.append(f"{indent}- {orjson.dumps(name).decode()}: {type_words(field)}{comment}")
        nested = _nested(field)
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


def _problem_line(problem: FieldProblem) -> str:
    where = orjson.dumps(problem.path).decode() if problem.path else "the whole answer"
    gave = f" You gave {_clip(problem.value)}." if problem.value is not None else ""
    return f"- {where}: {_clip(problem.message)}.{gave}"


def _clip(text: str) -> str:
    flat = " ".join(text.split()).rstrip(".")
    return flat if len(flat) <= _MOST_CHARACTERS else flat[: _MOST_CHARACTERS - 1] + "…"
