"""``quarry run --engine prefect``: the same job as a flow run."""

from __future__ import annotations

from typing import Any, cast

from extractors.errors import ApprovalNeeded, InternalError, QuarryError
from extractors.pipeline import Watcher
from extractors.report import RunReport
from flows import environment
from flows.cli.approving import Asker
from schemas.job import ExtractionJob


def run_flow(job: ExtractionJob, *, watch: Watcher | None = None, asker: Asker | None = None) -> RunReport:
    """Run the extract flow here and wait for it. Raises the error that ended it, if one did.

    ``asker`` is asked for approval in the place of the UI: whoever starts a run at a terminal answers there."""
    environment.prepare()
    from flows.approval import HERE
    from flows.extract import extract
    from flows.onlooker import ALSO

    token, here = ALSO.set(watch), HERE.set(asker)
    try:
        state = extract(job, return_state=True)
    finally:
        ALSO.reset(token)
        HERE.reset(here)
    told = cast(Any, state).result(raise_on_failure=False)
    if isinstance(told, QuarryError):
        raise told
    if isinstance(told, dict) and "not_approved" in told:
        raise ApprovalNeeded(told["not_approved"])
    if isinstance(told, BaseException):
        raise InternalError(f"the flow run ended as {state.name}: {told}") from told
    return RunReport.from_dict(told)
