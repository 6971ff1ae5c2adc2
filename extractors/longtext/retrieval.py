"""Which chunks of a long text matter for which field: queries from the schema, and rankers that score chunks.

A field's query is its name, its description, its enum's values and the names of the fields around it; the job's
instructions are a query of their own. A ``Ranker`` scores texts against queries; ``Bm25`` needs no model and is the default. Where the field's
type or words promise a date, an amount or another value with a shape, its query has a mark for that shape, and so has
every chunk in which such a value stands: BM25 then weighs shapes as it weighs words.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.pointers import below

_WORDS = re.compile(r"[^\W_]+", re.UNICODE)
_JOINED = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_STEM = 6
"""Letters of a word that count: a stemmer for many languages at once (``govern``: governs, governed, governing)."""
_B = 0.3
"""How much the length of a chunk counts against it: they are all about as long."""
_SHAPE_WEIGHT = 3
"""A shape counts as so many words: a value that is nowhere near cannot be copied."""
_STOP = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "but", "by", "e", "eg", "etc", "for", "from", "g", "he",
        "her", "his", "i", "if", "in", "into", "is", "it", "its", "not", "of", "on", "or", "our", "she",
        "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "we", "were",
        "which", "will", "with", "you", "your",
        # Words about answers, not about texts.
        "copied", "example", "exact", "format", "given", "iso", "list", "null", "number", "object",
        "otherwise", "string", "text", "value", "verbatim", "yyyy", "mm", "dd",
    }
)  # fmt: skip
_SHAPES = {
    "date": re.compile(
        r"\b(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|"
        r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+\d{1,2}(?:st|nd|rd|th)?\s*,?\s*\d{4}|"
        r"\d{1,2}(?:st|nd|rd|th)?\s+(?:day\s+of\s+)?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\s*,?\s*\d{4})"
        r"|\d{4}\s*年",
        re.IGNORECASE,
    ),
    "money": re.compile(r"[$€£¥₹]\s*\d|\b(?:usd|eur|gbp|cny|rmb|dollars|euros)\b|\d\s*[元円]", re.IGNORECASE),
    "percent": re.compile(r"\d\s*(?:%|percent|per cent|％)", re.IGNORECASE),
    "period": re.compile(
        r"(?:\d+|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|thirty|sixty|ninety))\W{1,3}(?:\(\d+\)\W{0,2})?"
        r"(?:business\s+|calendar\s+)?(?:day|week|month|year)s?\b|\d\s*(?:日|天|个月|年)",
        re.IGNORECASE,
    ),
    "email": re.compile(r"[\w.+-]+@[\w-]+\.\w"),
    "url": re.compile(r"\b(?:https?://|www\.)\w", re.IGNORECASE),
    "number": re.compile(r"\d"),
}
_HINTS = {
    "date": re.compile(r"\b(?:dates?|day|when|born|birth|deadline|yyyy)\b|日期", re.IGNORECASE),
    "money": re.compile(
        r"\b(?:price|amount|cost|fee|salary|total|revenue|income|payment|dollars|currency)\b|金额", re.IGNORECASE
    ),
    "percent": re.compile(r"\b(?:percent|percentage|rate|ratio|share)\b", re.IGNORECASE),
    "period": re.compile(r"\b(?:term|period|duration|length|notice|days|months|years)\b|期限", re.IGNORECASE),
    "email": re.compile(r"\be-?mail\b|邮箱", re.IGNORECASE),
    "url": re.compile(r"\b(?:url|website|link)\b", re.IGNORECASE),
}
_FORMATS = {"date": "date", "date-time": "date", "email": "email", "uri": "url", "duration": "period"}


@dataclass(frozen=True, slots=True)
class FieldQuery:
    """What is looked for in the place of a field: ``path`` is a JSON Pointer without its leading slash in which ``*`` is
    any item of a list; ``shapes`` are those that its values have."""

    path: str
    text: str
    shapes: tuple[str, ...] = ()


class Ranker(Protocol):
    """Scores every passage against every query, higher is better; a score below or at 0 says nothing.

    It must give the same scores for the same texts in any process, and do no IO: what it needs is loaded before."""

    def scores(self, queries: Sequence[FieldQuery], passages: Sequence[str]) -> Sequence[Sequence[float]]:
        """One row of scores for each query."""
        ...


class Bm25:
    """BM25 (Robertson & Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009) by ``bm25s``, over
    words and shapes."""

    def scores(self, queries: Sequence[FieldQuery], passages: Sequence[str]) -> Sequence[Sequence[float]]:
        """One row of scores for each query."""
        import bm25s  # type: ignore[import-untyped]

        # It sets its own loggers to DEBUG, and a line for each record says nothing.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        index = bm25s.BM25(b=_B)
        shapes = {shape for query in queries for shape in query.shapes}
        tokenised = [_terms(passage, shapes) for passage in passages]
        index.index(tokenised, show_progress=False)
        known = {word for words in tokenised for word in words}
        rows = []
        for query in queries:
            marks = [_mark(shape) for shape in query.shapes] * _SHAPE_WEIGHT
            asked = [word for word in (*dict.fromkeys(words_of(query.text)), *marks) if word in known]
            rows.append([float(score) for score in index.get_scores(asked)] if asked else [0.0] * len(passages))
        return rows


def _terms(passage: str, shapes: Collection[str]) -> list[str]:
    marks = [_mark(shape) for shape, pattern in _SHAPES.items() if shape in shapes and pattern.search(passage)]
    return [*words_of(passage), *marks] or [" "]


def words_of(text: str) -> list[str]:
    """The words of a text as an index has them: folded, cut to a stem, without the most common ones; of Chinese, Japanese
    and Korean each pair of neighbours."""
    found: list[str] = []
    for match in _WORDS.finditer(_JOINED.sub(" ", text)):
        word = match.group().casefold()
        if word.isascii():
            if word not in _STOP:
                found.append(word if word[0].isdigit() else _stem(word))
            continue
        rest = word
        for run in _CJK.findall(word):
            found.extend(run[at : at + 2] for at in range(max(1, len(run) - 1)))
            rest = rest.replace(run, " ")
        found.extend(part[:_STEM] for part in rest.split())
    return found


def _stem(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word[:_STEM]


def field_queries(schema: Mapping[str, Any], *, instructions: str = "") -> tuple[FieldQuery, ...]:
    """A query for each field that has a value of its own, in the order of the schema, and one for the instructions."""
    found = tuple(_queries(schema, "", (), ""))
    return (*found, FieldQuery("", instructions)) if words_of(instructions) else found


def _queries(schema: Mapping[str, Any], path: str, names: tuple[str, ...], note: str) -> Iterator[FieldQuery]:
    inner = _branch(schema)
    if inner.get("properties"):
        for name, each in inner["properties"].items():
            about = str(each.get("description") or _branch(each).get("description") or "")
            yield from _queries(each, below(path, name), (*names, name), about)
        return
    for key in ("items", "additionalProperties"):
        if isinstance(inner.get(key), Mapping):
            note = note or str(inner[key].get("description") or "")
            yield from _queries(inner[key], f"{path}/*" if _nested(inner[key]) else path, names, note)
            return
    choices = " ".join(str(value) for value in inner.get("enum", ()) if isinstance(value, str))
    words = " ".join(part for part in (*names, note, choices) if part)
    yield FieldQuery(path, words, tuple(_shapes_of(inner, f"{' '.join(names)} {note}")))


def _shapes_of(schema: Mapping[str, Any], words: str) -> Iterator[str]:
    kinds = schema.get("type")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
    form = _FORMATS.get(str(schema.get("format") or ""))
    spaced = _JOINED.sub(" ", words)
    found = {shape for shape, hint in _HINTS.items() if hint.search(spaced)}
    if form is not None:
        found = {form}
    if "enum" in schema or "boolean" in kinds:
        return
    if kinds & {"number", "integer"}:
        found = (found & {"money", "percent"}) | {"number"}
    yield from (shape for shape in _SHAPES if shape in found)


def _mark(shape: str) -> str:
    # No word has a blank.
    return f"{shape} "


def _nested(schema: Mapping[str, Any]) -> bool:
    return bool(_branch(schema).get("properties"))


def _branch(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first branch of a union that is not null, or the schema itself."""
    for key in ("anyOf", "oneOf"):
        for branch in schema.get(key, ()):
            if branch.get("type") != "null":
                return {**branch, **({"description": schema["description"]} if "description" in schema else {})}
    return schema
