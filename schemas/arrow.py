"""``RowCodec``: a model's Arrow schema, and models to tables and back without loss.

How each type is mapped stands in ``schemas.arrow_types``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, RootModel

from schemas.arrow_types import RESERVED, ColumnBuilder, SchemaMappingError
from schemas.jsonschema import answer_schema
from schemas.outcomes import FieldProblem

__all__ = ["JSON_SCHEMA_KEY", "RowCodec", "SchemaMappingError"]

JSON_SCHEMA_KEY = "quarry.json_schema"
"""The key of the JSON Schema text in the Arrow schema's metadata."""


class RowCodec:
    """Encodes instances of one model; compile it once.

    ``schema`` has one column for each field, in the fields' order and under the fields' names (an alias is
    a matter of the JSON answer), with the description in each column's metadata and the JSON Schema text in
    the schema's own. Raises ``SchemaMappingError`` for a model that has no exact table.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise SchemaMappingError(f"{model!r} is not a pydantic model class")
        if issubclass(model, RootModel):
            raise SchemaMappingError(
                f"{model.__name__}: a RootModel has no fields to make columns of; put its root into a field of a model"
            )
        self.model = model
        self._struct = ColumnBuilder().model(model, model.__name__)
        for name in model.model_fields:
            if name.lower() in RESERVED:
                raise SchemaMappingError(
                    f"{model.__name__}.{name}: the rows table has its own column {name.lower()}; rename the field and "
                    f'keep its key, for example {name}_ with Field(alias="{name}")'
                )
        text = json.dumps(answer_schema(model), ensure_ascii=False, separators=(",", ":"))
        self.schema = pa.schema(self._struct.fields, metadata={JSON_SCHEMA_KEY: text})

    def encode(self, values: Sequence[BaseModel]) -> pa.Table:
        """A table of ``self.schema`` with a row for each value, in order. Values must have passed
        ``check``; Arrow raises ``pa.ArrowInvalid`` or ``OverflowError`` for one that has not."""
        split = self._struct.split(values)
        arrays = [column.encode(cells) for column, cells in zip(self._struct.columns, split, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def decode(self, table: pa.Table) -> list[BaseModel]:
        """The models of a table's rows, equal to those that were encoded. Columns that are not the
        model's are ignored; raises ``KeyError`` when one of the model's is missing."""
        members = []
        for name, column in zip(self.schema.names, self._struct.columns, strict=True):
            chunks: list[Any] = []
            for chunk in table.column(name).chunks:
                chunks.extend(column.decode(chunk))
            members.append(chunks)
        return self._struct.join(members)

    def check(self, value: BaseModel) -> list[FieldProblem]:
        """What the table could not hold exactly, as problems at JSON paths: integers beyond 64 bits,
        decimals of too many digits, offsets where local times belong (or none where they are needed),
        lone surrogates, NaN, durations and instants out of range, and values that a validator turned
        into another type. Empty for a value that round-trips."""
        problems: list[FieldProblem] = []
        self._struct.check_fields(value, "", problems)
        return problems
