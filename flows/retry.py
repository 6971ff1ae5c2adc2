"""The flow that asks again for open failures, and only for them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from extractors.pipeline import Control, after, run
from extractors.report import RunReport
from extractors.retrying import retry_jobs
from extractors.store.files import place
from flows.blocks import settings_with
from flows.limits import global_rate
from flows.run_logs import show_ids
from flows.signals import ended_by_signal
from flows.summary import summary_markdown


@flow(
    name="retry-failures",
    flow_run_name="retry-failures-{out}",
    description="Ask again for the open failures of an output folder. Rows that come of it close them.",
    persist_result=False,
)
def retry_failures(
    out: str,
    where: str = "retryable",
    model: str | None = None,
    base_url: str | None = None,
    max_cost: Decimal | None = None,
    max_tokens: int | None = None,
) -> State[dict[str, Any]]:
    """Ask again.

    Args:
        out: The output folder.
        where: A SQL condition on the ledger's columns, such as retryable or reason = 'invalid'.
        model: Another model; the rows stay in the failed records' own recipe.
        base_url: The other model's address.
        max_cost: Money at most, for all that is asked again; a job's own ceilings were for its run.
        max_tokens: Tokens at most.
    """
    show_ids()
    given = {"base_url": base_url, "max_cost": max_cost, "max_tokens": max_tokens}
    changes = {name: value for name, value in given.items() if value is not None}
    closed = left = 0
    reports: list[RunReport] = []
    control = Control()
    with ended_by_signal(control) as signalled:
        for again in retry_jobs(place(out), where=where, changes=changes):
            if signalled.number is not None:
                break
            with global_rate(again.job.rate_limit_name) as permit:
                report = run(
                    after(again.job, reports),
                    settings=settings_with(again.job.credentials),
                    source=again.source,
                    retry=again.selection,
                    model=model,
                    permit=permit,
                    control=control,
                    engine_name="prefect",
                )
            create_markdown_artifact(summary_markdown(report), key="quarry-summary", description="What the retry did")
            reports.append(report)
            closed += report.rows
            left += report.failures + report.undone
            if report.interrupted:
                break
    runs = [report.as_dict() for report in reports]
    message = f"{closed} failures closed, {left} left" if runs else "no open failure matches: nothing was asked"
    get_run_logger().info(message)
    if (cancelled := signalled.cancelled(message)) is not None:
        return cancelled
    if runs and not closed and left:
        return Failed(message=message, data={"runs": runs})
    return Completed(message=message, data={"runs": runs})
