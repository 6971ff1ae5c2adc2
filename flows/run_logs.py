"""Prefect's log of a flow run, with the ids of run, chunk and record in every line of ours."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from extractors.telemetry.logs import TextWithIds, WithIds

_OURS = ("extractors", "prefect.flow_runs", "prefect.task_runs")


class _OfARun(logging.Filter):
    """Lets through what was logged inside a flow or task run: the same process may use the engine without one later."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True inside of a run. Prefect's handler warns of every other line, whatever the process that hosts it does."""
        return (
            getattr(record, "flow_run_id", None) is not None
            or FlowRunContext.get() is not None
            or TaskRunContext.get() is not None
        )


def show_ids() -> None:
    """Let the handlers of a flow's process show the ids; once is enough, again does no harm.

    Prefect's server keeps a message and a level of each line, so there they stand behind the message. On the console
    they are a field of the line (``ids``) for a formatter that shows fields, as Prefect's ``json`` does."""
    ours = logging.getLogger("extractors")
    if ours.level == logging.NOTSET:
        # Prefect adds its handler to a logger and leaves the level at the root's, which is WARNING.
        ours.setLevel(logging.INFO)
    if not any(isinstance(one, APILogHandler) for one in ours.handlers):
        # Prefect was imported before its settings named this logger.
        ours.addHandler(APILogHandler())
    for handler in [
        *logging.getLogger().handlers,
        *(one for name in _OURS for one in logging.getLogger(name).handlers),
    ]:
        if not any(isinstance(one, WithIds) for one in handler.filters):
            handler.addFilter(WithIds())
        if isinstance(handler, APILogHandler) and not isinstance(handler.formatter, TextWithIds):
            handler.setFormatter(TextWithIds())
    for handler in ours.handlers:
        if isinstance(handler, APILogHandler) and not any(isinstance(one, _OfARun) for one in handler.filters):
            handler.addFilter(_OfARun())
