"""``quarry run --engine prefect``: the same job as a flow run."""

from __future__ import annotations

from typing import Any, cast

from extractors.errors import InternalError, QuarryError
from extractors.pipeline import Watcher
from extractors.report import RunReport
from flows import environment
from schemas.job import ExtractionJob


def run_flow(job: ExtractionJob, *, watch: Watcher | None = None) -> RunReport:
    """Run the extract flow here and wait for it. Raises the error that ended it, if one did."""
    environment.prepare()
    from flows.extract import extract
    from flows.onlooker import ALSO

    token = ALSO.set(watch)
    try:
        state = extract(job, return_state=True)
    finally:
        ALSO.reset(token)
    told = cast(Any, state).result(raise_on_failure=False)
    if isinstance(told, QuarryError):
        raise told
    if isinstance(told, BaseException):
        raise InternalError(f"the flow run ended as {state.name}: {told}") from told
    return RunReport.from_dict(told)
