"""Which run, chunk and record the code that runs now works for.

Context variables: each task of the engine's loop has its own, and a coroutine that is handed to the loop takes those
of its caller along. Nothing here costs more than setting one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RUN: ContextVar[str | None] = ContextVar("quarry_run", default=None)
CHUNK: ContextVar[str | None] = ContextVar("quarry_chunk", default=None)
RECORD: ContextVar[str | None] = ContextVar("quarry_record", default=None)

_NAMED = {"run_id": RUN, "chunk_id": CHUNK, "record_id": RECORD}


def current_ids() -> dict[str, str]:
    """The ids that are known here, by name: ``run_id``, ``chunk_id``, ``record_id``."""
    return {name: value for name, variable in _NAMED.items() if (value := variable.get()) is not None}


@contextmanager
def within(variable: ContextVar[str | None], value: str) -> Iterator[None]:
    """Work for this run, chunk or record until the block ends."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
