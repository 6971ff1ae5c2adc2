"""``quarry route``: whether a final model behind a draft pays, and from which confidence on, measured on labelled records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from extractors.errors import Interrupted, JobError
from flows.cli import terminal
from flows.cli.evaluate import (
    JOB,
    JSON,
    RECORDS,
    RULES,
    golden_job,
    golden_options,
    rules_of,
    say_caution,
    stopped_early,
    watching,
)

if TYPE_CHECKING:
    from extractors.evaluate.routes import Route, Routes
    from extractors.recipe import ModelPolicy
    from schemas.job import ExtractionJob

_LOSS = typer.Option(help="How much lower than the final model's F1 that of a routed run may be.", min=0.0, max=1.0)


@golden_options
def route_command(
    given: dict[str, Any],
    job: Annotated[str | None, JOB] = None,
    records: Annotated[str | None, RECORDS] = None,
    compare: Annotated[list[str] | None, RULES] = None,
    max_loss: Annotated[float, _LOSS] = 0.01,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Find out on a golden set whether routing to a final model pays, and the `--route-below` for it.

    The draft (`--model`) and the final (`--final`) are each evaluated alone; their answers are put together at several
    thresholds, which asks nobody. Shown are F1, the records routed, and what it takes as a share of the final alone.
    The page has a plot of it.

    Example: `quarry route golden.jsonl --schema schemas.product:Product --model qwen-flash --final qwen-max`
    """
    from extractors.endpoint import resolve_endpoint, settings_of
    from extractors.evaluate.evaluation import Evaluation, evaluate
    from extractors.evaluate.page import evaluation_page
    from extractors.evaluate.results import write_results, write_routes
    from extractors.evaluate.routes import routes
    from extractors.evaluate.routes_page import routes_page
    from extractors.pipeline import after, model_of

    path, made = golden_job(given, job, records)
    pair = resolve_endpoint(made, settings_of(made, None))
    if pair.final is None:
        raise JobError("name the model that is asked behind the draft: --final MODEL, or --high-accuracy")
    alone = made.model_copy(update={"draft": None, "final": None, "high_accuracy": False})
    rules = rules_of(compare)
    # A calibration is the draft's; the final is never asked twice, and how sure it is of its answers decides nothing.
    last = {"model": pair.final.model, "calibration": None, "agreement": "never", **_ways_of_pair(made, pair.policy)}
    updates = [{"model": pair.model}, last]
    found: list[Evaluation] = []
    for update in updates:
        name = update["model"]
        left = after(alone, [one.report for one in found if one.report is not None])
        with watching(quiet=json) as (watch, control):
            one = evaluate(path, left.model_copy(update=update), rules=rules, watch=watch, control=control)
        if (stopped := stopped_early(one)) is not None:
            raise Interrupted(stopped)
        if one.unasked:
            terminal.talk().print(
                f"[red]{len(one.unasked):,} labelled records were not asked of {name}: what follows is of the others[/red]"
            )
        say_caution(one)
        write_results(one, evaluation_page(one))
        found.append(one)
    draft, final = found
    told = routes(draft, final, model_of(made), max_loss=max_loss)
    page = write_routes(told, routes_page(told), draft, final) / "index.html"
    if json:
        terminal.say_json({**told.as_dict(), "page": str(page)})
        return
    _print(told)
    terminal.talk().print(f"the page: {page}", markup=False)


def _ways_of_pair(job: ExtractionJob, policy: ModelPolicy) -> dict[str, Any]:
    """How the final model is asked behind a tuned draft, where it would be asked in another way alone: without examples."""
    from extractors.pipeline import model_of
    from extractors.recipe import compile_recipe

    if policy.tuned is None or job.examples is not None:
        return {}
    shape = compile_recipe(job, model_of(job), policy).shape
    return {"omit_nulls": shape.omit_nulls, "field_order": "text" if shape.text_order else "schema"}


def _print(told: Routes) -> None:
    console = terminal.talk()
    lines = [_line(name, one, best=one == told.best) for name, one in told.distinct]
    whole = {"routed": "100%", "F1": _figure(told.final_f1.value), "against the final": "", "cost": "100%", "": ""}
    terminal.table(console, [*lines, {"route below": "final alone", **whole}])
    console.print(
        f"{told.records:,} labelled records, {told.draft} before {told.final}; "
        + (f"cost: share of the {told.unit} of {told.final} alone; " if told.unit else "cost unknown; ")
        + "in parentheses: 95 % intervals, bootstrap over records",
        markup=False,
    )
    terminal.say(told.verdict)


def _line(name: str, one: Route, *, best: bool) -> dict[str, str]:
    return {
        "route below": name,
        "routed": f"{one.routed:.0%}",
        "F1": _figure(one.f1.value),
        "against the final": one.difference.signed,
        "cost": "-" if one.cost is None else f"{one.cost:.0%}",
        "": "<- best" if best else "",
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
