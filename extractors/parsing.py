"""From a reply's text to JSON: fences, thinking text, prose around it, and answers that were cut off.

Nothing is repaired in silence: a text that had to be unwrapped is marked, a text that is not JSON is
asked for again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.pointers import leaves

THINKING_END = "</think>"
_FENCE = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\r?\n?(.*?)```", re.DOTALL)
_REFUSAL = re.compile(
    r"^\W*(i['’]?m (very )?sorry|sorry[,.]|i (can['’]?t|cannot|am unable|am not able)|as an ai\b|抱歉|对不起|很抱歉|我无法|我不能)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply's text, read. ``json`` is the JSON text of one object, or None with ``problem`` saying why;
    ``unwrapped`` says that something around it had to be removed."""

    json: str | None
    unwrapped: bool = False
    problem: str = ""
    truncated: bool = False
    refusal: bool = False


def read_answer(text: str, *, finish_reason: str = "stop") -> Answer:
    """Find the one JSON object in ``text``. Never raises."""
    cut_off = finish_reason in ("length", "cut")
    stripped = text.strip()
    if _is_object(stripped):
        return Answer(stripped, unwrapped=False)
    if THINKING_END in stripped:
        stripped = stripped.rpartition(THINKING_END)[2].strip()
        if _is_object(stripped):
            return Answer(stripped, unwrapped=True)
    elif stripped.startswith("<think>"):
        return Answer(None, problem="it was thinking text without an answer", truncated=cut_off)
    for fenced in reversed(_FENCE.findall(stripped)):
        if _is_object(fenced.strip()):
            return Answer(fenced.strip(), unwrapped=True)
    if (found := _object_within(stripped)) is not None:
        return Answer(found, unwrapped=True)
    if finish_reason == "loop":
        return Answer(None, problem="it went in circles and was stopped")
    if cut_off:
        where = "at the output limit" if finish_reason == "length" else "when the connection was lost"
        return Answer(None, problem=f"it was cut off {where}", truncated=True)
    if not stripped:
        return Answer(None, problem="it was empty")
    if stripped[0] in "[{" or stripped.startswith("```"):
        return Answer(None, problem=_json_error(stripped))
    return Answer(None, problem="it was not a JSON object", refusal=_REFUSAL.match(stripped) is not None)


def loads_exact(text: str) -> Any:
    """JSON to Python without loss: floats and integers past 64 bits stay as their own digits
    (``orjson.Fragment``), so that ``dumps_exact`` gives the same numbers back.

    Raises ``ValueError`` for what is not JSON; NaN and Infinity are not.
    """
    return EXACT.decode(text)


def dumps_exact(value: Any) -> str:
    """The JSON text of what ``loads_exact`` gave, compact. Lone surrogates stay as escapes."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return _spelt(value)


def _digits(text: str) -> orjson.Fragment:
    return orjson.Fragment(text)


def _integer(text: str) -> int | orjson.Fragment:
    return int(text) if len(text) < 19 else orjson.Fragment(text)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _spelt(value: Any) -> str:
    """JSON text by the standard library, which knows lone surrogates but not fragments: those keep their digits."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_spelt(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spelt, value)) + "]"
    return orjson.dumps(value).decode() if isinstance(value, orjson.Fragment) else json.dumps(value)


def _is_object(text: str) -> bool:
    if not (text.startswith("{") and text.endswith("}")):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _is_object_by_stdlib(text)
    # Only an answer with many brackets can nest too deeply for what is done with it later.
    return text.count("[") + text.count("{") < _MANY_BRACKETS or _can_be_written(text)


def _can_be_written(text: str) -> bool:
    try:
        dumps_exact(loads_exact(text))
    except RecursionError:
        return False
    return True


def _is_object_by_stdlib(text: str) -> bool:
    """orjson refuses lone-surrogate escapes and numbers beyond a 64-bit float, which are legal JSON text; the standard
    library reads them."""
    if "\\u" not in text and not _LARGE.search(text):
        return False
    try:
        loads_exact(text)
    except (ValueError, RecursionError):
        return False
    return True


def beyond_floats(text: str) -> Iterator[tuple[str, str]]:
    """The numbers of a JSON text that no 64-bit float holds (1e400): JSON Pointers without their leading slash, and
    the digits. Pydantic reads them as infinity."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        for path, number in leaves(json.loads(text, parse_float=_Digits, parse_int=_Digits)):
            if isinstance(number, _Digits) and math.isinf(float(number)):
                yield path, str(number)


def repeats_a_key(text: str) -> bool:
    """Whether an object of a JSON text has a key twice: whoever reads it takes the last one."""
    if _as_many_keys(text):
        return False
    found = False

    def noted(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({key for key, _ in pairs}) < len(pairs)

    json.loads(text, object_pairs_hook=noted, parse_int=str)
    return found


def joined_keys(text: str) -> str | None:
    """A JSON text in which an object has a key twice, with one for each (``joined``). None where none is there twice, or the
    text is not JSON."""
    twice = False

    def whole(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        found: dict[str, Any] = {}
        for key, value in pairs:
            twice = twice or key in found
            found[key] = joined(found[key], value) if key in found else value
        return found

    try:
        if _as_many_keys(text):
            return None
        reader = json.JSONDecoder(
            object_pairs_hook=whole, parse_float=_digits, parse_int=_integer, parse_constant=_no_constant
        )
        found = reader.decode(text)
        return dumps_exact(found) if twice else None
    except (ValueError, RecursionError):
        return None


def joined(first: Any, again: Any) -> Any:
    """What was written under a key, and again: of lists the items of both, of objects the members, else the first that is
    not null."""
    if isinstance(first, list) and isinstance(again, list):
        # Numbers that keep their digits are equal only as text.
        there = {dumps_exact(one) for one in first}
        return [*first, *(one for one in again if dumps_exact(one) not in there)]
    if isinstance(first, dict) and isinstance(again, dict):
        return first | {key: joined(first[key], value) if key in first else value for key, value in again.items()}
    return again if first is None else first


def _as_many_keys(text: str) -> bool:
    """Whether as many keys were read as are written: a quote before a colon ends a key, or stands in a string after a
    backslash. False where that must be looked at closely."""
    try:
        return text.count('":') + text.count('" :') == _keys(orjson.loads(text))
    except orjson.JSONDecodeError:
        return False


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_keys(one) for one in value.values() if isinstance(one, dict | list))
    if isinstance(value, list):
        return sum(_keys(one) for one in value if isinstance(one, dict | list))
    return 0


class _Digits(str):
    """A number as it is written."""

    __slots__ = ()


_LARGE = re.compile(r"\d[eE]\+?\d{3}|\d{309}")
_MANY_BRACKETS = 200
EXACT = json.JSONDecoder(parse_float=_digits, parse_int=_integer, parse_constant=_no_constant)
"""The reader behind ``loads_exact``."""


def _object_within(text: str) -> str | None:
    """The first whole JSON object that stands in prose. An object that the text ends inside of is no
    object, and neither is one nested in it: an inner object must never pass for a cut-off answer."""
    if text[:1] in ("{", "["):
        return None
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    start = text.find("{")
    for _ in range(50):
        if start < 0:
            return None
        try:
            value, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
                return None
            start = text.find("{", start + 1)
            continue
        except (ValueError, RecursionError):
            return None
        return text[start:end] if isinstance(value, dict) and value else None
    return None


def _json_error(text: str) -> str:
    try:
        value = loads_exact(text)
    except RecursionError:
        return "its JSON is nested too deeply"
    except ValueError as error:
        return f"it was not valid JSON ({error})"
    if not _can_be_written(text):
        return "its JSON is nested too deeply"
    return f"it was a JSON {type(value).__name__}, not an object"
