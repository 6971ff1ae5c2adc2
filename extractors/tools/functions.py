"""A typed Python function as a look-up: its hints and docstring become the schema that the model reads."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from extractors.errors import JobError
from extractors.qwen.fitting import inlined
from extractors.qwen.requests import ToolSpec
from extractors.tools.toolbox import Tool

_REFUSED_KINDS = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
    inspect.Parameter.POSITIONAL_ONLY: "positional-only ",
}


def tool_of(function: Callable[..., Any], *, name: str, source: str) -> Tool:
    """The function as a look-up. Raises ``JobError`` for parameters without a type, or of a type that has no JSON."""
    told = _docstring(function)
    fields = _fields(function, told.parameters, source)
    try:
        arguments = arguments_model(name, fields)
        spec = spec_of(name, told.summary, arguments)
    except (PydanticUserError, PydanticSchemaGenerationError, TypeError) as error:
        raise JobError(f"--tool {source}: a parameter's type cannot be said in JSON: {error}") from error
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return Tool(spec, arguments, run_async=functools.partial(_called, function), source=source)
    return Tool(spec, arguments, run=functools.partial(_called, function), source=source)


def arguments_model(name: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    """A model of arguments that takes no others, and no NaN. ``fields`` are as ``create_model`` takes them."""
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False, protected_namespaces=(), allow_inf_nan=False)
    return create_model(f"{name}_arguments", __config__=config, **fields)


def spec_of(name: str, description: str, arguments: type[BaseModel]) -> ToolSpec:
    """What the model is told: plain JSON Schema without references or titles."""
    schema = _plain(inlined(arguments.model_json_schema()))
    schema.pop("title", None)
    return ToolSpec(name, description, {"type": "object", "properties": {}, **schema})


def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    return function(**arguments)


def _fields(function: Callable[..., Any], described: Mapping[str, str], source: str) -> dict[str, Any]:
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise JobError(f"--tool {source}: its parameters cannot be read: {error}") from error
    fields: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in _REFUSED_KINDS:
            raise JobError(
                f"--tool {source}: the parameter {_REFUSED_KINDS[parameter.kind]}{name} has no name and type that a model "
                "could fill in; wrap the function in one with plain, typed parameters"
            )
        if name not in hints:
            raise JobError(f"--tool {source}: the parameter {name} has no type; write for example `{name}: str`")
        if name.startswith("_"):
            raise JobError(f"--tool {source}: the parameter {name} begins with an underscore; give it another name")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        if isinstance(default, FieldInfo):
            fields[name] = (hints[name], default)
        else:
            fields[name] = (hints[name], Field(default=default, description=described.get(name)))
    return fields


class _Docstring(typing.NamedTuple):
    summary: str
    parameters: dict[str, str]


def _docstring(function: Callable[..., Any]) -> _Docstring:
    """What a docstring says of the function and of its parameters, in any of the usual styles."""
    from docstring_parser import parse

    parsed = parse(inspect.getdoc(function) or "")
    parts = (parsed.short_description, parsed.long_description)
    summary = " ".join(" ".join(part.split()) for part in parts if part)
    return _Docstring(summary, {one.arg_name: " ".join((one.description or "").split()) for one in parsed.params})


def _plain(schema: Any) -> Any:
    """The schema without the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "properties" and isinstance(value, Mapping):
            made[key] = {name: _plain(one) for name, one in value.items()}
        else:
            made[key] = _plain(value)
    return made
