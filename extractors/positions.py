"""Where each leaf of a JSON text stands in it, by its path."""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]

from schemas.pointers import escape

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r"[-+0-9.eE]+|true|false|null")

Span = tuple[int, int]


def leaf_spans(text: str, start: int = 0, *, pointers: bool = False) -> dict[str, Span]:
    """Start and end, in code points of ``text``, of every leaf of the object or list that begins at ``start``;
    strings without their quotes. Paths are JSON Pointers without the leading slash; with ``pointers`` the
    outermost keys are pointers already, as a correction's are. Empty for what is no JSON."""
    found: dict[str, Span] = {}
    try:
        _value(text, _past_space(text, start), "", found, pointers=pointers)
    except (ValueError, IndexError, RecursionError):
        return {}
    return found


def _value(text: str, at: int, path: str, found: dict[str, Span], *, pointers: bool = False) -> int:
    """Read the value at ``at``; gives where it ends."""
    first = text[at]
    if first == "{":
        return _members(text, at + 1, path, found, pointers=pointers)
    if first == "[":
        return _items(text, at + 1, path, found)
    if first == '"':
        _, end = scanstring(text, at + 1, False)
        found[path] = (at + 1, end - 1)
        return int(end)
    match = _PLAIN.match(text, at)
    if match is None:
        raise ValueError(f"no JSON value at {at}")
    found[path] = match.span()
    return match.end()


def _members(text: str, at: int, path: str, found: dict[str, Span], *, pointers: bool) -> int:
    at = _past_space(text, at)
    while text[at] != "}":
        if text[at] != '"':
            raise ValueError(f"no key at {at}")
        key, at = scanstring(text, at + 1, False)
        step = key if pointers else escape(key)
        at = _past_space(text, at)
        if text[at] != ":":
            raise ValueError(f"no colon at {at}")
        at = _past_space(text, at + 1)
        at = _past_space(text, _value(text, at, f"{path}/{step}" if path else step, found))
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return at + 1


def _items(text: str, at: int, path: str, found: dict[str, Span]) -> int:
    at = _past_space(text, at)
    place = 0
    while text[at] != "]":
        at = _past_space(text, _value(text, at, f"{path}/{place}" if path else str(place), found))
        place += 1
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return at + 1


def _past_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
