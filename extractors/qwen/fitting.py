"""Makes a JSON Schema fit for a structured-output mode, without refusing anything that it allows.

What a mode does not take is said in words instead, in the ``description`` of its place; validation still
holds the whole schema. References are written out, and recursive ones end at a fixed depth in a place
without fields of its own.

A fitted schema asks for *canonical* answers: objects are closed, and a property that may be null or an
empty list is required, since strict decoders want it so and models forget less that way. For every value
that the original allows, its canonical form is allowed by the fitted schema (a property test).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from schemas.pointers import unescape

DEEPEST = 3
"""How often a recursive reference is written out."""
_CORE = frozenset({"type", "properties", "required", "items", "additionalProperties", "anyOf", "enum", "description"})
SEEN_ACCEPTED = ("maxItems", "minItems")
"""Keywords beyond the core that the hosted strict mode was seen to accept. ``uniqueItems``, ``contains`` and
their kin were refused with a 400, ``maxLength`` was accepted and not enforced, and of the others nothing is
established (``docs/models.md``)."""
_DROPPED = frozenset(
    [
        "title",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "$comment",
        "$schema",
        "$id",
        "$anchor",
        "$defs",
        "definitions",
    ]
)
"""Keywords that constrain nothing, or that the fitting itself takes care of."""
_BRANCHES = ("anyOf", "oneOf", "allOf")
_MOST_WORDS = 160


def inlined(schema: Mapping[str, Any], *, deepest: int = DEEPEST) -> dict[str, Any]:
    """The schema with its local ``$ref`` written out. A reference inside of itself is written out ``deepest``
    times; the next one keeps the type of what it means and loses the rest. A reference that leads nowhere,
    or outside of the document, allows any value."""

    def resolve(reference: str) -> Any:
        target: Any = schema
        if not reference.startswith("#"):
            return {}
        for step in reference.removeprefix("#").strip("/").split("/") if reference != "#" else []:
            key = unescape(step)
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, Sequence) and not isinstance(target, str) and key.isdigit():
                target = target[int(key)] if int(key) < len(target) else {}
            else:
                return {}
        return target

    def write_out(node: Any, opened: tuple[str, ...]) -> Any:
        if not isinstance(node, Mapping):
            return node
        reference = node.get("$ref")
        rest = {
            key: _mapped(key, value, lambda inner: write_out(inner, opened))
            for key, value in node.items()
            if key not in ("$ref", "$defs", "definitions")
        }
        if not isinstance(reference, str):
            return rest
        target = resolve(reference)
        if opened.count(reference) >= deepest:
            name = reference.rpartition("/")[2] or "the whole"
            cut = {key: target[key] for key in ("type",) if isinstance(target, Mapping) and key in target}
            return {**cut, "description": f"again as {name} above", **rest}
        whole = write_out(target, (*opened, reference))
        if not isinstance(whole, Mapping):
            return rest or whole
        own = {"description": rest["description"]} if "description" in rest else {}
        return {**_joined([dict(whole), rest]), **own}

    result = write_out(schema, ())
    return result if isinstance(result, dict) else {}


def fitted(
    schema: Mapping[str, Any], keywords: Sequence[str] = SEEN_ACCEPTED, *, omit_nulls: bool = False
) -> dict[str, Any]:
    """The schema for a strict mode that takes the core keywords and ``keywords``; the rest is in words. With
    ``omit_nulls`` no property is required that may be null or an empty list."""
    made = _fit(inlined(schema), frozenset(keywords) | _CORE)
    if omit_nulls:
        made = _relaxed(made)
    return made if isinstance(made, dict) else {}


def may_be_left_out(schema: Mapping[str, Any]) -> bool:
    """Whether a property may say nothing: be null, or an empty list."""
    return nullable(schema) or _is_list(schema)


def free_fields(schema: Mapping[str, Any]) -> list[str]:
    """The properties that an object may be without, where what says nothing is left out."""
    needed = schema.get("required", ())
    return [
        name for name, inner in schema.get("properties", {}).items() if name not in needed or may_be_left_out(inner)
    ]


def has_an_order(schema: Any) -> bool:
    """Whether an object of a schema, at any depth, may be without two or more of its properties: they have an order."""
    if not isinstance(schema, Mapping):
        return False
    inner = [each for key in ("properties", "$defs", "definitions") for each in schema.get(key, {}).values()]
    inner += [each for key in (*_BRANCHES, "prefixItems") for each in schema.get(key, ())]
    inner += [schema.get("items"), schema.get("additionalProperties")]
    return len(free_fields(schema)) > 1 or any(map(has_an_order, inner))


def _relaxed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    relaxed = {key: _mapped(key, value, _relaxed) for key, value in schema.items()}
    if "properties" in relaxed:
        relaxed["required"] = [
            name for name in schema.get("required", ()) if not may_be_left_out(schema["properties"][name])
        ]
    return relaxed


def with_words(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as it is, each place's constraints added to its description: for prompts, which show types
    and descriptions only."""
    made: dict[str, Any] = {key: _mapped(key, value, _worded) for key, value in schema.items()}
    words = list(dict.fromkeys(_words_below(schema)))
    return _described(made, words)


def _worded(schema: Any) -> Any:
    return with_words(schema) if isinstance(schema, Mapping) else schema


def nullable(schema: Mapping[str, Any]) -> bool:
    """Whether null is a value of the schema."""
    kind = schema.get("type")
    told = kind == "null" or (isinstance(kind, list) and "null" in kind)
    if kind is not None and not told:
        return False
    if "const" in schema:
        return schema["const"] is None
    if "enum" in schema:
        return None in schema["enum"]
    branches = [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ())]
    return any(nullable(branch) for branch in branches if isinstance(branch, Mapping)) if branches else told


def closed(schema: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """The object schema with every property required that may be null or an empty list, and no others allowed.
    A property with a default that is not null stays optional."""
    properties = schema.get("properties")
    if properties:
        schema["required"] = [
            name
            for name, inner in properties.items()
            if name in required or (isinstance(inner, Mapping) and (nullable(inner) or _is_list(inner)))
        ]
        schema["additionalProperties"] = False
    return schema


def _is_list(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" and not schema.get("minItems") and "enum" not in schema


def _fit(schema: Any, allowed: frozenset[str]) -> Any:
    if not isinstance(schema, Mapping):
        return {} if schema is True else schema
    if schema.get("allOf"):
        parts = [{key: value for key, value in schema.items() if key != "allOf"}, *schema["allOf"]]
        whole = _joined([dict(part) for part in parts if isinstance(part, Mapping)])
        return _fit(whole, allowed)
    made: dict[str, Any] = {}
    words: list[str] = []
    source = _without_tuples(schema, allowed)
    for key, value in source.items():
        if key in _DROPPED or key == "allOf":
            continue
        if key in allowed:
            made[key] = _mapped(key, value, lambda inner: _fit(inner, allowed))
        elif key == "const":
            made["enum"] = [value]
        elif key == "oneOf" and "anyOf" not in source:
            made["anyOf"] = [_fit(branch, allowed) for branch in value]
        else:
            words += _words(key, value)
    if "prefixItems" in schema and "prefixItems" not in allowed:
        words.append(f"exactly these in order: {', '.join(map(_kind, schema['prefixItems']))}")
    if "properties" in made:
        made["properties"] = {name: inner for name, inner in made["properties"].items() if inner is not False}
        closed(made, schema.get("required", ()))
    if "patternProperties" in schema and "patternProperties" not in allowed:
        # The names cannot be told beforehand, so the object cannot be closed.
        made.pop("additionalProperties", None)
    elif "additionalProperties" in made and made["additionalProperties"] == {}:
        made["additionalProperties"] = True
    return _described(made, words)


def _without_tuples(schema: Mapping[str, Any], allowed: frozenset[str]) -> Mapping[str, Any]:
    """A tuple as a list of what its places allow, where ``prefixItems`` is not taken."""
    places = schema.get("prefixItems")
    if not places or "prefixItems" in allowed:
        return schema
    after = schema.get("items", True)
    longest = schema.get("maxItems")
    kinds: list[Any] = [{} if one is True else one for one in places]
    if after is not False and (longest is None or longest > len(places)):
        kinds.append({} if after is True else after)
    distinct = [one for number, one in enumerate(kinds) if one not in kinds[:number]]
    items = {} if {} in distinct else distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
    rest = {key: value for key, value in schema.items() if key not in ("prefixItems", "items")}
    if after is False and longest is None:
        rest["maxItems"] = len(places)
    return {**rest, "items": items}


def _mapped(key: str, value: Any, change: Callable[[Any], Any]) -> Any:
    """A keyword's value with ``change`` made to every schema inside of it."""
    if key in ("properties", "patternProperties", "dependentSchemas") and isinstance(value, Mapping):
        return {name: change(inner) for name, inner in value.items()}
    if key in (*_BRANCHES, "prefixItems") and isinstance(value, list):
        return [change(inner) for inner in value]
    if key in ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames"):
        return change(value)
    return value


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One schema that allows at least what all the parts allow together."""
    whole: dict[str, Any] = {}
    for part in parts:
        if part.get("allOf"):
            inner = {key: value for key, value in part.items() if key != "allOf"}
            part = _joined([inner, *(dict(one) for one in part["allOf"] if isinstance(one, Mapping))])
        for key, value in part.items():
            if key == "properties":
                have = whole.setdefault(key, {})
                for name, inner in value.items():
                    have[name] = inner if name not in have else {"allOf": [have[name], inner]}
            elif key == "required":
                whole[key] = list(dict.fromkeys([*whole.get(key, ()), *value]))
            else:
                whole.setdefault(key, value)
    return whole


def _described(schema: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    own = str(schema.get("description") or "").rstrip()
    new = [word for word in words if word not in own]
    if new:
        schema["description"] = "; ".join([own.rstrip(".")] * bool(own) + new)
    return schema


_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "pattern": "matches the pattern {}",
}
_COUNTS = {
    "minLength": ("at least", "character"),
    "maxLength": ("at most", "character"),
    "minItems": ("at least", "item"),
    "maxItems": ("at most", "item"),
    "minProperties": ("at least", "key"),
    "maxProperties": ("at most", "key"),
}
_FORMATS = {
    "date": "date YYYY-MM-DD",
    "time": "time HH:MM:SS",
    "date-time": "date-time ISO 8601 with its UTC offset",
    "duration": "duration ISO 8601",
    "uri": "a whole URI",
}
_SHOWN_BY_TYPE = frozenset({"date", "time", "date-time", "uuid", "email", "uri", "duration"})
"""Formats that a prompt's type words say already."""


def _words(key: str, value: Any) -> list[str]:
    """A keyword in words; none for keywords that say nothing about the value."""
    if key in _BOUNDS and not isinstance(value, bool):
        return [_BOUNDS[key].format(value)]
    if key == "minLength" and value == 1:
        return ["not empty"]
    if key in _COUNTS and isinstance(value, int | float):
        how, what = _COUNTS[key]
        return [f"{how} {value:g} {what}{'' if value == 1 else 's'}"] if value or how == "at most" else []
    if key == "format":
        return [_FORMATS.get(str(value), f"format {value}")]
    if key == "uniqueItems":
        return ["no item twice"] if value is True else []
    if key in ("prefixItems", "additionalProperties") or key.startswith("x-"):
        return []
    said = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return [f"fulfils {key} {said}"] if len(said) <= _MOST_WORDS else [f"fulfils a rule of the kind {key}"]


_CONSTRAINTS = (*_BOUNDS, *_COUNTS, "format", "uniqueItems")


def _words_below(schema: Mapping[str, Any]) -> Iterator[str]:
    """The constraints of a place, those of its branches that are not null, and those of its items."""
    for key in _CONSTRAINTS:
        if key in schema and not (key == "format" and schema[key] in _SHOWN_BY_TYPE):
            yield from _words(key, schema[key])
    for key in ("anyOf", "oneOf"):
        branches = [one for one in schema.get(key, ()) if isinstance(one, Mapping) and one.get("type") != "null"]
        if len(branches) == 1:
            yield from _words_below(branches[0])
    items = schema.get("items")
    if isinstance(items, Mapping) and not items.get("properties"):
        words = list(_words_below(items))
        if words:
            yield f"each {', '.join(words)}"


def _kind(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "any value"
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in values)
    kind = schema.get("type", "any value")
    name = " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)
    note = re.sub(r"\s+", " ", str(schema.get("description") or "")).strip()
    return f"{name} ({note})" if note else name
