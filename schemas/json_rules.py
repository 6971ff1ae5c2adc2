"""Enforcing the keywords of a JSON Schema that pydantic's types cannot express."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import ValidationError as JsonSchemaError
from jsonschema.exceptions import best_match
from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from referencing import Registry

_MOST_ERRORS = 20
_MOST_MESSAGE = 300


class Rules:
    """A compiled JSON Schema. ``wrapper`` is the key under which a root that is no object stands in the
    answer; ``check`` False only unwraps."""

    def __init__(
        self, document: Mapping[str, Any], validator_class: Any, *, wrapper: str | None = None, check: bool = True
    ) -> None:
        self._document = document
        # An empty registry: nothing is ever looked up on the network.
        self._validator = validator_class(document, registry=Registry()) if check else None
        self.wrapper = wrapper

    def wrapped(self, data: Any) -> Any:
        """The answer as an object: a bare root is put under its key."""
        if self.wrapper is None or (isinstance(data, Mapping) and set(data) == {self.wrapper}):
            return data
        return {self.wrapper: data}

    def problems(self, data: Any) -> list[InitErrorDetails]:
        """What the schema says against an answer, at its places."""
        if self._validator is None:
            return []
        prefix: tuple[str, ...] = ()
        if self.wrapper is not None:
            data, prefix = data[self.wrapper], (self.wrapper,)
        data = self._without_nulls(data, self._document, 0)
        found = []
        for error in self._validator.iter_errors(data):
            inner = best_match([error]) or error
            found.append(_details(inner, prefix))
            if len(found) >= _MOST_ERRORS:
                break
        return found

    def _without_nulls(self, data: Any, schema: Any, depth: int) -> Any:
        """The data without null where an optional property may be absent but not null: that is how an
        answer says absent."""
        if not isinstance(schema, Mapping) or depth > 60:
            return data
        if isinstance(data, Mapping):
            for part in self._parts(schema):
                data = self._without_nulls(data, part, depth + 1)
            properties = schema.get("properties", {})
            required = schema.get("required", ())
            rest = schema.get("additionalProperties")
            cleaned = {}
            for key, value in data.items():
                own = properties.get(key, rest)
                if value is None and key in properties and key not in required and not self._takes_null(own):
                    continue
                cleaned[key] = self._without_nulls(value, own, depth + 1)
            return cleaned
        if isinstance(data, list):
            for part in self._parts(schema):
                data = self._without_nulls(data, part, depth + 1)
            items = schema.get("items")
            return [
                self._without_nulls(value, items[n] if isinstance(items, list) and n < len(items) else items, depth + 1)
                for n, value in enumerate(data)
            ]
        return data

    def _parts(self, schema: Mapping[str, Any]) -> list[Any]:
        parts = [part for key in ("allOf", "anyOf", "oneOf") for part in schema.get(key, ())]
        parts += [schema[key] for key in ("then", "else") if key in schema]
        for key in ("dependencies", "dependentSchemas"):
            parts += list(schema.get(key, {}).values())
        reference = schema.get("$ref")
        if isinstance(reference, str) and self._validator is not None:
            parts.append(self._validator._resolver.lookup(reference).contents)
        return parts

    def _takes_null(self, schema: Any) -> bool:
        return self._validator is not None and self._validator.evolve(schema=schema).is_valid(None)


def enforcing(rules: Rules) -> dict[str, Any]:
    """The validators of a root model that keeps ``rules``: types first, with their clear errors, then
    the whole schema."""

    def enforce(cls: type[BaseModel], data: Any, handler: ModelWrapValidatorHandler[BaseModel]) -> BaseModel:
        if isinstance(data, BaseModel):
            return handler(data)
        data = rules.wrapped(data)
        value = handler(data)
        problems = rules.problems(data)
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return value

    validator: Any = classmethod(enforce)
    return {"enforce": model_validator(mode="wrap")(validator)}


def _details(error: JsonSchemaError, prefix: tuple[str, ...]) -> InitErrorDetails:
    message = error.message
    if len(message) > _MOST_MESSAGE:
        # Long ones begin with the value; what is wrong with it stands at the end.
        message = f"{message[:60]} … {message[-(_MOST_MESSAGE - 63) :]}"
    kind = PydanticCustomError("json_schema", "{problem}", {"problem": message, "keyword": str(error.validator)})
    return InitErrorDetails(type=kind, loc=(*prefix, *error.absolute_path), input=error.instance)
