"""What Arrow's types cannot hold exactly: one judge for each, and the rescaling of decimals.

A judge takes a value of the right Python type and gives an error's type and message, or None.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, time, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any, cast

Verdict = tuple[str, str] | None
"""An error's type and message, or None for a value that Arrow holds exactly."""

_EXACT = Context(prec=120)
_INT64 = 2**63


def judge_text(value: str) -> Verdict:
    """UTF-8, and so Parquet, has no form for half of a surrogate pair."""
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return "surrogate", f"holds the lone surrogate U+{ord(value[error.start]):04X}; leave that character out"
    return None


def judge_int(value: int) -> Verdict:
    """64 bits, signed."""
    if -_INT64 <= value < _INT64:
        return None
    return "int_range", "does not fit in 64 bits; it must lie between -9223372036854775808 and 9223372036854775807"


def judge_float(value: float) -> Verdict:
    """NaN equals nothing, itself included, and pandas reads it as null."""
    return ("not_a_number", "must be a number, not NaN") if value != value else None


def judge_decimal(precision: int, scale: int) -> Callable[[Decimal], Verdict]:
    """At most ``scale`` decimals and ``precision - scale`` digits before the point."""
    whole = precision - scale

    def judge(value: Decimal) -> Verdict:
        if not value.is_finite():
            return "not_a_number", "must be a finite number"
        if value and value.adjusted() >= whole:
            return "decimal_range", f"must have at most {whole} digits before the decimal point"
        exponent = cast(int, value.as_tuple().exponent)
        if exponent < -scale and value != value.quantize(Decimal(1).scaleb(-scale), ROUND_FLOOR, _EXACT):
            return "decimal_places", f"must have at most {scale} decimal places"
        return None

    return judge


def quantizer(scale: int) -> Callable[[Decimal], Decimal]:
    """Rescale a decimal that is known to fit."""
    unit = Decimal(1).scaleb(-scale)
    return lambda value: value.quantize(unit, None, _EXACT)


def judge_local(value: datetime) -> Verdict:
    """A column of local times has no place for an offset."""
    if value.tzinfo is None:
        return None
    return "time_zone", "must be a local date and time without Z or UTC offset"


def judge_aware(value: datetime) -> Verdict:
    """The instant in UTC must be a date of the years 1 to 9999."""
    if value.utcoffset() is None:
        return "time_zone", "must have a UTC offset, such as Z or +02:00"
    try:
        value - value.utcoffset()  # type: ignore[operator]
    except OverflowError:
        return "datetime_range", "lies outside of the years 1 to 9999 in UTC"
    return None


def judge_duration(value: timedelta) -> Verdict:
    """64 bits of microseconds; the lowest is Arrow's null in pandas."""
    if -_INT64 < value // timedelta(microseconds=1) < _INT64:
        return None
    return "duration_range", "must be shorter than 292,000 years"


def judge_json(value: Any) -> Verdict:
    """JSON text holds it: no NaN, no foreign objects."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return "json", f"must be a JSON value: {error}"
    return None


def judge_time(value: time) -> Verdict:
    """As for local datetimes."""
    return None if value.tzinfo is None else ("time_zone", "must be a local time without Z or UTC offset")
