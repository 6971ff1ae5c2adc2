"""The schema that the model sees, and finding its parts."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import AwareDatetime, BaseModel, Field

from schemas.arrow import SchemaMappingError
from schemas.jsonschema import answer_schema, subschema


class Line(BaseModel):
    title: str = Field(description="What it is.")
    price: Decimal | None = Field(default=None, ge=0, max_digits=8, decimal_places=2)


class Cash(BaseModel):
    amount: int


class Card(BaseModel):
    number: str


class Sale(BaseModel):
    """A sale."""

    zulu: date
    alpha: list[Line] = Field(description="The lines.")
    payment: Cash | Card | None = None
    counts: dict[str, int] = {}
    printed: datetime | None = Field(default=None, description="When it was printed.")
    sent: AwareDatetime | None = None
    default: str = Field(default="x", alias="the-default")


SCHEMA = answer_schema(Sale)


def keys_of(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        return set(schema).union(*(keys_of(value) for value in schema.values()))
    return set().union(*(keys_of(value) for value in schema)) if isinstance(schema, list) else set()


def test_references_titles_and_defaults_are_gone() -> None:
    assert not keys_of(SCHEMA) & {"$ref", "$defs", "default"}
    assert "title" not in SCHEMA
    assert "title" not in SCHEMA["properties"]["zulu"]


def test_a_property_called_title_stays() -> None:
    assert SCHEMA["properties"]["alpha"]["items"]["properties"]["title"] == {
        "type": "string",
        "description": "What it is.",
    }


def test_order_descriptions_and_aliases_are_kept() -> None:
    assert list(SCHEMA["properties"]) == ["zulu", "alpha", "payment", "counts", "printed", "sent", "the-default"]
    assert SCHEMA["description"] == "A sale."
    assert SCHEMA["properties"]["alpha"]["description"] == "The lines."


def test_a_decimal_is_a_number_on_the_wire() -> None:
    assert subschema(SCHEMA, "alpha/0/price") == {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}


def test_a_local_datetime_does_not_promise_an_offset_and_says_its_form() -> None:
    printed, sent = SCHEMA["properties"]["printed"], SCHEMA["properties"]["sent"]
    assert printed["description"] == ("When it was printed; local date and time YYYY-MM-DDTHH:MM:SS, without a zone")
    assert "format" not in printed["anyOf"][0]
    assert sent["anyOf"][0]["format"] == "date-time"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", SCHEMA),
        ("zulu", {"format": "date", "type": "string"}),
        ("alpha/7/title", {"type": "string", "description": "What it is."}),
        ("payment/amount", {"type": "integer"}),
        ("counts/a~1b", {"type": "integer"}),
        ("the-default", {"type": "string"}),
    ],
)
def test_a_path_finds_its_schema(path: str, expected: dict[str, Any]) -> None:
    assert subschema(SCHEMA, path) == expected


@pytest.mark.parametrize("path", ["nope", "zulu/year", "alpha/x", "alpha/0/nope", "payment/nope"])
def test_a_path_that_is_not_there_is_a_key_error(path: str) -> None:
    with pytest.raises(KeyError):
        subschema(SCHEMA, path)


def test_a_path_in_several_branches_is_their_union() -> None:
    branches = [{"type": "object", "properties": {"a": {"type": kind}}} for kind in ("string", "integer", "string")]
    assert subschema({"anyOf": branches}, "a") == {"anyOf": [{"type": "string"}, {"type": "integer"}]}


def test_a_recursive_model_has_no_answer_schema() -> None:
    with pytest.raises(SchemaMappingError, match="Tree contains itself"):
        answer_schema(Tree)


class Tree(BaseModel):
    inner: Annotated[Tree | None, Field()] = None
