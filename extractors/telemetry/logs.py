"""Log lines that say which run, chunk and record they are about, as text or as one JSON object a line.

The ids are put on a ``LogRecord`` by a filter of the handler (a logger's filter does not see what its children log),
from the context variables of ``extractors.telemetry.ids``. JSON keys are those of the Elastic and Datadog conventions
as far as both agree: ``timestamp`` (ISO 8601, UTC), ``level``, ``logger``, ``message``; then the ids, then what the
line's ``extra`` held.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from extractors.errors import JobError
from extractors.telemetry.ids import current_ids

LogFormat = Literal["text", "json"]
FORMATS: tuple[LogFormat, ...] = ("text", "json")
FORMAT_VARIABLE = "QUARRY_LOG_FORMAT"
LEVEL_VARIABLE = "QUARRY_LOG"
_TEXT = "%(levelname)s %(name)s: %(message)s"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "ids"}


class WithIds(logging.Filter):
    """Adds ``ids`` to every record: those known where the line was logged. Lets everything pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        record.ids = current_ids()
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line; an exception is its traceback in ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        told: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "ids", {}),
            **{name: value for name, value in vars(record).items() if name not in _OWN},
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return _dumped(told)


class TextWithIds(logging.Formatter):
    """The message, and the ids behind it: for a place that keeps nothing but a message, such as Prefect's logs."""

    def format(self, record: logging.LogRecord) -> str:
        """``message [run_id=… chunk_id=… record_id=…]``."""
        line = super().format(record)
        named = " ".join(f"{name}={value}" for name, value in getattr(record, "ids", {}).items())
        return f"{line} [{named}]" if named else line


def log_format(named: str | None, environ: Mapping[str, str] = os.environ) -> LogFormat:
    """The format that was asked for, else that of ``QUARRY_LOG_FORMAT``, else text. Raises ``JobError``."""
    wanted = (named or environ.get(FORMAT_VARIABLE) or "text").strip().lower()
    for known in FORMATS:
        if wanted == known:
            return known
    raise JobError(
        f"there is no log format {wanted!r}: choose {' or '.join(FORMATS)} (--log-format, {FORMAT_VARIABLE})"
    )


def log_to_stderr(named: str | None = None, environ: Mapping[str, str] = os.environ) -> LogFormat:
    """Send this process's log to stderr, for the command line. Gives the format.

    The level is that of ``QUARRY_LOG``; without it WARNING for people and INFO for machines, which are to see a run
    begin, commit and end. Raises ``JobError`` for a format or level that is not known."""
    wanted = log_format(named, environ)
    level = environ.get(LEVEL_VARIABLE, "").strip().upper() or ("INFO" if wanted == "json" else "WARNING")
    if level not in logging.getLevelNamesMapping():
        raise JobError(f"{LEVEL_VARIABLE}={level} is no log level: choose DEBUG, INFO, WARNING or ERROR")
    handler = _Stderr()
    handler.addFilter(WithIds())
    handler.setFormatter(JsonLines() if wanted == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger()
    for earlier in [one for one in root.handlers if isinstance(one, _Stderr)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level)
    return wanted


def logs_json() -> bool:
    """Whether stderr gets JSON lines."""
    return any(
        isinstance(one, _Stderr) and isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers
    )


class _Stderr(logging.StreamHandler[TextIO]):
    """Ours, to be found again when the format changes."""


def _dumped(told: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(told, default=str).decode()
    except (TypeError, UnicodeEncodeError):
        # Lone surrogates of a record id: JSON has no room for them.
        clean = {str(key): str(value).encode("utf-8", "replace").decode() for key, value in told.items()}
        return orjson.dumps(clean).decode()
