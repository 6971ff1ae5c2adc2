"""A run's report as Markdown and as a small table, for artifacts."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from extractors.report import RunReport

_MOST_FAILURES = 100
_MOST_MESSAGE = 300


def summary_markdown(report: RunReport) -> str:
    """The counts that add up, cost and tokens, latency, failures by reason."""
    cost = "price unknown" if report.cost is None else f"{report.cost:f} {report.currency}"
    lines = [
        f"## {report.name}: {report.rows:,} rows, {report.failures:,} failures",
        "",
        "| records | rows | failures | already done | undone |",
        "|---:|---:|---:|---:|---:|",
        f"| {report.records:,} | {report.rows:,} | {report.failures:,} | {report.skipped:,} | {report.undone:,} |",
        "",
        f"{report.records:,} = {report.rows:,} + {report.failures:,} + {report.skipped:,} + {report.undone:,}",
        "",
        f"- model `{report.model}`, recipe `{report.recipe}`, run `{report.run_id}`",
        f"- {report.calls:,} calls, {report.tries - report.calls:,} failed tries, {report.input_tokens:,} input and "
        f"{report.output_tokens:,} output tokens, {cost}",
        f"- {report.seconds:,.1f} s; latency p50 {_seconds(report.latency_p50)}, p95 {_seconds(report.latency_p95)}; "
        f"rate limits hit: {report.rate_limited:,}",
        f"- output `{report.out}`",
    ]
    if report.saved:
        lines.append(f"- the batch lane saved {report.saved:f} {report.currency} against the same answers live")
    if report.stopped:
        lines.append(f"- stopped: {report.stopped}; run it again to go on")
    if report.failures_by_reason:
        lines += ["", "| reason | records |", "|---|---:|"]
        lines += [f"| {reason} | {count:,} |" for reason, count in report.failures_by_reason.items()]
    return "\n".join(lines)


def failure_rows(failures: pa.Table) -> list[dict[str, Any]]:
    """The first open failures as flat rows, bounded in number and length."""
    shown = failures.slice(0, _MOST_FAILURES).select(["record_id", "reason", "retryable", "message"]).to_pylist()
    return [{**row, "message": row["message"][:_MOST_MESSAGE]} for row in shown]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
