"""``make demo``: the bundled example records through the Prefect flow, into ``demo-out``."""

from __future__ import annotations

import sys
from pathlib import Path

from flows import environment

JOBS = ("examples/products.toml", "examples/receipts.toml", "examples/tickets.toml")
OUT = "demo-out"


def main() -> int:
    """Run the three example jobs and print what they did. The exit code is 0 when every count adds up."""
    environment.prepare()
    from extractors.endpoint import DEFAULT_MODEL
    from extractors.errors import QuarryError
    from extractors.qwen.weights import ensure
    from extractors.reporting import write_report
    from flows.cli import terminal
    from flows.cli.inspect import show_output
    from flows.cli.through_prefect import run_flow
    from schemas.job import ExtractionJob

    console = terminal.talk()
    reports = []
    try:
        with terminal.Bar(console) as bar:
            ensure(DEFAULT_MODEL, progress=bar.fetching)
        for path in JOBS:
            console.print(f"\n[bold]{path}[/bold]")
            job = ExtractionJob.from_toml(Path(path))
            job = job.model_copy(update={"out": OUT, "engine": "prefect", "model": DEFAULT_MODEL})
            with terminal.Bar(console) as bar:
                report = run_flow(job, watch=bar)
            terminal.summary(console, report)
            reports.append(report)
    except QuarryError as error:
        console.print(f"{error.kind} error: {error}", markup=False)
        return error.exit_code
    console.print("\n[bold]all together[/bold]")
    records, rows, failures, skipped, undone, calls = (
        sum(getattr(report, name) for report in reports)
        for name in ("records", "rows", "failures", "skipped", "undone", "calls")
    )
    tokens = sum(report.input_tokens + report.output_tokens for report in reports)
    console.print(
        f"{records:,} records = {rows:,} rows + {failures:,} failures + {skipped:,} already done + {undone:,} undone; "
        f"{calls:,} calls, {tokens:,} tokens, 0 USD (the model ran here), {sum(r.seconds for r in reports):,.0f} s"
    )
    show_output(Path(OUT), limit=3, as_json=False)
    console.print("\n[bold]the report of each, to be opened in a browser[/bold]")
    for report in reports:
        page = write_report(OUT, f"{OUT}/{report.name}.html", schema=report.name, recipe=report.recipe)
        console.print(f"  {page.path}", markup=False)
    console.print("\nnext:")
    names = [report.name for report in reports]
    console.print(
        f"  .venv/bin/python -c \"import duckdb; duckdb.connect('{OUT}/catalog.duckdb', read_only=True).sql('from {names[0]}').show()\"",
        markup=False,
    )
    console.print(f"  .venv/bin/quarry report {OUT} --open    # the latest run's page", markup=False)
    console.print(f"  .venv/bin/quarry failures {OUT}", markup=False)
    console.print(f"  .venv/bin/quarry retry {OUT} --where retryable", markup=False)
    console.print("  make demo        # asks only what is missing: now nothing", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
