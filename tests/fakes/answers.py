"""Answers that a fake model gives: computed from the record in the prompt, the same every time."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCED = re.compile(r"=== RECORD((?: \w+)?)\n(.*)\n=== END\1$", re.DOTALL | re.MULTILINE)
_EACH = re.compile(r"=== RECORD((?: \w+)?)\n(.*?)\n=== END\1$", re.DOTALL | re.MULTILINE)
_THING = re.compile(r"(?P<name>thing-\d+) costs (?P<price>\d+\.\d\d)")


def record_of(body: dict[str, Any]) -> str:
    """The record's text in a chat request's body."""
    found = _FENCED.search(body["messages"][-1]["content"])
    assert found is not None, body["messages"][-1]["content"][:200]
    return found[2]


def records_of(body: dict[str, Any]) -> list[str]:
    """The records' texts in the body of a request about several."""
    return [found[2] for found in _EACH.finditer(body["messages"][-1]["content"])]


def thing_text(number: int, *, padding: int = 0) -> str:
    """The text of record ``number`` of the made-up kind ``thing``, with ``padding`` more characters."""
    text = f"Our thing-{number:07} costs {number % 1000}.{number % 100:02} euros today."
    return text + " " + ("lorem ipsum " * (padding // 12 + 1))[:padding] if padding else text


def thing_answer(body: dict[str, Any]) -> str:
    """The right answer for a ``thing`` record: ``{"name": ..., "price": ...}``."""
    return thing_of(record_of(body))


def thing_pack(body: dict[str, Any]) -> str:
    """The right answer for one ``thing`` record, or for each of several under its number."""
    texts = records_of(body)
    if len(texts) == 1 and "the records' numbers" not in body["messages"][-1]["content"]:
        return thing_answer(body)
    return "{" + ",".join(f'"{number}":{thing_of(text)}' for number, text in enumerate(texts, start=1)) + "}"


def thing_of(text: str) -> str:
    """The right answer for a record's text."""
    found = _THING.search(text)
    if found is None:
        return '{"name":"unknown","price":null}'
    return json.dumps({"name": found["name"], "price": float(found["price"])}, separators=(",", ":"))
