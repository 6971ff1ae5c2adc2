"""A run as Markdown, for artifacts: bounded in size, and the records' own words escaped. No Prefect here."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from extractors.forecast import LEVEL, Forecast, Interval, duration
from extractors.report import Progress, RunReport, unfinished
from extractors.routing_report import sentences
from flows.escaping import escaped
from flows.tally import EXAMPLES, Tally
from schemas.job import ExtractionJob

_MOST_FIELDS = 100
_MOST_REASONS = 20


def summary_markdown(report: RunReport, *, report_file: Path | None = None) -> str:
    """The counts that add up, cost and tokens, latency, failures by reason, and where the report is."""
    cost = "price unknown" if report.cost is None else f"{report.cost:f} {report.currency}"
    lines = [
        f"## {escaped(report.name)}: {report.rows:,} rows, {report.failures:,} failures",
        "",
        "| records | rows | failures | already done | undone |",
        "|---:|---:|---:|---:|---:|",
        f"| {report.records:,} | {report.rows:,} | {report.failures:,} | {report.skipped:,} | {report.undone:,} |",
        "",
        f"{report.records:,} = {report.rows:,} + {report.failures:,} + {report.skipped:,} + {report.undone:,}",
        "",
        f"- model {escaped(report.model)}, recipe `{report.recipe}`, run `{report.run_id}`",
        f"- {report.calls:,} calls, {report.tries - report.calls:,} failed tries, {report.input_tokens:,} input and "
        f"{report.output_tokens:,} output tokens, {cost}",
        f"- {report.seconds:,.1f} s; latency p50 {_seconds(report.latency_p50)}, p95 {_seconds(report.latency_p95)}; "
        f"rate limits hit: {report.rate_limited:,}",
        f"- output {escaped(report.out, 500)}",
        _where(report, report_file),
    ]
    if told := unfinished(report.unfinished_calls, report.unfinished_cost, report.currency):
        lines.append(f"- {escaped(told)}")
    if report.saved:
        lines.append(f"- the batch lane saved {report.saved:f} {report.currency} against the same answers live")
    if report.routing:
        lines += [
            f"- {'**' * one.warns}{escaped(one.text, 500)}{'**' * one.warns}"
            for one in sentences(report.routing, report.currency)
        ]
    if report.stopped:
        lines.append(f"- stopped: {escaped(report.stopped, 500)}; run it again to go on")
    if report.removed:
        lines.append(
            f"- {report.removed:,} records of earlier runs are not in the source any more; they stay as they are"
        )
    if report.skipped_failures:
        lines.append(f"- {report.skipped_failures:,} failures of earlier runs are still open")
    if report.failures_by_reason:
        lines += ["", "| reason | records |", "|---|---:|"]
        lines += [f"| {reason} | {count:,} |" for reason, count in report.failures_by_reason.items()]
    return "\n".join(lines)


def running_markdown(tally: Tally, progress: Progress) -> str:
    """The summary while a run lasts."""
    p50, p95 = tally.latency()
    left = max(0, progress.total - tally.rows - tally.failures)
    cost = "price unknown" if progress.cost is None else f"{progress.cost:f}"
    return "\n".join(
        [
            f"## Running: {tally.rows:,} rows, {tally.failures:,} failures, {left:,} to go",
            "",
            f"- {tally.calls:,} calls, {tally.tries - tally.calls:,} failed tries in the finished chunks",
            f"- so far {progress.input_tokens:,} input and {progress.output_tokens:,} output tokens, cost {cost}",
            f"- latency p50 {_seconds(p50)}, p95 {_seconds(p95)}",
            *([f"- look-ups: {progress.look_ups}"] if progress.look_ups else []),
        ]
    )


def failures_markdown(tally: Tally, *, out: str) -> str:
    """The run's failures by reason, three examples of each."""
    if not tally.reasons:
        return "No record has failed in this run."
    ranked = sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"## {sum(tally.reasons.values()):,} failures", "", "| reason | records | share |", "|---|---:|---:|"]
    decided = max(1, tally.rows + tally.failures)
    lines += [f"| {escaped(reason)} | {count:,} | {count / decided:.1%} |" for reason, count in ranked[:_MOST_REASONS]]
    for reason, count in ranked[:_MOST_REASONS]:
        examples = tally.examples.get(reason, [])
        lines += ["", f"### {escaped(reason)}: {len(examples)} of {count:,}", ""]
        lines += ["| record | what was said | the text begins |", "|---|---|---|"]
        lines += [
            f"| {escaped(one.record_id, 80)} | {escaped(one.message, 300)} | {escaped(one.text, 120)} |"
            for one in examples[:EXAMPLES]
        ]
    lines += ["", f"All of them: quarry failures {escaped(out, 500)}"]
    return "\n".join(lines)


def fields_markdown(tally: Tally) -> str:
    """How many of the run's rows have a value in each field, in the schema's order."""
    if not tally.rows:
        return "No row yet in this run."
    lines = [f"## Fields of {tally.rows:,} rows", "", "| field | rows with a value | share |", "|---|---:|---:|"]
    listed = list(tally.fields.items())
    lines += [
        f"| {escaped(name, 80)} | {count:,} | {count / tally.rows:.1%} |" for name, count in listed[:_MOST_FIELDS]
    ]
    if len(listed) > _MOST_FIELDS:
        lines.append(f"| and {len(listed) - _MOST_FIELDS:,} more | | |")
    lines += ["", "A value is anything but null, an empty text and an empty list."]
    return "\n".join(lines)


def estimate_markdown(job: ExtractionJob, found: Forecast) -> str:
    """A forecast, with what it is based on and what would stop the run."""
    money = "price unknown" if found.cost is None else f"{_range(found.cost, 4)} {found.currency}"
    lasting = (
        "as long as the batches take"
        if found.seconds is None
        else f"{duration(found.seconds.low)} to {duration(found.seconds.high)} unless slowed down by 429s and waits"
    )
    lines = [
        f"## {found.texts:,} more texts: {money}",
        "",
        f"| {LEVEL:.0%} interval | low | middle | high |",
        "|---|---:|---:|---:|",
    ]
    if found.cost is not None:
        lines.append(_row(f"cost, {found.currency}", found.cost, 6))
    lines += [_row("input tokens", found.input_tokens, 0), _row("output tokens", found.output_tokens, 0)]
    if found.seconds is not None:
        lines.append(_row("seconds", found.seconds, 1))
    spent = "" if found.spent is None else f" for {found.spent:f} {found.currency}"
    lines += [
        "",
        f"- measured on {found.sampled:,} texts{spent}: {found.further:,} took more than one answer, {found.failed:,} failed",
        f"- time: {lasting}",
        f"- source {escaped(job.source or job.sql or '', 300)}, output {escaped(job.out, 300)}",
    ]
    if job.approve_above is not None and found.most is not None:
        lines.append(
            f"- up to {_money(found.most)} {found.currency} with the sample; approve_above {job.approve_above}"
        )
    if job.max_cost is not None:
        lines.append(f"- the ceiling max_cost {job.max_cost} holds for the sample and the rest together")
    return "\n".join(lines)


def _where(report: RunReport, report_file: Path | None) -> str:
    if report_file is None:
        return f"- report: quarry report {escaped(report.out, 500)} writes it"
    return (
        f"- report: [{escaped(report_file.name)}](<{report_file.resolve().as_uri()}>), {escaped(str(report_file), 500)}"
    )


def _row(name: str, found: Interval, digits: int) -> str:
    return f"| {name} | {found.low:,.{digits}f} | {found.middle:,.{digits}f} | {found.high:,.{digits}f} |"


def _range(found: Interval, digits: int) -> str:
    return f"{found.low:,.{digits}f} to {found.high:,.{digits}f}"


def _money(value: Decimal) -> str:
    return f"{value:,.4f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
