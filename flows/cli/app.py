"""The commands, and how errors become exit codes."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from extractors.errors import OutputError, QuarryError
from extractors.telemetry.logs import FORMAT_VARIABLE, log_to_stderr, logs_json
from flows.cli import terminal
from flows.cli.batch import batch
from flows.cli.models import models
from flows.cli.options import job_from, job_options
from schemas.job import ExtractionJob

app = typer.Typer(
    name="quarry",
    help="Structured extraction with Qwen: records in, typed Parquet and a failure ledger out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(models, name="model")
app.add_typer(batch, name="batch")

logger = logging.getLogger(__name__)


def _set_log_format(named: str | None) -> str | None:
    if named is not None:
        log_to_stderr(named)
        # Whatever this process starts, Prefect too, is to do the same.
        os.environ[FORMAT_VARIABLE] = named.lower()
    return named


_LOG_FORMAT = typer.Option(
    "--log-format",
    callback=_set_log_format,
    show_default=False,
    help=f"The log on stderr as text or as json: one object a line, with run, chunk and record ids. [{FORMAT_VARIABLE}]",
)
_JSON = typer.Option("--json", help="Print one JSON object last, for machines; no bar.")
_OUT = typer.Argument(metavar="OUT", help="The output folder of a run.")
_WHERE = typer.Option(help="A SQL condition on the ledger's columns, such as \"reason = 'invalid'\".")


def main() -> None:
    """The entry point of the ``quarry`` command."""
    try:
        log_to_stderr()
        app()
    except QuarryError as error:
        if logs_json():
            logger.error("%s", error, extra={"kind": error.kind})
        else:
            terminal.talk().print(f"[red]{error.kind} error:[/red] ", end="")
            terminal.talk().print(str(error), markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command("run")
@job_options
def run_command(
    given: dict[str, Any],
    json: Annotated[bool, _JSON] = False,
    log_format: Annotated[str | None, _LOG_FORMAT] = None,
) -> None:
    """Extract: every record becomes a typed row or a ledger entry.

    Run it again and only what is missing is asked. Ctrl-C finishes what is in flight and commits it.

    Example: `quarry run examples/data/products.csv --schema schemas.product:Product --out out`
    """
    job = job_from(given)
    if job.engine == "prefect":
        from flows.cli.through_prefect import run_flow

        if json:
            report = run_flow(job)
        else:
            with terminal.Bar(terminal.talk()) as bar:
                report = run_flow(job, watch=bar)
        _finish(report, job, json=json)
        return
    report = _run_here(job, quiet=json)
    _finish(report, job, json=json)


@app.command()
@job_options
def plan(given: dict[str, Any], json: Annotated[bool, _JSON] = False) -> None:
    """Count what a run would do, and estimate its tokens and cost. Nothing is called.

    Example: `quarry plan examples/products.toml`
    """
    from extractors.planning import estimate

    found = estimate(job_from(given))
    if json:
        terminal.say_json(found.as_dict())
        return
    for line in found.lines():
        terminal.say(line)


@app.command()
def show(
    out: Annotated[str, _OUT],
    json: Annotated[bool, _JSON] = False,
    limit: Annotated[int, typer.Option(help="Rows to show.", min=0)] = 3,
) -> None:
    """Show an output folder: what it holds, the last runs, some rows, the open failures.

    Example: `quarry show out`
    """
    from flows.cli.inspect import show_output

    show_output(_existing(out), limit=limit, as_json=json)


@app.command()
def failures(
    out: Annotated[str, _OUT],
    where: Annotated[str | None, _WHERE] = None,
    limit: Annotated[int, typer.Option(help="Entries to list.", min=0)] = 20,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Count the open ledger entries by reason, and list them.

    Example: `quarry failures out --where "reason = 'too_long'"`
    """
    from flows.cli.inspect import show_failures

    show_failures(_existing(out), where=where, limit=limit, as_json=json)


@app.command()
def retry(
    out: Annotated[str, _OUT],
    where: Annotated[str | None, _WHERE] = None,
    model: Annotated[
        str | None, typer.Option(help="Another model; the rows stay in the failed records' own recipe.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="The other model's address.")] = None,
    max_cost: Annotated[str | None, typer.Option(help="Money at most.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens at most.", min=1)] = None,
    json: Annotated[bool, _JSON] = False,
    log_format: Annotated[str | None, _LOG_FORMAT] = None,
) -> None:
    """Ask again for open failures, and only for them.

    Example: `quarry retry out --where retryable`
    """
    from extractors.retrying import retry_jobs

    changes = {"base_url": base_url, "max_cost": max_cost, "max_tokens": max_tokens}
    reports = []
    for again in retry_jobs(_existing(out), where=where, changes={k: v for k, v in changes.items() if v is not None}):
        report = _run_here(again.job, quiet=json, source=again.source, retry=again.selection, model=model)
        reports.append(report)
        if not json:
            console = terminal.talk()
            terminal.summary(console, report)
    if json:
        terminal.say_json(reports[0].as_dict() if len(reports) == 1 else {"runs": [one.as_dict() for one in reports]})
    elif not reports:
        terminal.talk().print("no open failure matches: nothing to ask")


@app.command()
def review(
    out: Annotated[str, _OUT],
    schema: Annotated[str | None, typer.Option(help="The schema's name, where the output has several.")] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe's id, where the schema has several.")] = None,
    golden: Annotated[
        str | None, typer.Option(help="Where promoted records go: a golden set. [default: OUT/golden.jsonl]")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="The address to ask again at, where it is not the job's.")
    ] = None,
    port: Annotated[int, typer.Option(help="A port on 127.0.0.1; 0 is any free one.", min=0, max=65535)] = 0,
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page on this machine to go through open failures and rows with weak evidence.

    Ask again with another model, give the values by hand, ignore with a reason, or promote into a golden set.

    Example: `quarry review out`
    """
    from flows.cli.review import review_output

    place = _existing(out)
    review_output(
        place,
        name=schema,
        recipe=recipe,
        golden=Path(golden) if golden else place / "golden.jsonl",
        base_url=base_url,
        port=port,
        show=open,
    )


@app.command()
def schema(
    spec: Annotated[
        str, typer.Argument(metavar="S", help="`package.module:Model`, a JSON Schema file or a one-line spec.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print only the JSON Schema.")] = False,
) -> None:
    """Show what a schema becomes: its JSON Schema, its Arrow schema, and the prompt that the model reads.

    Example: `quarry schema "name, price: float?, tags: list[str]"`
    """
    from flows.cli.inspect import show_schema

    show_schema(spec, as_json=json)


@app.command()
def doctor(json: Annotated[bool, _JSON] = False) -> None:
    """Check this machine: versions, memory and disk, the embedded model, the key and the address.

    Example: `quarry doctor`
    """
    from flows.cli.doctor import examine

    healthy = examine(as_json=json)
    if not healthy:
        raise typer.Exit(1)


def _run_here(
    job: ExtractionJob, *, quiet: bool, source: Any = None, retry: Any = None, model: str | None = None
) -> Any:
    from extractors.pipeline import Control, Silent, run

    control = Control()
    console = terminal.talk()
    settings = None
    if job.credentials is not None:
        from flows import environment

        environment.prepare()
        from flows.blocks import settings_with

        settings = settings_with(job.credentials)

    def on_signal(number: int, frame: object) -> None:
        if not quiet:
            console.print("\nstopping: finishing what is in flight (again: do not wait)…")
        control.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if quiet:
            return run(job, settings=settings, source=source, retry=retry, model=model, watch=Silent(), control=control)
        with terminal.Bar(console) as bar:
            return run(job, settings=settings, source=source, retry=retry, model=model, watch=bar, control=control)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(report: Any, job: ExtractionJob, *, json: bool) -> None:
    if json:
        terminal.say_json(report.as_dict())
    else:
        console = terminal.talk()
        terminal.summary(console, report)
        terminal.next_commands(console, report, resume="quarry " + shlex.join(sys.argv[1:]))
    if report.stopped in ("interrupted", "aborted"):
        raise typer.Exit(130)
    if report.failure_rate > job.max_failure_rate:
        terminal.talk().print(
            f"[red]{report.failures:,} of {report.rows + report.failures:,} records failed: more than "
            f"--max-failure-rate {job.max_failure_rate:g}[/red]"
        )
        raise typer.Exit(1)


def _existing(out: str) -> Path:
    from extractors.store.files import place

    path = place(out)
    if not (path / "quarry.json").is_file():
        raise OutputError(f"{out} is not an output folder of quarry: it has no quarry.json. Give the --out of a run")
    return path
