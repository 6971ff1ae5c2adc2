"""What is worth an alert in a run, as plain data: the event's name, its subject, what happened. No Prefect here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from extractors.anomaly import find_anomaly
from extractors.forecast import Forecast
from extractors.report import Progress, RunReport
from schemas.job import ExtractionJob

FAILURE_RATE = "quarry.run.failure-rate-exceeded"
BUDGET = "quarry.run.budget-reached"
ANOMALY = "quarry.run.cost-anomaly"
APPROVAL = "quarry.run.approval-needed"
EARLY = 100
"""Records decided before a failure rate is judged while a run lasts."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An event to be: ``payload`` is JSON values; ``name`` and ``recipe`` say whose run it was, ``out`` where."""

    event: str
    name: str
    recipe: str
    out: str
    message: str
    payload: Mapping[str, Any] = field(default_factory=dict)


def alerts_of(job: ExtractionJob, report: RunReport, earlier: Iterable[Mapping[str, Any]]) -> list[Alert]:
    """The alerts of a run that has ended; ``earlier`` are the run files of its recipe, latest first."""
    counts = {
        "run_id": report.run_id,
        "model": report.model,
        "records": report.records,
        "rows": report.rows,
        "failures": report.failures,
        "undone": report.undone,
        "cost": None if report.cost is None else format(report.cost, "f"),
        "currency": report.currency,
        "input_tokens": report.input_tokens,
        "output_tokens": report.output_tokens,
    }

    def alert(event: str, message: str, **more: Any) -> Alert:
        payload = {"message": message, **counts, **more}
        return Alert(event, report.name, report.recipe, report.out, message, payload)

    found = []
    if report.failure_rate > job.max_failure_rate:
        found.append(
            alert(
                FAILURE_RATE,
                _too_many(report.failures, report.rows + report.failures, job.max_failure_rate),
                failure_rate=round(report.failure_rate, 4),
                limit=job.max_failure_rate,
                failures_by_reason=dict(report.failures_by_reason),
            )
        )
    if report.stopped is not None and report.stopped.startswith("budget:"):
        ceilings = {"max_cost": None if job.max_cost is None else str(job.max_cost), "max_tokens": job.max_tokens}
        found.append(alert(BUDGET, report.stopped.removeprefix("budget: "), **ceilings))
    if (odd := find_anomaly(report, earlier)) is not None:
        told = {
            "measure": odd.measure,
            "value": odd.value,
            "median": odd.median,
            "score": round(odd.score, 2),
            "direction": "higher" if odd.higher else "lower",
            "earlier_runs": odd.runs,
        }
        found.append(alert(ANOMALY, str(odd), **told))
    return found


def early_failure_alert(job: ExtractionJob, progress: Progress, *, name: str, recipe: str) -> Alert | None:
    """The failure rate's alert while a run lasts, once enough is decided; None when all is well."""
    if progress.done < EARLY or progress.failures <= job.max_failure_rate * progress.done:
        return None
    message = _too_many(progress.failures, progress.done, job.max_failure_rate)
    payload = {
        "message": message,
        "rows": progress.rows,
        "failures": progress.failures,
        "failure_rate": round(progress.failures / progress.done, 4),
        "limit": job.max_failure_rate,
        "running": True,
    }
    return Alert(FAILURE_RATE, name, recipe, job.out, message, payload)


def approval_alert(job: ExtractionJob, found: Forecast) -> Alert:
    """Somebody must look: the forecast is above ``approve_above``."""
    message = f"up to {found.most:.4f} {found.currency}, more than {job.approve_above}"
    payload = {"message": message, "approve_above": str(job.approve_above), "forecast": found.as_dict()}
    return Alert(APPROVAL, found.name, found.recipe, job.out, message, payload)


def _too_many(failures: int, decided: int, limit: float) -> str:
    return f"{failures:,} of {decided:,} records failed, more than {limit:.1%}"
