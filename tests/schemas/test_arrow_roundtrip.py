"""Generated models and values, written to a real Parquet file and read through Arrow, DuckDB and pandas.

What holds for each reader:

- Arrow with ``RowCodec.decode``: the models are equal to those written.
- DuckDB ``select *``: every value is equal after these stated changes: enums and literals are their cell
  (VARCHAR or number), durations are BIGINT microseconds, UUIDs and JSON values are VARCHAR, sets and tuples are lists,
  models and unions are structs, instants are in the session's zone.
- pandas with ``dtype_backend="pyarrow"``: as DuckDB, but durations stay durations and maps are lists of pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union
from uuid import UUID

import duckdb
import pandas as pd
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, create_model

from schemas.arrow import RowCodec


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1
    HIGH = 9


class Mixed(Enum):
    ONE = 1
    PAIR = (1, 2)


View = Callable[[Any, str], Any]
"""What a reader ("duckdb" or "pandas") shows for a value that is not None."""


class Kind:
    """An annotation, its values, and what readers show for them."""

    def __init__(self, annotation: Any, values: st.SearchStrategy[Any], view: View, name: str = "") -> None:
        self.annotation = annotation
        self.values = values
        self.view = view
        self.name = name


def same(value: Any, reader: str) -> Any:
    return value


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
OFFSETS = st.builds(timezone, st.timedeltas(timedelta(hours=-14), timedelta(hours=14)))
JSON = st.recursive(
    st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(TEXT, inner | st.none(), max_size=3),
    max_leaves=6,
)


def json_view(value: Any, reader: str) -> str:
    import json

    return json.dumps(value, separators=(",", ":"))


def micros(value: timedelta, reader: str) -> Any:
    return value // timedelta(microseconds=1) if reader == "duckdb" else value


LEAVES = [
    Kind(str, TEXT, same, "str"),
    Kind(int, st.integers(-(2**63), 2**63 - 1), same, "int"),
    Kind(float, st.floats(allow_nan=False), same, "float"),
    Kind(bool, st.booleans(), same, "bool"),
    Kind(
        Annotated[Decimal, Field(max_digits=12, decimal_places=2)],
        st.decimals(Decimal("-9999999999.99"), Decimal("9999999999.99"), places=2),
        same,
        "decimal",
    ),
    Kind(date, st.dates(), same, "date"),
    Kind(datetime, st.datetimes(), same, "local_datetime"),
    Kind(
        AwareDatetime,
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=OFFSETS),
        lambda value, reader: value.astimezone(UTC),
        "datetime",
    ),
    Kind(time, st.times(), same, "time"),
    Kind(timedelta, st.timedeltas(timedelta(days=-90_000_000), timedelta(days=90_000_000)), micros, "duration"),
    Kind(bytes, st.binary(max_size=8), same, "bytes"),
    Kind(UUID, st.uuids(), lambda value, reader: str(value), "uuid"),
    Kind(Colour, st.sampled_from(Colour), lambda value, reader: value.value, "Colour"),
    Kind(Level, st.sampled_from(Level), lambda value, reader: value.value, "Level"),
    Kind(Mixed, st.sampled_from(Mixed), lambda value, reader: value.name, "Mixed"),
    Kind(Literal["a", "b"], st.sampled_from(["a", "b"]), same, "literal"),
    Kind(Literal[1, 2, 3], st.sampled_from([1, 2, 3]), same, "literal"),
    Kind(Literal["a", 1, True], st.sampled_from(["a", 1, True]), json_view, "literal"),
]
FREE = Kind(JsonValue, JSON, json_view, "json")
UNION_PARTS = [LEAVES[number] for number in (0, 1, 2, 3, 5, 10, 11)]


def view_or_none(kind: Kind, value: Any, reader: str) -> Any:
    return None if value is None else kind.view(value, reader)


def list_of(kind: Kind) -> Kind:
    def view(value: Any, reader: str) -> Any:
        return [view_or_none(kind, item, reader) for item in value]

    return Kind(list[kind.annotation], st.lists(kind.values, max_size=3), view)  # type: ignore[name-defined]


def optional_items(kind: Kind) -> Kind:
    def view(value: Any, reader: str) -> Any:
        return [view_or_none(kind, item, reader) for item in value]

    values = st.lists(kind.values | st.none(), max_size=3)
    return Kind(list[kind.annotation | None], values, view)  # type: ignore[name-defined]


def map_of(kind: Kind) -> Kind:
    def view(value: Any, reader: str) -> Any:
        pairs = [(key, view_or_none(kind, item, reader)) for key, item in value.items()]
        return dict(pairs) if reader == "duckdb" else pairs

    return Kind(dict[str, kind.annotation], st.dictionaries(TEXT, kind.values, max_size=3), view)  # type: ignore[name-defined]


def pair_of(first: Kind, second: Kind) -> Kind:
    def view(value: Any, reader: str) -> Any:
        return {"item_1": first.view(value[0], reader), "item_2": second.view(value[1], reader)}

    annotation = tuple[first.annotation, second.annotation]  # type: ignore[name-defined]
    return Kind(annotation, st.tuples(first.values, second.values), view)


@st.composite
def unions(draw: st.DrawFn) -> Kind:
    parts = draw(st.lists(st.sampled_from(UNION_PARTS), min_size=2, max_size=3, unique_by=lambda kind: kind.name))

    def view(value: Any, reader: str) -> Any:
        chosen = next(kind for kind in parts if type(value) is kind.annotation)
        shown = {kind.name: chosen.view(value, reader) if kind is chosen else None for kind in parts}
        return {"kind": chosen.name, **shown}

    annotation = Union[tuple(kind.annotation for kind in parts)]  # noqa: UP007
    return Kind(annotation, st.one_of([kind.values for kind in parts]), view)


@st.composite
def models(draw: st.DrawFn, depth: int) -> Kind:
    kinds = draw(st.lists(kinds_of(depth - 1), min_size=1, max_size=4))
    optional = [draw(st.booleans()) for _ in kinds]
    fields: dict[str, Any] = {
        f"f{number}": (kind.annotation | None if free else kind.annotation, ...)
        for number, (kind, free) in enumerate(zip(kinds, optional, strict=True))
    }
    model = create_model("Made", __config__=ConfigDict(ser_json_inf_nan="constants"), **fields)
    values = st.builds(
        model,
        **{
            f"f{number}": kind.values | st.none() if free else kind.values
            for number, (kind, free) in enumerate(zip(kinds, optional, strict=True))
        },
    )

    def view(value: Any, reader: str) -> Any:
        return {f"f{n}": view_or_none(kind, getattr(value, f"f{n}"), reader) for n, kind in enumerate(kinds)}

    return Kind(model, values, view)


def kinds_of(depth: int) -> st.SearchStrategy[Kind]:
    leaves = st.sampled_from([*LEAVES, FREE])
    if depth <= 0:
        return leaves
    inner = kinds_of(depth - 1)
    return st.one_of(
        leaves,
        unions(),
        inner.map(list_of),
        st.sampled_from(LEAVES).map(optional_items),
        inner.map(map_of),
        st.tuples(st.sampled_from(LEAVES), st.sampled_from(LEAVES)).map(lambda pair: pair_of(*pair)),
        models(depth),
    )


def plain(value: Any) -> Any:
    """A pandas cell as plain Python."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return None if value is pd.NA or value is pd.NaT else value


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_model_reads_back_equal_through_arrow_duckdb_and_pandas(data: st.DataObject) -> None:
    kind = data.draw(models(3))
    values = data.draw(st.lists(kind.values, max_size=4))
    codec = RowCodec(kind.annotation)
    assert [problem for value in values for problem in codec.check(value)] == []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(codec.encode(values), path)

        back = pq.read_table(path)
        assert back.schema.equals(codec.schema)
        assert codec.decode(back) == values

        with duckdb.connect() as connection:
            connection.execute("set timezone = 'UTC'")
            rows = connection.execute("select * from read_parquet(?)", [str(path)]).fetchall()
        names = list(kind.annotation.model_fields)
        assert [dict(zip(names, row, strict=True)) for row in rows] == [kind.view(value, "duckdb") for value in values]

        frame = pd.read_parquet(path, dtype_backend="pyarrow")
        columns = {name: [plain(cell) for cell in frame[name].tolist()] for name in names}
        shown = [kind.view(value, "pandas") for value in values]
        assert columns == {name: [row[name] for row in shown] for name in names}


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_slice_of_a_table_decodes_to_the_slice_of_the_values(data: st.DataObject) -> None:
    kind = data.draw(models(2))
    values = data.draw(st.lists(kind.values, min_size=3, max_size=5))
    codec = RowCodec(kind.annotation)
    assert codec.decode(codec.encode(values).slice(1, 2)) == values[1:3]


def test_chunked_tables_decode_in_order() -> None:
    import pyarrow as pa

    class Tagged(BaseModel):
        tags: list[str]
        colour: Colour

    codec = RowCodec(Tagged)
    first, second = Tagged(tags=["a"], colour=Colour.RED), Tagged(tags=[], colour=Colour.GREEN)
    assert codec.decode(pa.concat_tables([codec.encode([first]), codec.encode([second])])) == [first, second]
