"""Which branches of a union a value is of."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.branches import subschemas_of


def branch(named: str | None, own: dict[str, Any], *required: str) -> dict[str, Any]:
    properties = {"x": own} if named is None else {"kind": {"const": named}, "x": own}
    return {"type": "object", "properties": properties, "required": list(required)}


SHORT, LONG, NUMBER = {"type": "string", "maxLength": 3}, {"type": "string"}, {"type": "number"}
TOLD_APART = {"oneOf": [branch("a", SHORT), branch("b", LONG), {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "data", "path", "expected"),
    [
        (TOLD_APART, {"kind": "b", "x": "y"}, "x", [LONG]),
        (TOLD_APART, {"kind": "a", "x": "beyond its limit"}, "x", [SHORT]),
        ({"type": "array", "items": TOLD_APART}, [None, {"kind": "b", "x": "y"}], "1/x", [LONG]),
        (
            {"properties": {"u": {"anyOf": [{"type": "null"}, TOLD_APART]}}},
            {"u": {"kind": "a", "x": "y"}},
            "u/x",
            [SHORT],
        ),
        # Without a constant: what it validates against.
        ({"anyOf": [branch(None, SHORT), branch(None, LONG)]}, {"x": "four"}, "x", [LONG]),
        ({"anyOf": [branch(None, SHORT), branch(None, LONG)]}, {"x": "one"}, "x", [SHORT, LONG]),
        ({"anyOf": [branch(None, SHORT), branch(None, LONG, "z")]}, {"x": "one"}, "x", [SHORT]),
        ({"anyOf": [NUMBER, {**SHORT, "enum": ["a"]}, LONG]}, "b", "", [LONG]),
        # None fits, as pydantic reads more than JSON Schema does.
        ({"anyOf": [NUMBER, {"type": "null"}]}, "1", "", [NUMBER, {"type": "null"}]),
        (branch("a", LONG), {"x": "y"}, "x", [LONG]),
    ],
)
def test_the_branches_of_a_value_are_those_that_it_fits(
    schema: dict[str, Any], data: Any, path: str, expected: list[dict[str, Any]]
) -> None:
    assert subschemas_of(schema, data, path) == expected


@pytest.mark.parametrize("path", ["y", "x/0", "kind/x"])
def test_a_path_that_is_not_there_is_a_key_error(path: str) -> None:
    with pytest.raises(KeyError):
        subschemas_of(TOLD_APART, {"kind": "a", "x": "y"}, path)
