"""A GBNF grammar for an answer's JSON Schema that leaves no room to pretty-print.

llama.cpp's own converter lets the model indent and leaves numbers and strings without an end; here the answer is
one line, properties come in the schema's order or that of the text, and a small model that loops inside a number or a string is
stopped by the grammar.

One space may follow a colon or a comma. Forbidding it looks cheaper and is wrong: ``":"`` and ``":`` are two tokens,
the model picks between them by habit before it thinks of the value, and after the second it can only go on with
`` "`` (space, quote). Without that, the best of what is left is ``null``: the 0.5B wrote 27 nulls into 30 receipts,
the 1.5B 33 into 15, and with the space neither wrote one (``docs/local-model.md``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from extractors.errors import SchemaError
from extractors.qwen.span_grammar import SPAN
from schemas.pointers import unescape
from schemas.verbatim import KEY as VERBATIM

LONGEST_STRING = 2000
"""Characters of a string without ``maxLength``. llama.cpp refuses repetitions above 2,000. A string of exactly
this length was cut by the grammar."""

_COLON = '":" " "?'
_COMMA = '"," " "?'
_PRIMITIVES = {
    # Non-ASCII is written raw, so \u is not needed, and without it neither NUL nor a lone surrogate can appear.
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" ["\\/nt]',
    "string": rf'"\"" char{{0,{LONGEST_STRING}}} "\""',
    "key": r'"\"" char{1,200} "\""',
    "natural": '"0" | [1-9] [0-9]{0,18}',
    "integer": '"-"? natural',
    "positive-number": 'natural ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "number": '"-"? positive-number',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "day": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])',
    "clock": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})?',
    "zone": '"Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]',
    "date": r'"\"" day "\""',
    "time": r'"\"" clock zone? "\""',
    "date-time": r'"\"" day "T" clock zone? "\""',
    "span-clock": '"T" ([0-9]{1,6} "H" ([0-9]{1,6} "M")? (seconds "S")? | [0-9]{1,6} "M" (seconds "S")? | seconds "S")',
    "seconds": '[0-9]{1,9} ("." [0-9]{1,6})?',
    "duration": r'"\"" "-"? "P" ([0-9]{1,9} "D" span-clock? | span-clock) "\""',
    "hex": "[0-9a-fA-F]",
    "uuid": r'"\"" hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12} "\""',
    "value": "object | array | string | number | boolean | null",
    "object": f'"{{" (key {_COLON} value ({_COMMA} key {_COLON} value)*)? "}}"',
    "array": f'"[" (value ({_COMMA} value)*)? "]"',
}
_FORMATS = ("date", "time", "date-time", "duration", "uuid")
_NAME = "abcdefghijklmnopqrstuvwxyz-"


def compact_grammar(
    schema: Mapping[str, Any], *, spans: Mapping[str, str] | None = None, text_order: bool = False
) -> str:
    """GBNF for the JSON values of ``schema``, one rule a line, the first being ``root``.

    Kept: types and unions, enum and const, property order, required and optional, closed objects, maps, lists
    with minItems and maxItems, tuples, minLength and maxLength, the formats date, time, date-time, duration and
    uuid, the sign of numbers, local ``$ref``. Left to validation: ``pattern``, other bounds and formats,
    ``uniqueItems``. An object without ``properties`` and ``additionalProperties`` is empty.
    ``spans`` are the rules of ``span_grammar.span_rules`` for the record's text: with them a string marked
    ``x-verbatim`` can be nothing but a span of it, whose minLength and maxLength are left to validation too.
    With ``text_order`` an object of which two or more properties may be left out has those that must be there in the
    schema's order, and then any others in any order; a grammar cannot forbid one that was written already, only that
    there are more than there are properties.
    Raises ``SchemaError`` for a schema that no value fits or a ``$ref`` that leads nowhere.
    """
    return _Writer(schema, spans or {}, text_order=text_order).text()


class _Writer:
    def __init__(self, schema: Mapping[str, Any], spans: Mapping[str, str], *, text_order: bool) -> None:
        self._text_order = text_order
        self._schema = schema
        self._spans = spans
        self._rules: dict[str, str] = {}
        self._references: dict[str, str] = {}

    def text(self) -> str:
        self._rules["root"] = ""
        self._rules["root"] = self._value(self._schema)
        self._rules.update(self._spans)
        return "".join(f"{name} ::= {body}\n" for name, body in self._rules.items())

    def _value(self, schema: Any) -> str:
        """An expression for one value, safe to put in a sequence."""
        if schema is True or schema == {}:
            return self._primitive("value")
        if not isinstance(schema, Mapping):
            raise SchemaError(f"no value fits the schema {json.dumps(schema)}: a grammar cannot be made for it")
        if "$ref" in schema:
            return self._reference(str(schema["$ref"]))
        if "const" in schema:
            return _literal(schema["const"])
        if "enum" in schema:
            return _either([_literal(value) for value in schema["enum"]])
        if "allOf" in schema:
            return self._value(self._merged(schema))
        for key in ("anyOf", "oneOf"):
            if key in schema and "properties" not in schema:
                return _either([self._value(branch) for branch in _branches(schema[key])])
        kind = schema.get("type")
        if isinstance(kind, list):
            return _either([self._value({**schema, "type": one}) for one in kind])
        if kind == "object" or "properties" in schema:
            return self._object(schema)
        if kind == "array" or "items" in schema or "prefixItems" in schema:
            return self._array(schema)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            return self._number(schema, integral=kind == "integer")
        if kind in ("boolean", "null"):
            return self._primitive(kind)
        if kind is None:
            return self._primitive("value")
        raise SchemaError(f"{kind!r} is not a JSON Schema type: use string, number, integer, boolean, array or object")

    def _object(self, schema: Mapping[str, Any]) -> str:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        if not properties:
            return self._map(schema.get("additionalProperties", False))
        required = set(schema.get("required", ()))
        members = [
            (f"{_literal(name)} {_COLON} {self._value(inner)}", name in required) for name, inner in properties.items()
        ]
        if self._text_order and sum(not needed for _, needed in members) > 1:
            return self._rule(_in_any_order(members))
        first = next((index for index, (_, needed) in enumerate(members) if needed), None)
        if first is None:
            # Any of them may be the first one written, and only what follows it takes a comma.
            starts = [
                member + "".join(f" ({_COMMA} {later})?" for later, _ in members[index + 1 :])
                for index, (member, _) in enumerate(members)
            ]
            return self._rule(f'"{{" ({" | ".join(starts)})? "}}"')
        before = "".join(f"({member} {_COMMA})? " for member, _ in members[:first])
        after = "".join(
            f" {_COMMA} {member}" if needed else f" ({_COMMA} {member})?" for member, needed in members[first + 1 :]
        )
        return self._rule(f'"{{" {before}{members[first][0]}{after} "}}"')

    def _map(self, values: Any) -> str:
        if values is False:
            return '"{}"'
        pair = f"{self._primitive('key')} {_COLON} {self._value(values)}"
        return self._rule(f'"{{" ({pair} ({_COMMA} {pair})*)? "}}"')

    def _array(self, schema: Mapping[str, Any]) -> str:
        fixed: Sequence[Any] = schema.get("prefixItems") or ()
        if fixed:
            inside = f" {_COMMA} ".join(self._value(item) for item in fixed)
            return self._rule(f'"[" {inside} "]"')
        items = schema.get("items", True)
        least = int(schema.get("minItems", 0))
        most = schema.get("maxItems")
        if most is not None and int(most) < max(least, 1):
            if int(most) < least:
                raise SchemaError(f"a list of at least {least} and at most {most} items cannot exist")
            return '"[]"'
        item = self._value(items)
        times = f"{{{max(least - 1, 0)},{'' if most is None else int(most) - 1}}}"
        some = f"{item} ({_COMMA} {item}){times}"
        return self._rule(f'"[" {some} "]"' if least else f'"[" ({some})? "]"')

    def _string(self, schema: Mapping[str, Any]) -> str:
        if self._spans and schema.get(VERBATIM) is True:
            return SPAN
        form = schema.get("format")
        if form in _FORMATS:
            return self._primitive(str(form))
        least = min(int(schema.get("minLength", 0)), LONGEST_STRING)
        most = min(int(schema.get("maxLength", LONGEST_STRING)), LONGEST_STRING)
        if most < least:
            raise SchemaError(f"a string of at least {least} and at most {most} characters cannot exist")
        if (least, most) == (0, LONGEST_STRING):
            return self._primitive("string")
        return rf'"\"" {self._primitive("char")}{{{least},{most}}} "\""'

    def _number(self, schema: Mapping[str, Any], *, integral: bool) -> str:
        floor = schema.get("minimum", schema.get("exclusiveMinimum"))
        unsigned = isinstance(floor, int | float) and floor >= 0
        if integral:
            return self._primitive("natural" if unsigned else "integer")
        return self._primitive("positive-number" if unsigned else "number")

    def _reference(self, path: str) -> str:
        if path not in self._references:
            target: Any = self._schema
            for step in path.removeprefix("#/").split("/"):
                key = unescape(step)
                if not path.startswith("#/") or not isinstance(target, Mapping) or key not in target:
                    raise SchemaError(f"$ref {path!r} leads nowhere in the schema: only its own #/$defs can be meant")
                target = target[key]
            # The name stands before its rule is written, so that a recursive model ends here.
            name = self._references[path] = self._fresh(path.rsplit("/", 1)[-1])
            self._rules[name] = self._value(target)
        return self._references[path]

    def _merged(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        whole = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            for key, value in part.items():
                if key == "properties":
                    whole[key] = {**whole.get(key, {}), **value}
                elif key == "required":
                    whole[key] = [*whole.get(key, []), *value]
                else:
                    whole.setdefault(key, value)
        return whole

    def _primitive(self, name: str) -> str:
        if name not in self._rules:
            self._rules[name] = body = _PRIMITIVES[name]
            for other in _words(body):
                if other in _PRIMITIVES:
                    self._primitive(other)
        return name

    def _rule(self, body: str) -> str:
        name = self._fresh("part")
        self._rules[name] = body
        return name

    def _fresh(self, wish: str) -> str:
        base = "".join(letter for letter in wish.lower() if letter in _NAME).strip("-") or "part"
        number = 1
        while f"{base}-{number}" in self._rules:
            number += 1
        return f"{base}-{number}"


def _in_any_order(members: Sequence[tuple[str, bool]]) -> str:
    """The body of an object: what must be there in its order, then any of what may be left out."""
    needed = f" {_COMMA} ".join(member for member, needed in members if needed)
    free = [member for member, needed in members if not needed]
    one = f"({' | '.join(free)})"
    if needed:
        return f'"{{" {needed} ({_COMMA} {one}){{0,{len(free)}}} "}}"'
    return f'"{{" ({one} ({_COMMA} {one}){{0,{len(free) - 1}}})? "}}"'


def _branches(branches: Sequence[Any]) -> list[Any]:
    """The branches of a union. A decimal is a number or a string of digits in JSON Schema; the string branch only
    repeats the number, and its pattern cannot be held, so it is left out."""
    kinds = {branch.get("type") for branch in branches if isinstance(branch, Mapping)}
    if kinds & {"number", "integer"}:
        return [
            one
            for one in branches
            if not (isinstance(one, Mapping) and one.get("type") == "string" and "pattern" in one)
        ]
    return list(branches)


def _either(expressions: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(expressions))
    if not distinct:
        raise SchemaError("an enum or a union without choices fits no value")
    return distinct[0] if len(distinct) == 1 else f"({' | '.join(distinct)})"


def _literal(value: Any) -> str:
    """A GBNF string that stands for a value's shortest JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\x{ord(c):02X}" if ord(c) < 32 or ord(c) == 127 else c for c in escaped) + '"'


def _words(body: str) -> list[str]:
    """The rule names that a body refers to: words outside quotes and brackets."""
    words: list[str] = []
    word = ""
    closing = ""
    skip = False
    for letter in body + " ":
        if skip:
            skip = False
        elif closing:
            skip = letter == "\\"
            closing = "" if letter == closing else closing
        elif letter in _NAME:
            word += letter
        else:
            if word.strip("-"):
                words.append(word)
            word = ""
            closing = {'"': '"', "[": "]"}.get(letter, "")
    return words
