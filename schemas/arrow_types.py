"""Which column a Python type becomes.

=======================================  ==============================================================
``str``, ``EmailStr``, str subclasses    ``string``
``int``                                  ``int64``
``float``                                ``double``
``bool``                                 ``bool``
``Decimal``                              ``decimal128(38, 9)``; with ``max_digits`` and ``decimal_places``
                                         ``decimal128(max_digits, decimal_places)``; with places alone
                                         ``decimal128(38, places)``; with digits alone as many places
                                         (at most 9) as fit beside that many digits
``date``                                 ``date32``
``datetime``, ``NaiveDatetime``          ``timestamp[us]``: local time as printed; an offset is a problem
``AwareDatetime``                        ``timestamp[us, UTC]``: the same instant, in UTC
``time``                                 ``time64[us]``; an offset is a problem
``timedelta``                            ``duration[us]``; Parquet keeps int64 microseconds, so DuckDB
                                         reads a BIGINT, Arrow and pandas a duration
``Enum``, ``Literal`` of strings         ``dictionary<int32, string>``; DuckDB reads VARCHAR
``Enum``, ``Literal`` of int/float/bool  ``int64``, ``double``, ``bool``
other ``Enum`` / mixed ``Literal``       ``dictionary<int32, string>`` of member names / of JSON texts
``UUID``                                 ``string`` (pandas cannot read lists of Arrow's own UUID type)
``Path``, IP addresses, URLs             ``string``
``bytes``                                ``binary``
``T | None``                             nullable
model, ``tuple[A, B]``                   ``struct``; a tuple's members are ``item_1``, ``item_2``, ...
``RootModel[T]`` inside a model          as ``T``
``list``, ``set``, ``tuple[T, ...]``     ``list``; sets are sorted
``dict[K, V]``                           ``map``; ``K`` a string, int, date, UUID or enum
``A | B``                                ``struct<kind, a, b>``: ``kind`` names the member that is not null
``pydantic.JsonValue``                   ``string`` of JSON text, for what has no type
=======================================  ==============================================================
"""

from __future__ import annotations

import collections.abc
import ipaddress
import json
import pathlib
import types
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, ForwardRef, Literal, NewType, TypeVar, Union, get_args, get_origin
from uuid import UUID

import pyarrow as pa
import pydantic
from pydantic import BaseModel, JsonValue, RootModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from schemas import arrow_columns as columns
from schemas import arrow_limits as limits
from schemas.arrow_columns import Column


class SchemaMappingError(ValueError):
    """A schema cannot be read, or holds a type that cannot become a Parquet column. The message names
    the place and lists the choices."""


CHOICES = (
    "str, int, float, bool, Decimal, date, datetime, time, timedelta, UUID, bytes, Enum, Literal, a pydantic model, "
    "list[T], set[T], tuple[T, ...], dict[str, T], T | None, unions of these, or pydantic.JsonValue to keep JSON text"
)
RESERVED = frozenset({"record_id", "fingerprint"})
"""Columns that every rows table has before the model's own."""

_LOCAL = (datetime, pydantic.NaiveDatetime)
_INSTANTS: tuple[Any, ...] = (pydantic.AwareDatetime,)
_DATES: tuple[Any, ...] = (date, pydantic.PastDate, pydantic.FutureDate)
_IP = tuple(
    vars(ipaddress)[f"IPv{version}{kind}"] for version in (4, 6) for kind in ("Address", "Network", "Interface")
)


class ColumnBuilder:
    """Turns annotations into columns for one model. Not for reuse across models."""

    def __init__(self) -> None:
        self._open: list[type[BaseModel]] = []

    def model(self, model: type[BaseModel], path: str) -> columns.ModelColumn:
        """The struct of a model's fields, in their order. Raises ``SchemaMappingError``."""
        if model in self._open:
            loop = " -> ".join(each.__name__ for each in [*self._open[self._open.index(model) :], model])
            raise SchemaMappingError(
                f"{path}: {model.__name__} contains itself ({loop}), and a Parquet column has a fixed depth; spell out "
                "as many levels as you need with a model for each, or keep the value as pydantic.JsonValue"
            )
        _complete(model, path)
        if model.model_config.get("extra") == "allow":
            raise SchemaMappingError(
                f"{path}: {model.__name__} allows extra keys, which have no column; set extra='ignore' or "
                "extra='forbid', or declare a field of type dict[str, T] for them"
            )
        if not model.model_fields:
            raise SchemaMappingError(f"{path}: {model.__name__} has no fields, so there is no column; add one")
        self._open.append(model)
        fields, built, keys = [], [], []
        seen: dict[str, str] = {}
        for name, info in model.model_fields.items():
            where = f"{path}.{name}"
            if name.lower() in seen:
                raise SchemaMappingError(
                    f"{where}: differs from {seen[name.lower()]} by case only, which DuckDB cannot tell apart; rename "
                    f'one and keep its key with Field(alias="{name}")'
                )
            seen[name.lower()] = name
            column, nullable = self.column(info.annotation, info.metadata, where, config=model.model_config)
            note = {"description": info.description} if info.description else None
            fields.append(pa.field(name, column.arrow, nullable=nullable, metadata=note))
            built.append(column)
            keys.append(json_key(name, info, where))
        self._open.pop()
        return columns.ModelColumn(model, list(model.model_fields), keys, fields=fields, columns=built)

    def column(
        self, annotation: Any, metadata: list[Any], path: str, *, config: Any, key: bool = False
    ) -> tuple[Column, bool]:
        """The column of an annotation and whether it may be null."""
        metadata = list(metadata)
        while True:
            if annotation is JsonValue:
                return _json_text(), True
            if get_origin(annotation) is Annotated:
                annotation, *more = get_args(annotation)
                metadata.extend(more)
            elif hasattr(annotation, "__value__"):  # a `type X = ...` alias
                annotation = annotation.__value__
            elif isinstance(annotation, NewType):
                annotation = annotation.__supertype__
            elif get_origin(annotation) is Final:
                (annotation,) = get_args(annotation)
            else:
                break
        origin = get_origin(annotation)
        if origin in (Union, types.UnionType):
            return self._union(get_args(annotation), metadata, path, config=config)
        if origin is Literal:
            return self._literal(get_args(annotation), path, plain=key)
        if key or not isinstance(annotation, type) or origin is not None:
            found = None if key else self._container(annotation, origin, path, config=config)
        elif issubclass(annotation, RootModel):
            return self._root(annotation, path)
        elif issubclass(annotation, BaseModel):
            return self.model(annotation, path), False
        else:
            found = None
        if found is None:
            found = _scalar(annotation, metadata, path, config=config, plain=key)
        return found, False

    def _union(self, parts: tuple[Any, ...], metadata: list[Any], path: str, *, config: Any) -> tuple[Column, bool]:
        nullable = type(None) in parts
        branches: list[Column] = []
        for part in parts:
            if part is type(None):
                continue
            column, inner_nullable = self.column(part, metadata, path, config=config)
            nullable = nullable or inner_nullable
            branches.append(column)
        if len(branches) == 1:
            return branches[0], nullable
        # ``typing`` takes A | B for B | A and gives back whichever it made first: the order of a column's
        # members must not depend on that.
        branches.sort(key=lambda branch: (branch.name, str(branch.arrow)))
        return columns.UnionColumn(branches), nullable

    def _literal(self, values: tuple[Any, ...], path: str, *, plain: bool) -> tuple[Column, bool]:
        nullable = None in values
        values = tuple(value for value in values if value is not None)
        if not values:
            raise SchemaMappingError(f"{path}: Literal[None] is always null; leave the field out or use {CHOICES}")
        raw = [value.value if isinstance(value, Enum) else value for value in values]
        cells: list[Any] = raw
        if not _uniform(raw):
            cells = [json.dumps(value, default=str) for value in raw]
        return columns.Choice("literal", values, cells, plain=plain), nullable

    def _container(self, annotation: Any, origin: Any, path: str, *, config: Any) -> Column | None:
        arguments = get_args(annotation)
        inside = f"{path}[]"
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            built = [
                self.column(part, [], f"{path}[{number}]", config=config)[0] for number, part in enumerate(arguments)
            ]
            return columns.TupleColumn(built)
        make = {collections.abc.Sequence: list, collections.abc.Set: set}.get(origin, origin)
        if make in (list, set, frozenset, tuple) and arguments:
            return columns.ListColumn(make, self.column(arguments[0], [], inside, config=config)[0])
        if origin in (dict, collections.abc.Mapping) and len(arguments) == 2:
            key, nullable = self.column(arguments[0], [], f"{path} (its keys)", config=config, key=True)
            if nullable or not isinstance(key, columns.Scalar | columns.Choice) or pa.types.is_floating(key.arrow):
                raise refused(f"{path} (its keys)", arguments[0], "use str, int, date, UUID or an enum as keys")
            return columns.MapColumn(key, self.column(arguments[1], [], inside, config=config)[0])
        return None

    def _root(self, model: type[BaseModel], path: str) -> tuple[Column, bool]:
        if model in self._open:
            raise SchemaMappingError(f"{path}: {model.__name__} contains itself; a Parquet column has a fixed depth")
        _complete(model, path)
        self._open.append(model)
        info = model.model_fields["root"]
        column, nullable = self.column(info.annotation, info.metadata, path, config=model.model_config)
        self._open.pop()
        if nullable:
            raise SchemaMappingError(
                f"{path}: the root of {model.__name__} may be null, which cannot be told from a missing "
                f"{model.__name__}; make the field itself optional: {model.__name__} | None"
            )
        return columns.RootColumn(model, column), False


def json_key(name: str, info: FieldInfo, path: str) -> str:
    """The JSON key that fills a field: its validation alias, alias or name."""
    alias = info.validation_alias if info.validation_alias is not None else info.alias
    if isinstance(alias, pydantic.AliasChoices):
        alias = alias.choices[0]
    if isinstance(alias, pydantic.AliasPath):
        raise SchemaMappingError(f"{path}: AliasPath reads from elsewhere in the answer; use a plain alias or none")
    return alias or name


def refused(path: str, annotation: Any, hint: str | None = None) -> SchemaMappingError:
    """The error for a type that has no column."""
    name = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return SchemaMappingError(f"{path}: {name} cannot become a Parquet column; {hint or 'use ' + CHOICES}")


def _complete(model: type[BaseModel], path: str) -> None:
    if getattr(model, "__pydantic_complete__", False):
        return
    try:
        model.model_rebuild()
    except (PydanticUserError, NameError) as error:
        reason = str(error).splitlines()[0]
        raise SchemaMappingError(f"{path}: {model.__name__} refers to a type that is not defined: {reason}") from error


def _scalar(annotation: Any, metadata: list[Any], path: str, *, config: Any, plain: bool) -> Column:
    if annotation in _DATES:
        return columns.Scalar("date", pa.date32(), accepts=lambda value: type(value) is date)
    if annotation in _INSTANTS:
        return columns.Scalar(
            "datetime",
            pa.timestamp("us", "UTC"),
            accepts=lambda value: isinstance(value, datetime) and value.tzinfo is not None,
            to_cell=lambda value: value.astimezone(UTC),
            from_cell=lambda cell: cell.astimezone(UTC),
            verdict=limits.judge_aware,
        )
    if annotation in _LOCAL or annotation in (pydantic.PastDatetime, pydantic.FutureDatetime):
        return columns.Scalar(
            "local_datetime",
            pa.timestamp("us"),
            accepts=lambda value: isinstance(value, datetime),
            verdict=limits.judge_local,
        )
    if annotation is pydantic.EmailStr:
        annotation = str
    if not isinstance(annotation, type) or isinstance(annotation, TypeVar | ForwardRef):
        raise refused(path, annotation)
    if issubclass(annotation, Enum):
        return _enum(annotation, path, values=bool(config.get("use_enum_values")), plain=plain)
    if annotation is bool:
        return columns.Scalar("bool", pa.bool_(), accepts=lambda value: type(value) is bool)
    if annotation is time:
        return columns.Scalar("time", pa.time64("us"), accepts=_exactly(time), verdict=limits.judge_time)
    if annotation is timedelta:
        return columns.Scalar("duration", pa.duration("us"), accepts=_exactly(timedelta), verdict=limits.judge_duration)
    if annotation is UUID:
        return _text("uuid", UUID, UUID)
    if annotation is bytes:
        return columns.Scalar("bytes", pa.binary(), accepts=_exactly(bytes))
    if annotation is float:
        return columns.Scalar("float", pa.float64(), accepts=_exactly(float), verdict=limits.judge_float)
    if annotation is Decimal:
        return _decimal(metadata, path)
    if issubclass(annotation, str):
        as_text = None if annotation is str else annotation
        return columns.Scalar(
            "str", pa.string(), accepts=_exactly(annotation), from_cell=as_text, verdict=limits.judge_text
        )
    if issubclass(annotation, int):
        back = None if annotation is int else annotation
        return columns.Scalar("int", pa.int64(), accepts=_exactly(annotation), from_cell=back, verdict=limits.judge_int)
    if issubclass(annotation, pathlib.PurePath):
        return _text("path", annotation, annotation)
    if issubclass(annotation, _IP):
        return _text("ip", annotation, annotation)
    if issubclass(annotation, pydantic.networks._BaseUrl | pydantic.networks._BaseMultiHostUrl):
        return _text("url", annotation, TypeAdapter(annotation).validate_python)
    raise refused(path, annotation)


def _text(name: str, kind: type, parse: Any) -> Column:
    return columns.Scalar(
        name,
        pa.string(),
        accepts=lambda value: isinstance(value, kind),
        to_cell=str,
        from_cell=parse,
        verdict=lambda value: limits.judge_text(str(value)),
    )


def _json_text() -> Column:
    return columns.Scalar(
        "json",
        pa.string(),
        accepts=lambda value: True,
        to_cell=lambda value: json.dumps(value, separators=(",", ":"), allow_nan=False),
        from_cell=json.loads,
        verdict=limits.judge_json,
    )


def _enum(kind: type[Enum], path: str, *, values: bool, plain: bool) -> Column:
    members = list(kind)
    if not members:
        raise SchemaMappingError(f"{path}: {kind.__name__} has no members; add the values that may occur")
    raw = [member.value for member in members]
    # Compared by type: a StrEnum's value is a str.
    cells = [str(value) if isinstance(value, str) else value for value in raw]
    if not _uniform(cells):
        cells = [member.name for member in members]
    return columns.Choice(kind.__name__, raw if values else members, cells, plain=plain)


def _uniform(cells: list[Any]) -> bool:
    kinds = {type(cell) for cell in cells}
    if kinds == {int}:
        return all(limits.judge_int(cell) is None for cell in cells)
    return len(kinds) == 1 and kinds <= {str, bool, float}


def _decimal(metadata: list[Any], path: str) -> Column:
    digits, places = _decimal_limits(metadata)
    if (digits or 0) > 38 or (places or 0) > 38:
        raise SchemaMappingError(
            f"{path}: a Decimal of more than 38 digits cannot become a Parquet column that DuckDB reads exactly; "
            "use max_digits=38 or less, or str"
        )
    if digits is not None and places is None:
        places = min(9, 38 - digits)
        precision = digits + places
    else:
        places = 9 if places is None else places
        precision = max(digits or 38, places)
    return columns.Scalar(
        "decimal",
        pa.decimal128(precision, places),
        accepts=_exactly(Decimal),
        to_cell=limits.quantizer(places),
        verdict=limits.judge_decimal(precision, places),
    )


def _decimal_limits(metadata: list[Any]) -> tuple[int | None, int | None]:
    digits = places = None
    for item in metadata:
        inner = _decimal_limits(item.metadata) if isinstance(item, FieldInfo) else (None, None)
        digits = getattr(item, "max_digits", None) or inner[0] or digits
        found = getattr(item, "decimal_places", None)
        found = inner[1] if found is None else found
        places = places if found is None else found
    return digits, places


def _exactly(kind: type) -> Any:
    return lambda value: type(value) is kind
