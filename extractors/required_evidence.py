"""The fields that a job wants evidence of: evidence of a choice can hardly ever be found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extractors.errors import SchemaError
from extractors.second_look import is_choice


def check_evidence(required: Sequence[str], schema: Mapping[str, Any]) -> None:
    """Evidence of a choice can hardly ever be found, since what a record says instead of ``true`` is anything.
    Raises ``SchemaError`` naming such a field."""
    for field_path in required:
        for path, leaf in _leaves_at(schema, field_path.removeprefix("/").split("/"), ""):
            if is_choice(leaf):
                raise SchemaError(
                    f"require_evidence names {field_path!r}, but {path!r} is a choice among fixed values (true or false, "
                    "an enum), which a record rarely prints, so that its evidence would hardly ever be found; name only "
                    "fields whose values are copied from the record"
                )


def _leaves_at(schema: Mapping[str, Any], steps: Sequence[str], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The schemas of the values at or below a path, in which ``*`` and any number are an item of a list."""
    branches = [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ()) if branch.get("type") != "null"]
    if branches and not is_choice(schema):
        for branch in branches:
            yield from _leaves_at(branch, steps, path)
        return
    inner = [
        (name, each) for name, each in schema.get("properties", {}).items() if not steps or steps[0] in ("*", name)
    ]
    for name, each in inner:
        yield from _leaves_at(each, steps[1:], f"{path}/{name}" if path else name)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from _leaves_at(schema[key], steps[1:], f"{path}/*")
    if not inner and not steps and "items" not in schema:
        yield path, schema
