"""The commands, and how errors become exit codes."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from extractors.errors import InternalError, OutputError, QuarryError
from extractors.telemetry.logs import FORMAT_VARIABLE, log_to_stderr, logs_json
from flows.cli import terminal
from flows.cli.batch import batch
from flows.cli.calibrate import calibrate
from flows.cli.evaluate import compare_command, eval_command
from flows.cli.golden import golden
from flows.cli.models import models
from flows.cli.options import job_from, job_options, settings_for
from flows.cli.route import route_command
from flows.cli.tune import tune_command
from schemas.job import ExtractionJob

if TYPE_CHECKING:
    from flows.cli.approving import Asker

app = typer.Typer(
    name="quarry",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(models, name="model")
app.add_typer(batch, name="batch")
app.command()(calibrate)
app.add_typer(golden, name="golden")
app.command("eval")(eval_command)
app.command("compare")(compare_command)
app.command("route")(route_command)
app.command("tune")(tune_command)

logger = logging.getLogger(__name__)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"quarry {version('quarry')}")
        raise typer.Exit


@app.callback()
def quarry(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Structured extraction with Qwen: records in, typed Parquet and a failure ledger out."""


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
_APPROVE = typer.Option("--approve", help="Go on whatever the estimate says, instead of waiting for approval.")
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
        _end(error.kind, str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever it is: 1 would say that too many records failed
        traceback.print_exc()
        _end("internal", f"{type(error).__name__}: {error}", InternalError.exit_code)


def _end(kind: str, message: str, code: int) -> NoReturn:
    """End with an error; ``--json`` prints an object in any case."""
    if "--json" in sys.argv[1:]:
        terminal.say_json({"error": {"kind": kind, "message": message, "exit_code": code}})
    sys.exit(code)


@app.command("run")
@job_options
def run_command(
    given: dict[str, Any],
    json: Annotated[bool, _JSON] = False,
    log_format: Annotated[str | None, _LOG_FORMAT] = None,
    approve: Annotated[bool, _APPROVE] = False,
) -> None:
    """Extract: every record becomes a typed row or a ledger entry.

    Run it again and only what is missing is asked. Ctrl-C finishes what is in flight and commits it.

    Example: `quarry run examples/data/products.csv --schema schemas.product:Product --out out`
    """
    from flows.cli.approving import Asker

    job = job_from(given)
    if job.engine == "prefect":
        from flows.cli.through_prefect import run_flow

        with terminal.Bar(terminal.talk()) as bar:
            asker = Asker(terminal.talk(), bar, approved=approve, quiet=json)
            report = run_flow(job, watch=None if json else bar, asker=asker)
        _finish(report, job, json=json, asker=asker)
        return
    with _stoppable(quiet=json) as (control, bar):
        asker = Asker(terminal.talk(), bar, approved=approve, quiet=json)
        report = asker.run(job, control=control, watch=None if json else bar)
    _finish(report, job, json=json, asker=asker)


@app.command()
@job_options
def plan(given: dict[str, Any], json: Annotated[bool, _JSON] = False) -> None:
    """Count what a run would do, and estimate its tokens and cost. Nothing is called, unless `--sample` is given here.

    With `--sample 20` so many texts are asked, paid and kept as results, and the cost and time of the rest are told as an
    interval that includes corrections.

    Example: `quarry plan examples/products.toml`
    """
    from extractors.planning import estimate

    job = job_from(given)
    found = estimate(job, settings=settings_for(job))
    measured = _sample_now(job, quiet=json) if given.get("sample") is not None else None
    if json:
        terminal.say_json({**found.as_dict(), "forecast": measured.as_dict() if measured else None})
        return
    for line in found.lines() + (measured.lines() if measured else []):
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
    from extractors.pipeline import after
    from extractors.retrying import retry_jobs

    changes = {"base_url": base_url, "max_cost": max_cost, "max_tokens": max_tokens}
    reports: list[Any] = []
    for again in retry_jobs(_existing(out), where=where, changes={k: v for k, v in changes.items() if v is not None}):
        # The ceilings are this command's, however many recipes it asks for.
        job = after(again.job, reports)
        report = _run_here(job, quiet=json, source=again.source, retry=again.selection, model=model)
        reports.append(report)
        if not json:
            console = terminal.talk()
            terminal.summary(console, report)
        if report.interrupted:
            break
    if json:
        terminal.say_json(reports[0].as_dict() if len(reports) == 1 else {"runs": [one.as_dict() for one in reports]})
    elif not reports:
        terminal.talk().print("no open failure matches: nothing to ask")
    if reports and reports[-1].interrupted:
        raise typer.Exit(130)


@app.command()
def review(
    out: Annotated[str, _OUT],
    schema: Annotated[str | None, typer.Option(help="The schema's name, where the output has several.")] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe's id, where the schema has several.")] = None,
    golden: Annotated[
        str | None,
        typer.Option(
            help="Where promoted records go: a golden set. [default: OUT/golden.jsonl; here, where OUT is on an object store]"
        ),
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
    from extractors.store.files import is_remote
    from flows.cli.review import review_output

    place = _existing(out)
    review_output(
        place,
        name=schema,
        recipe=recipe,
        # A golden set grows line by line, which an object cannot.
        golden=Path(golden) if golden else Path("golden.jsonl") if is_remote(place) else place / "golden.jsonl",
        base_url=base_url,
        port=port,
        show=open,
    )


@app.command()
def report(
    out: Annotated[str, _OUT],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The HTML file. Default: report.html in the folder.")
    ] = None,
    schema: Annotated[
        str | None, typer.Option(help="The schema, where the folder holds several. Default: the latest run's.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe's id. Default: the latest run's.")] = None,
    run: Annotated[
        str | None,
        typer.Option(help="Only what one run decided, by its id. Default: all current rows and open failures."),
    ] = None,
    limit: Annotated[
        int, typer.Option(help="Records in the page; of more, a sample with all failures.", min=1)
    ] = 10_000,
    text: Annotated[
        bool, typer.Option("--text/--no-text", help="Read the source again, to show evidence in its text.")
    ] = True,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Write one HTML file for people: counts, cost, plots, fields, failures, and a browser of the records.

    The page loads nothing from anywhere and opens from disk. Its records show their evidence in the source text.

    Example: `quarry report out --open`
    """
    from flows.cli.reporting import make_report

    make_report(
        _existing(out),
        output,
        schema=schema,
        recipe=recipe,
        run=run,
        limit=limit,
        texts=text,
        show=open_it,
        as_json=json,
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
    from extractors.pipeline import run

    with _stoppable(quiet=quiet) as (control, bar):
        return run(
            job,
            settings=settings_for(job),
            source=source,
            retry=retry,
            model=model,
            watch=None if quiet else bar,
            control=control,
        )


def _sample_now(job: ExtractionJob, *, quiet: bool) -> Any:
    from extractors.stages import take_sample

    with _stoppable(quiet=quiet) as (control, bar):
        taken = take_sample(job, settings=settings_for(job), control=control, watch=None if quiet else bar)
    if taken.forecast is None:
        why = taken.report.stopped if taken.report else "the plan has no more texts to ask than a sample would"
        terminal.talk().print(f"[yellow]no sample: {why}[/yellow]")
    return taken.forecast


@contextmanager
def _stoppable(*, quiet: bool) -> Iterator[tuple[Any, terminal.Bar]]:
    """A run's stop button on SIGINT and SIGTERM, and a bar."""
    from extractors.pipeline import Control

    control = Control()
    console = terminal.talk()

    def on_signal(number: int, frame: object) -> None:
        if not quiet:
            console.print("\nstopping: finishing what is in flight (again: do not wait)…")
        control.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with terminal.Bar(console) as bar:
            yield control, bar
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(report: Any, job: ExtractionJob, *, json: bool, asker: Asker) -> None:
    if json:
        terminal.say_json({**report.as_dict(), **asker.told()})
    else:
        console = terminal.talk()
        terminal.summary(console, report)
        _compare(report)
        terminal.next_commands(console, report, resume="quarry " + shlex.join(sys.argv[1:]))
    if report.interrupted:
        raise typer.Exit(130)
    if report.failure_rate > job.max_failure_rate:
        terminal.talk().print(
            f"[red]{report.failures:,} of {report.rows + report.failures:,} records failed: more than "
            f"--max-failure-rate {job.max_failure_rate:g}[/red]"
        )
        raise typer.Exit(1)


def _compare(report: Any) -> None:
    """Say when the run cost much more or less for a record than the earlier ones."""
    from extractors.anomaly import find_anomaly
    from extractors.history import run_documents

    odd = find_anomaly(report, run_documents(report.out, name=report.name, recipe=report.recipe))
    if odd is not None:
        terminal.talk().print(f"[yellow]unusual: {odd}[/yellow]")


def _existing(out: str) -> Path:
    from extractors.store.files import place

    path = place(out)
    if not (path / "quarry.json").is_file():
        raise OutputError(f"{out} is not an output folder of quarry: it has no quarry.json. Give the --out of a run")
    return path
