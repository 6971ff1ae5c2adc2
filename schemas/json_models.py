"""A JSON Schema document -> a pydantic model with typed fields.

What the types cannot say (``if``/``then``, ``not``, ``patternProperties``, ``uniqueItems``, ...) is still enforced:
the root model then checks each answer with the ``jsonschema`` library too.

Mapped: objects to models; ``additionalProperties``/``patternProperties`` without ``properties`` to ``dict[str, T]``;
arrays to lists (tuples too, as a list of their union); ``date``, ``time``, ``uuid`` and ``date-time`` (with its offset)
to their types; ``enum`` and ``const`` to ``Literal``; ``anyOf``/``oneOf`` of types to unions; ``allOf`` merged; local
``$ref``. Properties of ``anyOf``/``oneOf``/``if``/``dependencies`` branches beside ``properties``, and those at the
root, become optional fields of one wide object. A value of any type (``{}``) is kept as ``pydantic.JsonValue`` (JSON
text in the table), a free object as ``dict[str, JsonValue]``. Keys that no property names are ignored, or refused with
``additionalProperties: false``. ``default`` is not filled in: it is not in the source. A property that is not required
may be null, which means absent.

A root that is no object is wrapped: an array as ``items``, a map as ``entries``, anything else as ``value``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Annotated, Any, Literal
from urllib.parse import unquote
from uuid import UUID

from jsonschema import exceptions as jsonschema_exceptions
from jsonschema.validators import Draft202012Validator, validator_for
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, create_model

from schemas.arrow_types import RESERVED, SchemaMappingError
from schemas.compare import ADDRESSES, Compare
from schemas.compare import KEYWORD as COMPARE
from schemas.json_merge import ALSO, ALTERNATIVES, merge, plain_branches
from schemas.json_rules import Rules, enforcing
from schemas.json_shape import (
    anchored,
    class_name,
    extra_keys,
    field_name,
    has_type,
    is_object,
    json_type,
    length_limits,
    types_named,
    union_of,
)
from schemas.keys import KEY as ITEM_KEY
from schemas.keys import key_named
from schemas.pointers import escape, unescape
from schemas.verbatim import KEY as VERBATIM
from schemas.verbatim import Verbatim, refuse_unheld

_MOST_FIELDS = 2_000
_BEYOND_TYPES = frozenset(
    [
        "not",
        "if",
        "then",
        "else",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "contains",
        "minContains",
        "maxContains",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "propertyNames",
        "unevaluatedProperties",
        "unevaluatedItems",
        "additionalItems",
        "prefixItems",
    ]
)
_FORMATS: dict[str, Any] = {"date": date, "date-time": AwareDatetime, "time": time, "uuid": UUID}
_CHOICES = (
    'give it a "type" (object with properties, array with items, string, integer, number, boolean), '
    "or leave the property out"
)

Refs = tuple[str, ...]


def model_of(document: Any, *, name: str) -> type[BaseModel]:
    """The model of a JSON Schema document. ``name`` is the class name where the schema has no short
    ``title``. The same document gives the same ``model_json_schema()``.

    Raises ``SchemaMappingError``, naming the JSON pointer and the choices.
    """
    if not isinstance(document, Mapping):
        kind = "a boolean schema" if isinstance(document, bool) else f"a JSON {type(document).__name__}"
        raise SchemaMappingError(f"#: {kind} says nothing about fields; {_CHOICES}")
    validator_class = validator_for(document, default=Draft202012Validator)
    try:
        validator_class.check_schema(document)
    except jsonschema_exceptions.SchemaError as error:
        pointer = "/".join(["#", *(str(step) for step in error.absolute_path)])
        raise SchemaMappingError(f"{pointer}: not a valid JSON Schema: {error.message[:200]}") from error
    except RecursionError as error:
        raise SchemaMappingError("#: the schema is nested too deeply; write out fewer levels") from error
    try:
        return _Builder(document, validator_class).root(name)
    except RecursionError as error:
        raise SchemaMappingError("#: the schema is nested too deeply; write out fewer levels") from error


class _Builder:
    def __init__(self, document: Mapping[str, Any], validator_class: Any) -> None:
        self._document = document
        self._validator_class = validator_class
        self._names: set[str] = set()
        self._fields = 0
        self._beyond = False
        self._known: dict[str, tuple[Any, bool]] = {}
        self._siblings_count = validator_class.META_SCHEMA.get("$schema", "").find("/draft/20") >= 0

    def root(self, fallback: str) -> type[BaseModel]:
        schema, refs = self._flat(self._document, "#", ())
        title = schema.get("title")
        name = class_name(title) if isinstance(title, str) and len(title) <= 40 else ""
        name = name or class_name(fallback) or "Extraction"
        wrapper: str | None = None
        if is_object(schema) or any(is_object(self._flat(branch, "#", refs)[0]) for branch in plain_branches(schema)):
            schema = self._widened(schema, "#", refs)
            if not schema.get("properties"):
                wrapper = "entries"
        else:
            wrapper = "items" if schema.get("type") == "array" or "items" in schema else "value"
        self._names.add(name)
        if wrapper is None:
            fields = self._model_fields(schema, "#", refs, root=True)
        else:
            kind, nullable = self._type(schema, "#", refs, hint=f"{name} item")
            if kind is JsonValue:
                raise SchemaMappingError(f"#: a value of any type has no fields to make columns of; {_CHOICES}")
            note = schema.get("description")
            fields = {wrapper: (kind | None if nullable else kind, Field(description=note) if note else ...)}
        extra = extra_keys(schema)
        rules = None
        if self._beyond or wrapper is not None:
            rules = Rules(self._document, self._validator_class, wrapper=wrapper, check=self._beyond)
        return self._create(name, schema, fields, extra=extra, rules=rules)

    def _create(
        self,
        name: str,
        schema: Mapping[str, Any],
        fields: dict[str, Any],
        *,
        extra: Literal["forbid", "ignore"],
        rules: Rules | None = None,
    ) -> type[BaseModel]:
        config = ConfigDict(extra=extra, regex_engine="python-re", protected_namespaces=())
        description = schema.get("description")
        base: Any = type(name, (BaseModel,), {"__module__": __name__, "model_config": config, "__doc__": description})
        with warnings.catch_warnings():
            # A property may be called "json" or "copy"; nothing here uses those old methods.
            warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
            model: type[BaseModel] = create_model(
                name,
                __base__=base,
                __doc__=description,
                __module__=__name__,
                __validators__=enforcing(rules) if rules is not None else None,
                **fields,
            )
        return model

    def _model_fields(self, schema: Mapping[str, Any], pointer: str, refs: Refs, *, root: bool) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        fields: dict[str, Any] = {}
        used: set[str] = set(RESERVED) if root else set()
        properties = {key: inner for key, inner in schema["properties"].items() if inner is not False}
        for missing in sorted(required - set(properties)):
            # Required but not described: any value.
            properties[missing] = {}
        for key, inner in properties.items():
            self._fields += 1
            where = f"{pointer}/properties/{escape(key)}"
            if self._fields > _MOST_FIELDS:
                raise SchemaMappingError(
                    f"{where}: more than {_MOST_FIELDS:,} fields once references are written out, too many for one "
                    "answer; extract fewer properties at a time"
                )
            kind, nullable = self._type(inner, where, refs, hint=key)
            name = field_name(key, used)
            options: dict[str, Any] = {} if name == key else {"alias": key}
            note = self._description(inner, where, refs)
            if note:
                options["description"] = note
            optional = key not in required
            whole = kind | None if nullable or optional else kind
            rule = inner.get(COMPARE) if isinstance(inner, Mapping) else None
            if isinstance(rule, str):
                whole = Annotated[whole, Compare(rule)]
            key_mark = key_named(inner.get(ITEM_KEY)) if isinstance(inner, Mapping) else None
            if key_mark is not None:
                whole = Annotated[whole, key_mark]
            fields[name] = (whole, Field(default=None, **options) if optional else Field(**options))
        return fields

    def _description(self, schema: Any, pointer: str, refs: Refs) -> str | None:
        if not isinstance(schema, Mapping):
            return None
        note = schema.get("description")
        if note is None and "$ref" in schema:
            note = self._flat(schema, pointer, refs, loops=True)[0].get("description")
        return note if isinstance(note, str) and note.strip() else None

    def _type(self, schema: Any, pointer: str, refs: Refs, *, hint: str) -> tuple[Any, bool]:
        """The annotation of a schema, without None, and whether null is allowed."""
        pure = schema.get("$ref") if isinstance(schema, Mapping) and set(schema) <= {"$ref", "description"} else None
        if pure in self._known:
            return self._known[pure]
        found = self._type_of(schema, pointer, refs, hint=hint)
        if pure is not None:
            self._known[pure] = found
        return found

    def _type_of(self, schema: Any, pointer: str, refs: Refs, *, hint: str) -> tuple[Any, bool]:
        if schema is True or schema == {}:
            return JsonValue, True
        if schema is False:
            raise SchemaMappingError(f"{pointer}: the schema false allows no value; {_CHOICES}")
        flat, refs = self._flat(schema, pointer, refs)
        if _BEYOND_TYPES & set(flat):
            self._beyond = True
        refuse_unheld(flat, pointer)
        if "const" in flat:
            return self._literal([flat["const"]], flat)
        if "enum" in flat:
            return self._literal(flat["enum"], flat)
        branches = plain_branches(flat)
        if branches:
            flats = [self._flat(branch, f"{pointer}/anyOf/{n}", refs)[0] for n, branch in enumerate(branches)]
            typed = [has_type(branch) for branch in flats]
            if "properties" in flat or not all(typed):
                flat = self._widened(flat, pointer, refs) if is_object(flat) or any(typed) else flat
                self._beyond = True
            else:
                return self._union(flat, branches, pointer, refs, hint=hint)
        kinds = types_named(flat)
        nullable = "null" in kinds
        kinds = [kind for kind in kinds if kind != "null"]
        if "number" in kinds and "integer" in kinds:
            kinds.remove("integer")
        if not kinds:
            self._beyond = self._beyond or bool(set(flat) - {"description", "title", "default", "examples"})
            return JsonValue, True
        made = [self._one(kind, flat, pointer, refs, hint=hint) for kind in kinds]
        return union_of(made), nullable

    def _union(
        self, flat: Mapping[str, Any], branches: Sequence[Any], pointer: str, refs: Refs, *, hint: str
    ) -> tuple[Any, bool]:
        keyword = "anyOf" if "anyOf" in flat else "oneOf"
        if keyword == "oneOf":
            self._beyond = True  # a pydantic union takes a value that several branches allow
        base = {key: value for key, value in flat.items() if key not in ("anyOf", "oneOf", "title", "description")}
        made, nullable = [], False
        for number, branch in enumerate(branches):
            where = f"{pointer}/{keyword}/{number}"
            own = {"allOf": [base, branch]} if base else branch
            if isinstance(branch, Mapping) and branch.get("type") == "null":
                nullable = True
                continue
            kind, inner_nullable = self._type(own, where, refs, hint=hint)
            nullable = nullable or inner_nullable
            if kind is JsonValue:
                return JsonValue, True
            made.append(kind)
        return (union_of(made), nullable) if made else (JsonValue, True)

    def _one(self, kind: str, flat: Mapping[str, Any], pointer: str, refs: Refs, *, hint: str) -> Any:
        if kind == "boolean":
            return bool
        if kind == "string":
            return self._string(flat, pointer)
        if kind in ("integer", "number"):
            return self._number(int if kind == "integer" else float, flat)
        if kind == "array":
            return self._array(flat, pointer, refs, hint=hint)
        flat = self._widened(flat, pointer, refs)
        if flat.get("properties"):
            name = self._class_name(flat.get("title"), hint)
            extra = extra_keys(flat)
            return self._create(name, flat, self._model_fields(flat, pointer, refs, root=False), extra=extra)
        if set(flat) & {"required", "additionalProperties"} and not isinstance(
            flat.get("additionalProperties"), Mapping
        ):
            self._beyond = True
        return dict[str, self._map_values(flat, pointer, refs, hint=hint)]  # type: ignore[misc]

    def _map_values(self, flat: Mapping[str, Any], pointer: str, refs: Refs, *, hint: str) -> Any:
        values = [
            (inner, f"{pointer}/patternProperties/{escape(key)}")
            for key, inner in flat.get("patternProperties", {}).items()
            if inner is not False
        ]
        rest = flat.get("additionalProperties", not values)
        if rest is not False:
            values.append((rest, f"{pointer}/additionalProperties"))
        if not values:
            return JsonValue
        made, nullable = [], False
        for inner, where in values:
            kind, inner_nullable = self._type(inner, where, refs, hint=f"{hint} value")
            if kind is JsonValue:
                return JsonValue
            made.append(kind)
            nullable = nullable or inner_nullable
        united = union_of(made)
        return united | None if nullable else united

    def _array(self, flat: Mapping[str, Any], pointer: str, refs: Refs, *, hint: str) -> Any:
        items = flat.get("items", True)
        options = list(flat.get("prefixItems", ()))
        if isinstance(items, list):
            options = items
            items = flat.get("additionalItems", True)
            self._beyond = True
        if items is not False and not (options and items is True):
            options.append(items)
        made, nullable = [], False
        for number, option in enumerate(options):
            where = f"{pointer}/items" if len(options) == 1 else f"{pointer}/items/{number}"
            kind, inner_nullable = self._type(option, where, refs, hint=f"{hint} item")
            made.append(kind)
            nullable = nullable or inner_nullable
        if not made:
            item: Any = JsonValue
        else:
            item = JsonValue if JsonValue in made else union_of(made)
        limits = length_limits(flat, minItems="min_length", maxItems="max_length")
        kind = list[item | None] if nullable and item is not JsonValue else list[item]
        return Annotated[kind, Field(**limits)] if limits else kind

    def _string(self, flat: Mapping[str, Any], pointer: str) -> Any:
        typed = _FORMATS.get(str(flat.get("format")))
        verbatim = flat.get(VERBATIM) is True
        if typed is not None and verbatim:
            raise SchemaMappingError(
                f"{pointer}: {VERBATIM} is for plain strings, and the format {flat['format']} makes another type of it; "
                "leave one of the two out"
            )
        limits = length_limits(flat, minLength="min_length", maxLength="max_length")
        pattern = flat.get("pattern")
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise SchemaMappingError(
                    f"{pointer}/pattern: {pattern!r} is not a regular expression that Python reads ({error}); "
                    "rewrite it or leave it out"
                ) from error
            limits["pattern"] = pattern
        if typed is not None:
            self._beyond = self._beyond or bool(limits)
            return typed
        kind: Any = Annotated[str, Field(**limits)] if limits else str
        if flat.get("format") in ADDRESSES:
            kind = Annotated[kind, Compare("address", by_type=True)]
        return Annotated[kind, Verbatim()] if verbatim else kind

    def _number(self, kind: type, flat: Mapping[str, Any]) -> Any:
        limits: dict[str, Any] = {}
        for keyword, exclusive, at, beyond in (
            ("minimum", "exclusiveMinimum", "ge", "gt"),
            ("maximum", "exclusiveMaximum", "le", "lt"),
        ):
            bound, edge = flat.get(keyword), flat.get(exclusive)
            if bound is not None:
                limits[beyond if edge is True else at] = bound
            if edge is not None and not isinstance(edge, bool):
                limits[beyond] = edge
        if kind is int and any(isinstance(bound, float) and not bound.is_integer() for bound in limits.values()):
            self._beyond, limits = True, {}
        if kind is int:
            limits = {key: int(bound) for key, bound in limits.items()}
        if "multipleOf" in flat:
            self._beyond = True  # jsonschema does it without pydantic's rounding of floats
        return Annotated[kind, Field(**limits)] if limits else kind

    def _literal(self, values: Sequence[Any], flat: Mapping[str, Any]) -> tuple[Any, bool]:
        kinds = types_named(flat)
        allowed = [value for value in values if not kinds or json_type(value, kinds)]
        if any(isinstance(value, list | dict) for value in allowed) or not [v for v in allowed if v is not None]:
            self._beyond = True
            return JsonValue, True
        if {type(value) for value in allowed} >= {int, float}:
            allowed = [float(value) if type(value) is int else value for value in allowed]
        distinct = list({(type(value), value): value for value in allowed if value is not None}.values())
        return Literal[tuple(distinct)], None in allowed

    def _widened(self, flat: Mapping[str, Any], pointer: str, refs: Refs) -> dict[str, Any]:
        """The object with the properties of its alternatives as optional ones of its own."""
        wide = dict(flat)
        properties = dict(flat.get("properties", {}))
        own = set(properties)
        alternatives: list[tuple[Any, str]] = []
        for key in ("anyOf", "oneOf"):
            alternatives += [(branch, f"{pointer}/{key}/{number}") for number, branch in enumerate(flat.get(key, ()))]
        alternatives += [(flat[key], f"{pointer}/{key}") for key in ("if", "then", "else") if key in flat]
        for key in ("dependencies", "dependentSchemas"):
            for name, branch in flat.get(key, {}).items():
                if isinstance(branch, Mapping):
                    alternatives.append((branch, f"{pointer}/{key}/{escape(name)}"))
        alternatives += [(part, pointer) for part in flat.get(ALSO, ())]
        for branch, where in alternatives:
            if not isinstance(branch, Mapping):
                continue
            inner, inner_refs = self._flat(branch, where, refs)
            if any(key in inner for key in (*ALTERNATIVES, ALSO)):
                inner = self._widened(inner, where, inner_refs)
            for name, schema in inner.get("properties", {}).items():
                if name in own or not isinstance(schema, Mapping):
                    continue
                known = properties.get(name)
                if known is None:
                    properties[name] = schema
                elif known != schema:
                    options = known["anyOf"] if set(known) == {"anyOf"} else [known]
                    if schema not in options:
                        properties[name] = {"anyOf": [*options, schema]}
        if alternatives:
            self._beyond = True
        if properties:
            wide["properties"] = properties
            if len(properties) > len(own) and flat.get("additionalProperties") is False:
                wide.pop("additionalProperties")
        for key in ("anyOf", "oneOf", ALSO):
            wide.pop(key, None)
        return wide

    def _flat(self, schema: Any, pointer: str, refs: Refs, *, loops: bool = False) -> tuple[dict[str, Any], Refs]:
        """The schema with its ``$ref`` and ``allOf`` merged in, and the references that are open inside."""
        if not isinstance(schema, Mapping):
            return {}, refs
        flat = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference in refs:
                if loops:
                    return flat, refs
                raise SchemaMappingError(
                    f"{pointer}: {reference} contains itself, and a table has a fixed depth; write out as many levels "
                    "as you need, or replace the inner reference by {} to keep its value as JSON text"
                )
            if not self._siblings_count:
                flat = {key: value for key, value in flat.items() if key in ("description", "title")}
            refs = (*refs, reference)
            target, refs = self._flat(self._resolve(reference, pointer), reference, refs, loops=loops)
            flat = self._merged(flat, target)
        for number, part in enumerate(schema.get("allOf", ()) if "$ref" not in schema or self._siblings_count else ()):
            inner, refs = self._flat(part, f"{pointer}/allOf/{number}", refs, loops=loops)
            flat = self._merged(flat, inner)
        return flat, refs

    def _merged(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
        merged, lossless = merge(first, second)
        self._beyond = self._beyond or not lossless
        return merged

    def _resolve(self, reference: str, pointer: str) -> Any:
        own = str(self._document.get("$id") or self._document.get("id") or "").rstrip("#")
        base, _, fragment = reference.partition("#")
        choices = "copy what it refers to into this file's $defs"
        if base and base != own:
            raise SchemaMappingError(f"{pointer}/$ref: {reference} points outside of the file; {choices}")
        if fragment and not fragment.startswith("/"):
            found = anchored(self._document, fragment)
            if found is None:
                raise SchemaMappingError(f"{pointer}/$ref: no $anchor or $id is called {fragment}; {choices}")
            return found
        target: Any = self._document
        for step in unquote(fragment).split("/")[1:]:
            key = unescape(step)
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise SchemaMappingError(f"{pointer}/$ref: {reference} points to nothing; {choices}")
        return target

    def _class_name(self, title: Any, hint: str) -> str:
        stem = class_name(title) if isinstance(title, str) and len(title) <= 40 else ""
        stem = stem or class_name(hint) or "Part"
        name, number = stem, 2
        while name in self._names:
            name, number = f"{stem}{number}", number + 1
        self._names.add(name)
        return name
