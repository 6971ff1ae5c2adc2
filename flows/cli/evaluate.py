"""``quarry eval``, ``quarry compare`` and ``quarry golden``: options into the functions of ``extractors.evaluate``."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from extractors.errors import Interrupted, JobError
from flows.cli import terminal
from flows.cli.options import job_from, job_options

if TYPE_CHECKING:
    from extractors.evaluate.comparison import Comparison
    from extractors.evaluate.evaluation import Evaluation
    from extractors.evaluate.statistics import Difference
    from extractors.pipeline import Control
    from schemas.job import ExtractionJob

_OUT = "quarry-eval"
_CEILINGS = ("max_cost", "max_tokens")
JSON = typer.Option("--json", help="Print one JSON object last, for machines; no bar.")
JOB = typer.Option("--job", help="A job file (.toml) whose options hold; given options override it.")
RECORDS = typer.Option("--records", help="Where the records are, for a golden set that holds only ids and labels.")
RULES = typer.Option(
    "--compare",
    help="FIELD=RULE, several times: how values are compared (exact, text, address, alnum, number:0.01, number:1%, date, fuzzy:0.9, "
    "set:RULE, objects, whole, skip). A field in a list of objects is items/*/price; * is every field without a rule.",
)
_GOLDEN = "GOLDEN"
golden_options = partial(
    job_options, argument=_GOLDEN, about="A golden set: JSON Lines or Parquet of records with their `expected` values."
)


@golden_options
def eval_command(
    given: dict[str, Any],
    job: Annotated[str | None, JOB] = None,
    records: Annotated[str | None, RECORDS] = None,
    compare: Annotated[list[str] | None, RULES] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            help="FIGURE=LEAST, several times, such as f1=0.9, f1:price=0.95, whole, valid, grounded: exit code 1 below it.",
        ),
    ] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Evaluate on a golden set: run over its records, score each field, show what is wrong.

    It is an ordinary run into --out (default: quarry-eval), so it resumes and pays nothing twice.

    Example: `quarry eval golden.jsonl --schema schemas.product:Product --fail-under f1=0.9`
    """
    from extractors.evaluate.evaluation import check_figure, evaluate, foreseen
    from extractors.evaluate.page import evaluation_page
    from extractors.evaluate.results import figures, write_results

    bars, rules = _bars(fail_under or []), rules_of(compare)
    path, made = golden_job(given, job, records)
    fields = foreseen(path, made, rules=rules).rules if bars else {}
    for name in bars:
        check_figure(name, fields)
    with watching(quiet=json) as (watch, control):
        found = evaluate(path, made, rules=rules, watch=watch, control=control)
    folder = write_results(found, evaluation_page(found))
    below = [(name, found.figure(name), least) for name, least in bars.items()]
    short = [(name, value, least) for name, value, least in below if value is None or value < least]
    if json:
        terminal.say_json({**figures(found), "page": str(folder / "index.html"), "below": [one[0] for one in short]})
    else:
        _print_scores(found)
        terminal.talk().print(f"the page: {folder / 'index.html'}", markup=False)
    for name, value, least in short:
        terminal.talk().print(
            f"[red]{name} is {'not defined' if value is None else f'{value:.4f}'}, below {least:g}[/red]"
        )
    if (stopped := stopped_early(found)) is not None:
        terminal.talk().print(stopped, markup=False)
        raise typer.Exit(Interrupted.exit_code)
    if bars and found.no_bar is not None:
        terminal.talk().print(f"[red]{found.no_bar}[/red]")
    if short or (bars and found.no_bar is not None):
        raise typer.Exit(1)


@golden_options
def compare_command(
    given: dict[str, Any],
    a: Annotated[
        str,
        typer.Option(
            "--a",
            help="The first: NAME=VALUE of any option, such as 'model=local-0.5b'; a job file; recipe=ID for what is in --out already.",
        ),
    ],
    b: Annotated[str, typer.Option("--b", help="The second, such as 'model=local-1.5b prompt=my/extract.v2.txt'.")],
    job: Annotated[str | None, JOB] = None,
    records: Annotated[str | None, RECORDS] = None,
    compare: Annotated[list[str] | None, RULES] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Compare two models, prompts or recipes on the records of a golden set, field by field.

    Both are evaluated into one output folder; then the difference is tested on the records that both have.

    Example: `quarry compare golden.jsonl --schema schemas.product:Product --a model=local-0.5b --b model=local-1.5b`
    """
    from extractors.evaluate.comparison import check_pair
    from extractors.evaluate.comparison import compare as compared
    from extractors.evaluate.comparison_page import comparison_page
    from extractors.evaluate.evaluation import Evaluation, evaluate, foreseen, score_recipe
    from extractors.evaluate.page import evaluation_page
    from extractors.evaluate.results import write_comparison, write_results
    from extractors.pipeline import after

    rules = rules_of(compare)
    variants = []
    for variant in (a, b):
        options, job_file, recipe = _variant(variant)
        path, made = golden_job({**given, **options}, job_file or job, records)
        # A ceiling is this command's, unless a side or its own job file has one of its own.
        shared = [one for one in _CEILINGS if one not in options and (one in given or job_file is None)]
        scored = None if recipe is None else score_recipe(path, made, recipe, rules=rules)
        variants.append((made, shared, scored or foreseen(path, made, rules=rules)))
    check_pair(variants[0][2], variants[1][2])
    sides: list[Evaluation] = []
    for made, shared, seen in variants:
        if isinstance(seen, Evaluation):
            sides.append(seen)
            continue
        left = after(made, [one.report for one in sides if one.report is not None])
        made = made.model_copy(update={one: getattr(left, one) for one in shared})
        with watching(quiet=json) as (watch, control):
            found = evaluate(path, made, rules=rules, watch=watch, control=control)
        write_results(found, evaluation_page(found))
        if (stopped := stopped_early(found)) is not None:
            raise Interrupted(stopped)
        sides.append(found)
    names = (a, b) if a != b else ("A", "B")
    comparison = compared(sides[0], sides[1], names=names)
    folder = write_comparison(comparison.as_dict(), comparison_page(comparison), sides[0], sides[1])
    if json:
        terminal.say_json({**comparison.as_dict(), "page": str(folder / "index.html")})
        return
    _print_comparison(comparison)
    terminal.talk().print(f"the page: {folder / 'index.html'}", markup=False)


def golden_job(given: Mapping[str, Any], job_file: str | None, records: str | None) -> tuple[Path, ExtractionJob]:
    """The golden set's path, and the job whose source are its records. Raises ``JobError``."""
    from extractors.evaluate.golden import record_columns

    values = dict(given)
    path = values.pop("source", None)
    if path is None:
        raise JobError("give a golden set: a JSON Lines or Parquet file of records with their `expected` values")
    if path.endswith(".toml"):
        raise JobError(f"{path} is a job file: give the golden set first, and the job file with --job")
    golden_set = Path(path)
    columns = [column for column in record_columns(golden_set) if column not in ("id", values.get("id"))]
    if job_file is not None:
        made = job_from({**values, "source": job_file})
        if records is not None or columns:
            made = made.model_copy(update={"source": records or path, "sql": None, "duckdb": None})
    else:
        if "sql" not in values:
            values["source"] = records or path
        made = job_from({"out": _OUT, **values})
    if made.engine == "prefect":
        raise JobError(
            "an evaluation through Prefect is the flow flows/evaluate.py:evaluate_golden; leave --engine out here"
        )
    return golden_set, made


def _variant(text: str) -> tuple[dict[str, Any], str | None, str | None]:
    """Options, job file and recipe of ``model=x prompt=y``. Raises ``JobError``."""
    from schemas.job import ExtractionJob

    options: dict[str, Any] = {}
    job_file = recipe = None
    known = {field.alias or name: name for name, field in ExtractionJob.model_fields.items()}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise JobError(
            f"{text!r} cannot be read as options ({error}): close every quote, and put \\ before a lone one"
        ) from error
    for word in words:
        key, equals, value = word.partition("=")
        key = key.lstrip("-").replace("-", "_")
        if not equals and word.endswith(".toml"):
            job_file = word
        elif key == "recipe" and equals:
            recipe = value
        elif equals and key in known and key not in ("source", "out"):
            options[known[key]] = value
        else:
            raise JobError(f"{text!r}: {word!r} is neither OPTION=VALUE of `quarry run`, nor recipe=ID, nor a job file")
    return options, job_file, recipe


def rules_of(given: Sequence[str] | None) -> dict[str, str]:
    found = {}
    for one in given or ():
        field, equals, rule = one.rpartition("=")
        if not equals or not field:
            raise JobError(f"--compare {one}: give FIELD=RULE, such as price=number:0.01")
        found[field] = rule
    return found


def _bars(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for one in given:
        if (match := re.fullmatch(r"(.+?)=([0-9.]+)", one)) is None:
            raise JobError(f"--fail-under {one}: give FIGURE=LEAST, such as f1=0.9")
        try:
            found[match[1]] = float(match[2])
        except ValueError as error:
            raise JobError(f"--fail-under {one}: {match[2]} is no number") from error
        if found[match[1]] > 1:
            raise JobError(f"--fail-under {one}: every figure lies between 0 and 1; 90 % is 0.9")
    return found


@contextmanager
def watching(*, quiet: bool) -> Iterator[tuple[Any, Control]]:
    """A bar, and a stop button that the signals press: what is in flight is finished and committed."""
    from extractors.pipeline import Control, Silent

    control = Control()
    console = terminal.talk()

    def on_signal(number: int, frame: object) -> None:
        if not quiet:
            console.print("\nstopping: finishing what is in flight (again: do not wait)…")
        control.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if quiet:
            yield Silent(), control
        else:
            with terminal.Bar(console) as bar:
                yield bar, control
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_early(found: Evaluation) -> str | None:
    """How to go on with an evaluation whose run somebody stopped; None for every other."""
    if found.report is None or not found.report.interrupted:
        return None
    asked = len(found.records)
    return (
        f"stopped: {asked:,} of {asked + len(found.unasked):,} labelled records have an outcome of {found.model}. The same "
        "command goes on with the others and pays nothing twice"
    )


def say_caution(found: Evaluation) -> None:
    """Say where scores are not of unseen records."""
    if found.caution is not None:
        terminal.talk().print(f"[red]{escape(found.caution)}[/red]")


def _print_scores(found: Evaluation) -> None:
    console = terminal.talk()
    records = len(found.records)
    unasked = f", {len(found.unasked):,} not asked" if found.unasked else ""
    silent = f", {found.unlabelled:,} of them without a label that is scored" if found.unlabelled else ""
    console.print(
        f"{found.name}, recipe {found.recipe}, {found.model}: {records:,} labelled records{silent}{unasked}",
        markup=False,
    )
    say_caution(found)
    terminal.table(
        console,
        [
            {"field": field, "precision": str(one.precision), "recall": str(one.recall), "F1": str(one.f1),
             "compared by": found.rules.get(field, "")}
            for field, one in (("all", found.micro), *found.by_field.items())
        ],
    )  # fmt: skip
    console.print(
        f"whole records right {found.whole}; valid {found.valid}; values without evidence {found.ungrounded}",
        markup=False,
    )
    console.print(_taken(found), markup=False)
    console.print("in parentheses: 95 % intervals, bootstrap over records", markup=False)


def _print_comparison(found: Comparison) -> None:
    console = terminal.talk()
    terminal.table(console, [_line("all", found.f1), *(_line(field, one) for field, one in found.by_field.items())])
    for name, side in zip(found.names, (found.a, found.b), strict=True):
        say_caution(side)
        unasked = f"; {len(side.unasked):,} labelled records not asked" if side.unasked else ""
        console.print(f"{name}: F1 {side.micro.f1}; {_taken(side)}{unasked}", markup=False)
    console.print(
        f"wholly right with a only: {found.only_a:,}, with b only: {found.only_b:,} (McNemar's exact test: p = {found.whole_p:.3g})",
        markup=False,
    )
    if taken := found.taken("a"):
        console.print(f"b takes {taken}", markup=False)
    console.print(found.verdict, markup=False)


def _taken(side: Evaluation) -> str:
    """Tokens, cost and seconds of a record."""
    records, (p50, p95) = len(side.records), side.seconds
    cost = "cost unknown" if side.price is None else f"{side.price} for 1,000 records"
    times = "" if p50 is None or p95 is None else f"; {p50:.2f} s a record, 95 % within {p95:.2f} s"
    tokens = f"{side.input_tokens / records:,.0f} input and {side.output_tokens / records:,.0f} output tokens a record"
    return f"{tokens}; {cost}{times}"


def _line(field: str, one: Difference) -> dict[str, str]:
    sides = {name: "-" if value is None else f"{value:.3f}" for name, value in (("a", one.a), ("b", one.b))}
    return {
        "field": field,
        **sides,
        "b - a": one.difference.signed,
        "p, adjusted": f"{one.p_adjusted:.3g}",
        "shown": "yes" if one.shown() else "no",
    }
