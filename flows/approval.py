"""Approval of a run's estimate in Prefect's UI.

A run of a deployment is suspended: it gives its worker back, and when somebody has answered it starts anew, finds its
sample done, and reads the answer. Any other run waits where it is.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from decimal import Decimal
from typing import Any, Literal, Protocol

from prefect import get_run_logger, pause_flow_run, suspend_flow_run
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import Field

from extractors.errors import ApprovalNeeded
from extractors.forecast import Forecast
from extractors.stages import Decision
from flows.alerts import approval_alert
from flows.artifacts import Artifacts
from flows.events import emit
from flows.signals import interruptible
from flows.summary import estimate_markdown
from schemas.job import ExtractionJob

_PATIENCE = 7 * 24 * 3600
_LOOK = 5

GO_ON, LOWER, STOP = "go on", "lower the ceiling", "stop"


class Somebody(Protocol):
    """Who is asked in the place of the UI: the terminal of the command line."""

    def hear(self, found: Forecast) -> None: ...

    def decide(self, found: Forecast) -> Decision: ...


HERE: ContextVar[Somebody | None] = ContextVar("here", default=None)


class Approval(RunInput):
    """Whether the rest of the run may be paid."""

    choice: Literal["go on", "lower the ceiling", "stop"] = Field(description="What the run does next.")
    ceiling: float = Field(
        default=0.0,
        ge=0,
        description="Money at most for the sample and the rest together; heeded only by `lower the ceiling`.",
    )


class Approver:
    """Shows a run's forecast and asks for a decision: here, where somebody is, else in the UI."""

    def __init__(self, job: ExtractionJob, artifacts: Artifacts) -> None:
        self._job = job
        self._artifacts = artifacts
        self._here = HERE.get()

    def hear(self, found: Forecast) -> None:
        """Show a forecast as an artifact, and in the log."""
        self._artifacts.estimate(found)
        for line in found.lines():
            get_run_logger().info(line)
        if self._here is not None:
            self._here.hear(found)

    def decide(self, found: Forecast) -> Decision:
        """Pause until somebody has chosen. An answer that cannot be followed is asked for again."""
        if self._here is not None:
            return self._here.decide(found)
        emit(approval_alert(self._job, found))
        shown, problem = estimate_markdown(self._job, found), ""
        # Another forecast is another question: an answer to an earlier one must not be taken for it.
        mark = hashlib.sha256(shown.encode()).hexdigest()[:16]
        for number in range(1, 11):
            text = f"{problem}{shown}"
            with interruptible():
                answer = _asked(text, key=f"quarry-approval-{mark}-{number}", ceiling=self._job.max_cost)
            if answer is None or answer.choice == STOP:
                return Decision(go=False)
            if answer.choice == GO_ON:
                return Decision(go=True)
            if answer.ceiling > 0:
                return Decision(go=True, ceiling=Decimal(repr(answer.ceiling)))
            problem = "**To lower the ceiling, give an amount.**\n\n"
        return Decision(go=False)


def not_approved(refusal: ApprovalNeeded) -> State[dict[str, Any]]:
    """The state of a run that was told to stop after its sample."""
    get_run_logger().info(str(refusal))
    return Completed(name="NotApproved", message=str(refusal), data={"not_approved": str(refusal)})


def _asked(text: str, *, key: str, ceiling: Decimal | None) -> Approval | None:
    """The form's answer; None when nobody came."""
    context = FlowRunContext.get()
    form = Approval.with_initial_data(description=text, ceiling=float(ceiling or 0))
    if context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None:
        return suspend_flow_run(wait_for_input=form, timeout=_PATIENCE, key=key)
    try:
        return pause_flow_run(wait_for_input=form, timeout=_PATIENCE, poll_interval=_LOOK, key=key)
    except FlowPauseTimeout:
        get_run_logger().warning("nobody has approved the run within %d days", _PATIENCE // 86_400)
        return None
