"""A run in stages, for a job with ``sample`` or ``approve_above``: the sample, the forecast, a decision, the rest.

Each stage is a run of its own over the same plan, so that the folder is free while somebody decides, and what was asked
for the sample is found done. The ceilings hold for the sample and the rest together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from pydantic import BaseModel

from extractors.endpoint import Settings, settings_of
from extractors.errors import ApprovalNeeded, JobError
from extractors.forecast import Forecast
from extractors.limits import Permit
from extractors.pipeline import Conductor, Control, Watcher, run
from extractors.report import RunReport
from extractors.sample import USUAL, Sample, Survey, find_sample, forecast_of, read_sample, survey
from extractors.sources import Source
from schemas.job import ExtractionJob
from schemas.usage import Usage


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of a forecast: go on, perhaps under a lower ceiling on money, or stop."""

    go: bool
    ceiling: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A sample, taken just now (``report``) or before (None), and what it tells of the rest. Without a forecast
    there was nothing to sample, or its run was stopped."""

    forecast: Forecast | None = None
    sample: Sample | None = None
    report: RunReport | None = None


Decide = Callable[[Forecast], Decision]
"""Asks somebody. Called only for a forecast above ``approve_above``."""


def run_in_stages(
    job: ExtractionJob,
    *,
    settings: Settings | None = None,
    schema: type[BaseModel] | None = None,
    source: Callable[[], Source] | None = None,
    decide: Decide | None = None,
    told: Callable[[Forecast], None] | None = None,
    conduct: Conductor | None = None,
    watch: Watcher | None = None,
    control: Control | None = None,
    permit: Permit | None = None,
    engine_name: str = "direct",
) -> RunReport:
    """``pipeline.run`` with the job's ``sample`` and ``approve_above`` heeded; the report tells of all its stages.

    ``source`` opens the records anew for each stage. ``told`` hears the forecast; ``decide`` is asked when it is above
    ``approve_above``. Raises ``ApprovalNeeded`` when it says no or there is nobody to ask, and what ``run`` raises.
    """
    settings = settings_of(job, settings)

    def stage(stage_job: ExtractionJob) -> RunReport:
        return run(
            stage_job, settings=settings, schema=schema, source=source() if source else None, conduct=conduct,
            watch=watch, control=control, permit=permit, engine_name=engine_name,
        )  # fmt: skip

    if job.sample is None and job.approve_above is None:
        return stage(job)
    taken = take_sample(
        job, settings=settings, schema=schema, source=source, conduct=conduct, watch=watch, control=control,
        permit=permit, engine_name=engine_name,
    )  # fmt: skip
    if taken.forecast is None or taken.sample is None:
        return taken.report or stage(job)
    if told is not None:
        told(taken.forecast)
    ceiling = _approved(job, taken.forecast, decide)
    rest = _rest(job, taken, ceiling)
    if rest.max_records == 0 and taken.report is not None:
        return taken.report
    report = stage(rest)
    return report.joined(taken.report) if taken.report is not None else report


def take_sample(
    job: ExtractionJob,
    *,
    settings: Settings,
    schema: type[BaseModel] | None = None,
    source: Callable[[], Source] | None = None,
    conduct: Conductor | None = None,
    watch: Watcher | None = None,
    control: Control | None = None,
    permit: Permit | None = None,
    engine_name: str = "direct",
) -> Taken:
    """Ask the sample, unless it was asked before or there is little more than it. Always live.

    Raises ``JobError`` for ``approve_above`` where the price is unknown, and what ``run`` raises."""
    size = job.sample or USUAL
    seen = survey(job, size, settings=settings, schema=schema, source=source() if source else None)
    if job.approve_above is not None and not seen.endpoint.pricing.known:
        raise JobError(
            f"--approve-above cannot be judged: the price of {seen.endpoint.model} is unknown. Add its `prices` in a "
            "profiles file (QUARRY_PROFILES), or use --max-tokens"
        )
    most = seen.to_ask.texts if job.max_records is None else min(seen.to_ask.texts, job.max_records)
    if seen.in_batches:
        return Taken()
    if (known := find_sample(seen)) is not None:
        return Taken(forecast_of(seen, known), known)
    if most <= size:
        return Taken()
    live = job.model_copy(update={"lane": "live"})
    report = run(
        live, settings=settings, schema=schema, source=source() if source else None, conduct=conduct, watch=watch,
        control=control, permit=permit, engine_name=engine_name, only=seen.to_ask.characters, note=seen.note(),
    )  # fmt: skip
    sample = _sample_of(seen, report)
    return Taken(report=report) if sample is None else Taken(forecast_of(seen, sample), sample, report)


def _sample_of(seen: Survey, report: RunReport) -> Sample | None:
    """The sample that a run took; None when it was stopped on its way."""
    whole = report.stopped is not None and report.stopped.startswith("sample:")
    return read_sample(seen, {**report.as_dict(), **seen.note()}) if whole else None


def _approved(job: ExtractionJob, found: Forecast, decide: Decide | None) -> Decimal | None:
    """The ceiling on money under which the run goes on. Raises ``ApprovalNeeded``."""
    if job.approve_above is None or found.most is None or found.most <= job.approve_above:
        return job.max_cost
    told = (
        f"the run may cost up to {found.most:.4f} {found.currency} with its sample, more than --approve-above "
        f"{job.approve_above}"
    )
    if decide is None:
        raise ApprovalNeeded(
            f"{told}. The sample is kept and not paid again: give --approve to go on, or --max-cost with --approve to go "
            "on under a ceiling"
        )
    decision = decide(found)
    if not decision.go:
        raise ApprovalNeeded(f"{told}, and was not approved. The sample is kept and not paid again")
    if decision.ceiling is None:
        return job.max_cost
    return decision.ceiling if job.max_cost is None else min(job.max_cost, decision.ceiling)


def _rest(job: ExtractionJob, taken: Taken, ceiling: Decimal | None) -> ExtractionJob:
    """The job of the rest: its ceilings less what the sample took, whenever that was."""
    used = taken.sample.spent if taken.sample is not None else Usage()
    asked = taken.report.rows + taken.report.failures if taken.report is not None else 0
    return job.model_copy(
        update={
            "max_cost": None if ceiling is None else max(Decimal(0), ceiling - (used.cost or Decimal(0))),
            "max_tokens": None if job.max_tokens is None else max(1, job.max_tokens - used.total_tokens),
            "max_records": None if job.max_records is None else max(0, job.max_records - asked),
        }
    )
