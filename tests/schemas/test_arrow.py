"""The mapping of each type, what is refused, and what ``check`` finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pytest
from pydantic import (
    AfterValidator,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    SecretStr,
    StringConstraints,
    conint,
    create_model,
)
from typing_extensions import TypedDict

from schemas.arrow import JSON_SCHEMA_KEY, RowCodec, SchemaMappingError


class Size(StrEnum):
    SMALL = "s"
    LARGE = "l"


class Ratio(Enum):
    HALF = 0.5
    FULL = 1.0


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Tags(RootModel[list[str]]):
    pass


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Empty(BaseModel):
    pass


class Typed(TypedDict):
    name: str


@dataclass
class Plain:
    name: str


def codec_of(annotation: Any, **field: Any) -> RowCodec:
    return RowCodec(create_model("Sample", value=(annotation, Field(**field))))


TEXT_CHOICE = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("annotation", "arrow"),
    [
        (Annotated[str, StringConstraints(max_length=3)], pa.string()),
        (conint(ge=0), pa.int64()),
        (Decimal, pa.decimal128(38, 9)),
        (Annotated[Decimal, Field(max_digits=12, decimal_places=2)], pa.decimal128(12, 2)),
        (Annotated[Decimal, Field(decimal_places=4)], pa.decimal128(38, 4)),
        (Annotated[Decimal, Field(max_digits=10)], pa.decimal128(19, 9)),
        (datetime, pa.timestamp("us")),
        (AwareDatetime, pa.timestamp("us", "UTC")),
        (timedelta, pa.duration("us")),
        (Size, TEXT_CHOICE),
        (Ratio, pa.float64()),
        (Literal[1, 2], pa.int64()),
        (Literal["a", 1], TEXT_CHOICE),
        (dict[Size, int], pa.map_(pa.string(), pa.int64())),
        (set[int], pa.list_(pa.field("element", pa.int64()))),
        (tuple[int, ...], pa.list_(pa.field("element", pa.int64()))),
        (tuple[int, str], pa.struct([("item_1", pa.int64()), ("item_2", pa.string())])),
        (Tags, pa.list_(pa.field("element", pa.string()))),
        (Path, pa.string()),
        (AnyUrl, pa.string()),
        (JsonValue, pa.string()),
        (int | str, pa.struct([("kind", TEXT_CHOICE), ("int", pa.int64()), ("str", pa.string())])),
    ],
    ids=str,
)
def test_each_type_has_its_arrow_type(annotation: Any, arrow: pa.DataType) -> None:
    assert codec_of(annotation).schema.field("value").type == arrow


def test_columns_follow_the_fields_with_their_descriptions_and_nullability() -> None:
    class Book(BaseModel):
        title: str = Field(description="Title on the cover.", alias="Title")
        pages: int | None = None

    schema = RowCodec(Book).schema
    assert schema.names == ["title", "pages"]
    assert schema.field("title").metadata == {b"description": b"Title on the cover."}
    assert [field.nullable for field in schema] == [False, True]
    assert json.loads(schema.metadata[JSON_SCHEMA_KEY.encode()])["required"] == ["Title"]


def test_a_discriminated_union_of_models_keeps_which_it_was() -> None:
    class Owner(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None

    codec = RowCodec(Owner)
    values = [Owner(pet=Dog(kind="dog", tricks=["sit"])), Owner(pet=None), Owner(pet=Cat(kind="cat", lives=9))]
    table = codec.encode(values)
    assert table.column("pet").to_pylist()[0] == {"kind": "Dog", "Cat": None, "Dog": {"kind": "dog", "tricks": ["sit"]}}
    assert codec.decode(table) == values


def test_aliases_that_swap_names_do_not_swap_values() -> None:
    class Swapped(BaseModel):
        first: int = Field(alias="second")
        second: int = Field(alias="first")

    codec = RowCodec(Swapped)
    value = Swapped.model_validate({"first": 1, "second": 2})
    table = codec.encode([value])
    assert table.to_pylist() == [{"first": 2, "second": 1}]
    assert codec.decode(table) == [value]


def test_equal_sets_give_equal_bytes() -> None:
    codec = codec_of(set[str])
    one, other = codec.model(value=set("abcdefgh")), codec.model(value=set("hgfedcba"))
    assert codec.encode([one]).equals(codec.encode([other]))


def test_an_instant_with_an_offset_is_written_in_utc() -> None:
    codec = codec_of(AwareDatetime)
    value = codec.model.model_validate({"value": "2024-05-01T12:00:00+02:00"})
    (back,) = codec.decode(codec.encode([value]))
    assert back == value
    assert back.value == datetime(2024, 5, 1, 10, tzinfo=UTC)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (dict, "Sample.value: dict cannot become"),
        (list, "Sample.value: list cannot become"),
        (Any, "Sample.value: Any cannot become"),
        (object, "Sample.value: object cannot become"),
        (Callable[[], int], "Sample.value: collections.abc.Callable"),
        (SecretStr, "Sample.value: SecretStr cannot become"),
        (complex, "Sample.value: complex cannot become"),
        (Typed, "Sample.value: Typed cannot become"),
        (Plain, "Sample.value: Plain cannot become"),
        (list[dict[str, Any]], r"Sample.value\[\]\[\]: Any cannot become"),
        (dict[float, str], "use str, int, date, UUID or an enum as keys"),
        (Literal[None], "always null"),
        (Node, r"Sample.value.children\[\]: Node contains itself \(Node -> Node\)"),
        (Open, "Sample.value: Open allows extra keys"),
        (Empty, "Sample.value: Empty has no fields"),
        (Annotated[Decimal, Field(max_digits=40)], "max_digits=38 or less"),
    ],
    ids=str,
)
def test_a_type_without_a_column_is_refused_with_its_place(annotation: Any, words: str) -> None:
    with pytest.raises(SchemaMappingError, match=words):
        codec_of(annotation)


def test_the_refusal_lists_the_choices() -> None:
    with pytest.raises(SchemaMappingError, match=r"use str, int, float, bool, Decimal, .*pydantic\.JsonValue"):
        codec_of(object)


@pytest.mark.parametrize("name", ["record_id", "Fingerprint"])
def test_names_of_our_own_columns_are_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(SchemaMappingError, match=rf'{name}_ with Field\(alias="{name}"\)'):
        RowCodec(create_model("Sample", **{name: (str, ...)}))  # type: ignore[call-overload]


def test_names_that_differ_by_case_only_are_refused() -> None:
    with pytest.raises(SchemaMappingError, match=r"Sample\.Name: differs from name by case only"):
        RowCodec(create_model("Sample", name=(str, ...), Name=(str, ...)))


@pytest.mark.parametrize(
    ("annotation", "value", "error"),
    [
        (int, 2**63, "int_range"),
        (int, -(2**63) - 1, "int_range"),
        (str, "half \ud83d", "surrogate"),
        (float, float("nan"), "not_a_number"),
        (Decimal, Decimal("NaN"), "not_a_number"),
        (Decimal, Decimal("1e29"), "decimal_range"),
        (Decimal, Decimal("0.0000000001"), "decimal_places"),
        (datetime, datetime(2024, 1, 1, tzinfo=UTC), "time_zone"),
        (AwareDatetime, datetime(2024, 1, 1), "column_type"),
        (time, time(1, tzinfo=UTC), "time_zone"),
        (timedelta, timedelta.max, "duration_range"),
        (AwareDatetime, datetime.fromisoformat("0001-01-01T00:00:00+02:00"), "datetime_range"),
        (JsonValue, {"a": float("inf")}, "json"),
        (int, True, "column_type"),
        (str | int, 2**70, "int_range"),
    ],
    ids=repr,
)
def test_check_finds_what_arrow_cannot_hold(annotation: Any, value: Any, error: str) -> None:
    codec = codec_of(annotation)
    (problem,) = codec.check(codec.model.model_construct(value=value))
    assert (problem.path, problem.error) == ("value", error)
    assert problem.message
    assert problem.value is not None


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2**63 - 1),
        (int, -(2**63)),
        (Decimal, Decimal("99999999999999999999999999999.999999999")),
        (Decimal, Decimal("1.50000000000000000000000000000000000000000000")),
        (Decimal, Decimal("-0")),
        (Decimal, Decimal("1e28")),
        (float, float("-inf")),
        (str, "𝄞\x00"),
        (JsonValue, {"half": "\ud83d", "big": 10**40}),
    ],
    ids=repr,
)
def test_values_at_the_limit_pass_and_round_trip(annotation: Any, value: Any) -> None:
    codec = codec_of(annotation)
    made = codec.model.model_construct(value=value)
    assert codec.check(made) == []
    assert codec.decode(codec.encode([made])) == [made]


def test_check_names_nested_places_by_json_key() -> None:
    class Line(BaseModel):
        count: int = Field(alias="line/count")

    class Order(BaseModel):
        lines: list[Line]
        notes: dict[str, str]

    value = Order(lines=[Line(**{"line/count": 1}), Line(**{"line/count": 2**64})], notes={"a~b": "\udc00"})
    assert [problem.path for problem in RowCodec(Order).check(value)] == ["lines/1/line~1count", "notes/a~0b"]


def test_a_validator_that_changes_the_type_is_found_before_arrow_is() -> None:
    codec = codec_of(Annotated[str, AfterValidator(len)])
    (problem,) = codec.check(codec.model(value="abc"))
    assert problem.message == "validated to a int, which a column of string does not hold"
