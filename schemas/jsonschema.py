"""The JSON Schema that an answer must follow, as prompts and structured output need it: no ``$ref``,
no titles, no defaults, descriptions kept, properties in the model's order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from schemas.arrow_types import SchemaMappingError
from schemas.pointers import split, unescape

_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED_SCHEMAS = ("properties", "patternProperties", "dependentSchemas")
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_NOISE = ("title", "default", "discriminator", "$defs", "$ref", "x-hint")
_MOST_NODES = 100_000
_LOCAL_DATETIME = "local date and time YYYY-MM-DDTHH:MM:SS, without a zone"
_LOCAL_TIME = "local time HH:MM:SS, without a zone"

DECIMAL = "x-decimal"
"""In a marked schema: the number is a ``Decimal``."""
BEFORE = "x-before"
"""In a marked schema: a validator of the schema's own sees the value before its type does."""


class _AnswerSchema(GenerateJsonSchema):
    """Pydantic's schema with decimals as plain numbers, which is what models write, and local times not
    promised to be RFC 3339, whose ``date-time`` and ``time`` demand an offset."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        limits = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
        found: JsonSchemaValue = {"type": "number"}
        for key, keyword in limits.items():
            if schema.get(key) is not None:
                number = float(schema[key])  # type: ignore[literal-required]
                found[keyword] = int(number) if number.is_integer() else number
        return found

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        if schema.get("tz_constraint") == "aware":
            return {"type": "string", "format": "date-time"}
        return {"type": "string", "x-hint": _LOCAL_DATETIME}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        return {"type": "string", "x-hint": _LOCAL_TIME}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Defaults that are no JSON are left out of the answer's schema anyway."""


class _MarkedSchema(_AnswerSchema):
    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        return {**super().decimal_schema(schema), DECIMAL: True}

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        return {**super().function_before_schema(schema), BEFORE: True}

    def function_wrap_schema(self, schema: core_schema.WrapValidatorFunctionSchema) -> JsonSchemaValue:
        return {**super().function_wrap_schema(schema), BEFORE: True}


def answer_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON Schema in validation mode, under the keys of the JSON answer (aliases), with
    references inlined. Decimals are numbers on the wire; their digits are pydantic's to check.

    Raises ``SchemaMappingError`` for a recursive model and for types without a JSON form.
    """
    try:
        schema = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_AnswerSchema)
    except PydanticInvalidForJsonSchema as error:
        reason = str(error).splitlines()[0]
        raise SchemaMappingError(f"{model.__name__} has a field without a JSON form: {reason}") from error
    answer: dict[str, Any] = _Inliner(model.__name__, schema.get("$defs", {})).inline(schema, ())
    return answer


def marked_schema(kind: type[BaseModel] | TypeAdapter[Any]) -> dict[str, Any]:
    """The same of a model or another type, with ``DECIMAL`` and ``BEFORE`` where they hold: for those who validate."""
    options: dict[str, Any] = {"by_alias": True, "mode": "validation", "schema_generator": _MarkedSchema}
    schema = kind.model_json_schema(**options) if isinstance(kind, type) else kind.json_schema(**options)
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    marked: dict[str, Any] = _Inliner(name, schema.get("$defs", {})).inline(schema, ())
    return marked


def subschema(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The schema at a JSON Pointer without its leading slash (``line_items/0/price``), through arrays,
    maps and unions; "" is the schema itself. Where several union branches have the path, the result is an
    ``anyOf`` of theirs. Raises ``KeyError`` for a path that no branch has.
    """
    found = [dict(schema)]
    for step in split(path):
        found = [inner for outer in found for inner in children(outer, step)]
    distinct: list[dict[str, Any]] = []
    for each in found:
        if each not in distinct:
            distinct.append(each)
    if not distinct:
        raise KeyError(path)
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def children(schema: Mapping[str, Any], step: str) -> list[dict[str, Any]]:
    """The schemas of the member ``step`` of what a schema describes, one of each union branch that has it."""
    if not schema:
        return [{}]  # any value: so is what lies inside it
    properties = schema.get("properties", {})
    if step in properties:
        return [dict(properties[step])]
    found = []
    for branch in (branch for key in ("anyOf", "oneOf", "allOf") for branch in schema.get(key, ())):
        found.extend(children(branch, step))
    if step.isdigit() and ("items" in schema or "prefixItems" in schema):
        prefix = schema.get("prefixItems", ())
        items = prefix[int(step)] if int(step) < len(prefix) else schema.get("items")
        if items is True:
            items = {}
        if isinstance(items, Mapping):
            found.append(dict(items))
        return found
    matching = [dict(one) for pattern, one in schema.get("patternProperties", {}).items() if re.search(pattern, step)]
    if matching:
        return found + matching
    rest = schema.get("additionalProperties")
    if rest is True:
        rest = {}
    if isinstance(rest, Mapping):
        found.append(dict(rest))
    return found


class _Inliner:
    def __init__(self, name: str, definitions: Mapping[str, Any]) -> None:
        self._name = name
        self._definitions = definitions
        self._nodes = 0

    def inline(self, schema: Any, open_refs: tuple[str, ...]) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise SchemaMappingError(
                f"{self._name}: the schema has more than {_MOST_NODES:,} parts once its references are written out; "
                "extract fewer fields at a time"
            )
        merged: dict[str, Any] = {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference in open_refs:
                target = reference.rpartition("/")[2]
                raise SchemaMappingError(f"{self._name}: {target} contains itself, and an answer has a fixed depth")
            target = self._definitions[unescape(reference.removeprefix("#/$defs/"))]
            merged.update(self.inline(target, (*open_refs, reference)))
        for key, value in schema.items():
            if key in _NOISE:
                continue
            if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
                merged[key] = {name: self.inline(inner, open_refs) for name, inner in value.items()}
            elif key in _OF_SCHEMAS and isinstance(value, list):
                merged[key] = [self.inline(inner, open_refs) for inner in value]
            elif key in _SCHEMAS:
                merged[key] = self.inline(value, open_refs)
            else:
                merged[key] = value
        hint = schema.get("x-hint") or self._hint(schema)
        if hint:
            own = str(merged.get("description") or "").rstrip()
            merged["description"] = f"{own.rstrip('.')}; {hint}" if own else hint
        return merged

    def _hint(self, schema: Mapping[str, Any]) -> str | None:
        """The hint of a nullable local time, so that it stands beside the field's own description."""
        if "description" not in schema:
            return None
        hints = {branch.get("x-hint") for branch in schema.get("anyOf", ()) if isinstance(branch, Mapping)} - {None}
        return str(hints.pop()) if len(hints) == 1 else None
