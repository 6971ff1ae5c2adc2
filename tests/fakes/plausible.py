"""Answers made from a request's schema: typed values, taken from the record's words where they fit, seeded."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from typing import Any

from tests.fakes.asked import Asked, key
from tests.fakes.capabilities import DOCUMENTED, capability_of
from tests.fakes.schema_texts import schema_in
from tests.fakes.told import Reply

_RECORD = re.compile(r"=== RECORD((?: \w+)?)\n(.*)\n=== END\1$", re.DOTALL | re.MULTILINE)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_NUMBER = re.compile(r"(?<![\w.])\d{1,9}(?:\.\d+)?(?![\w.])")
_DATE = re.compile(r"\b\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d)\b")
_DEEPEST = 6
_HINTS = {"email": "email", "currency": "currency", "date": "date"}
_FIXED = {
    "time": "12:00:00",
    "uri": "https://example.org/",
    "duration": "PT1H",
    "currency": "EUR",
}
_CODES = ("EUR", "USD", "DE", "en", "A-1001", "0000", "1", "x")


class Plausible:
    """An answer function: the same question, the same answer. ``nulls`` is the share of nulls where allowed."""

    def __init__(self, seed: int = 0, *, nulls: float = 0.1, pace: float = 0.0) -> None:
        self._seed, self._nulls, self._pace = seed, nulls, pace

    def __call__(self, asked: Asked) -> Reply:
        draw = random.Random(f"{self._seed}/{hashlib.blake2b(key(asked), digest_size=12).hexdigest()}")
        schema = asked.schema or schema_in(asked.words)
        last = asked["messages"][-1]["content"]
        found = _RECORD.search(last)
        values = _Values(draw, found[2] if found else last, self._nulls, schema or {})
        if asked.get("tools") and asked.get("tool_choice") == "auto":
            return self._looking_up(asked, values)
        if schema is None:
            return Reply(values.phrase(12).capitalize() + ".", pace=self._pace, thinking=_thought(asked))
        answer = json.dumps(values.of(schema), ensure_ascii=False, separators=(",", ":"))
        return Reply(answer, pace=self._pace, thinking=_thought(asked))

    def _looking_up(self, asked: Asked, values: _Values) -> Reply:
        """A call of each function with the record's words, and no more once there are results."""
        if asked["messages"][-1]["role"] == "tool":
            return Reply("DONE", pace=self._pace, thinking=_thought(asked))
        functions = [tool["function"] for tool in asked["tools"]]
        calls = tuple((one["name"], json.dumps(values.of(one.get("parameters") or {}))) for one in functions)
        return Reply(None, pace=self._pace, thinking=_thought(asked), calls=calls)


def _thought(asked: Asked) -> str | None:
    ability = capability_of(asked["model"], DOCUMENTED)
    thinks = ability.thinks(asked) if ability else asked.thinking
    return "The record gives the values; I copy them as they are written." if thinks else None


class _Values:
    """Values for one record."""

    def __init__(self, draw: random.Random, text: str, nulls: float, root: Mapping[str, Any]) -> None:
        self._draw, self._nulls, self._root = draw, nulls, root
        self._text = text
        self._words = re.findall(r"[^\s,;:()\"]+", text) or ["nothing"]

    def of(self, schema: Mapping[str, Any], *, depth: int = 0, name: str = "") -> Any:
        """A value of the schema; the field's name tells e-mail addresses and currencies from other strings."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._draw.choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.of(self._branch(schema[union], depth), depth=depth, name=name)
        kind = schema.get("type")
        if isinstance(kind, list):
            return self.of({**schema, **self._branch([{"type": one} for one in kind], depth)}, depth=depth, name=name)
        if kind == "object" or "properties" in schema:
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        if kind == "boolean":
            return self._draw.random() < 0.5
        return None if kind == "null" else self._string(schema, name)

    def phrase(self, most: int = 3) -> str:
        """Some neighbouring words of the record, as it writes them."""
        size = self._draw.randint(1, min(most, len(self._words)))
        at = self._draw.randrange(len(self._words) - size + 1)
        # Between its first and its last word the record may have punctuation: then the first word alone.
        found = re.search(r"\s".join(map(re.escape, self._words[at : at + size])), self._text)
        return found[0] if found else self._words[at]

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        place = schema.get("$ref")
        if not isinstance(place, str) or not place.startswith("#/"):
            return schema
        found: Any = self._root
        for step in place[2:].split("/"):
            found = found[step.replace("~1", "/").replace("~0", "~")]
        return self._resolved(found)

    def _branch(self, branches: list[Any], depth: int) -> Mapping[str, Any]:
        full = [one for one in branches if one.get("type") != "null"]
        empty = [one for one in branches if one.get("type") == "null"]
        if empty and (not full or depth >= _DEEPEST or self._draw.random() < self._nulls):
            return dict(empty[0])
        return dict(self._draw.choice(full))

    def _object(self, schema: Mapping[str, Any], depth: int) -> Any:
        properties = schema.get("properties") or {}
        made = {name: self.of(inner, depth=depth + 1, name=name) for name, inner in properties.items()}
        more = schema.get("additionalProperties")
        if not made and isinstance(more, Mapping):
            made = {self.phrase(1): self.of(more, depth=depth + 1) for _ in range(self._draw.randint(0, 2))}
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = max(least, min(schema.get("maxItems", 3), 3))
        size = least if depth >= _DEEPEST else self._draw.randint(least, most)
        items: list[Any] = []
        for _ in range(size):
            value = self.of(schema.get("items") or {"type": "string"}, depth=depth + 1)
            if not (schema.get("uniqueItems") and value in items):
                items.append(value)
        return items

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> int | float:
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1000))
        seen = [float(one) for one in _NUMBER.findall(self._text)]
        fit = [one for one in seen if low < one < high and (not whole or one.is_integer())]
        value = self._draw.choice(fit) if fit else self._draw.uniform(low, high)
        return int(value) if whole else round(value, 2)

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        form = schema.get("format") or next((kind for hint, kind in _HINTS.items() if hint in name.lower()), None)
        if form in ("date", "date-time"):
            dates = _DATE.findall(self._text)
            day = self._draw.choice(dates) if dates else f"2026-{self._draw.randint(1, 12):02}-15"
            return day if form == "date" else f"{day}T12:00:00Z"
        if form == "email":
            return next(iter(_EMAIL.findall(self._text)), "someone@example.org")
        if form == "uuid":
            return f"00000000-0000-4000-8000-{self._draw.randrange(10**12):012}"
        text = _FIXED.get(str(form)) or self._matching(schema.get("pattern")) or self.phrase()
        if len(text) < schema.get("minLength", 0):
            text = text.ljust(schema["minLength"], "x")
        return text[: schema.get("maxLength", len(text))]

    def _matching(self, pattern: str | None) -> str | None:
        """A word of the record, or a common code, that has the pattern."""
        if pattern is None:
            return None
        fit = [one for one in (*self._words, *_CODES) if re.search(pattern, one)]
        return self._draw.choice(fit) if fit else None
