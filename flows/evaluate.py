"""The evaluation flow: the extract flow's run over a golden set, then its scores as artifacts and as the run's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from extractors.evaluate.evaluation import Evaluation, check_figure, evaluate, foreseen
from extractors.evaluate.page import evaluation_page
from extractors.evaluate.results import figures, write_results
from extractors.evaluate.scoring import Verdict
from extractors.pipeline import Control
from flows.blocks import settings_with
from flows.extract import conduct_with_tasks
from flows.form import JobForm
from flows.limits import global_rate
from flows.signals import ended_by_signal

_MOST_WRONG = 100


@flow(
    name="evaluate",
    flow_run_name="evaluate-{golden}",
    description="Run over a golden set's records and score each field. Fails below the figures that are asked for.",
    task_runner=cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=32)),
    persist_result=False,
)
def evaluate_golden(
    golden: str, job: JobForm, rules: dict[str, str] | None = None, fail_under: dict[str, float] | None = None
) -> State[dict[str, Any]]:
    """Evaluate, for a schedule or after a change of prompt.

    Args:
        golden: The golden set, JSON Lines or Parquet; the job's source, unless that says where its records are.
        job: What to extract, with which model, into which folder.
        rules: How fields are compared, by path, where the schema does not say it.
        fail_under: Figures with the least that is good enough, such as f1 and 0.9.
    """
    settings = settings_with(job.credentials)
    fields = foreseen(Path(golden), job, rules=rules, settings=settings).rules if fail_under else {}
    for name in fail_under or {}:
        check_figure(name, fields)
    control = Control()
    with global_rate(job.rate_limit_name) as permit, ended_by_signal(control) as signalled:
        found = evaluate(
            Path(golden),
            job,
            rules=rules,
            settings=settings,
            conduct=conduct_with_tasks,
            control=control,
            permit=permit,
            engine_name="prefect",
        )
    folder = write_results(found, evaluation_page(found))
    create_markdown_artifact(scores_markdown(found, folder), key="quarry-evaluation", description="Scores by field")
    if wrong := wrong_rows(found):
        create_table_artifact(wrong, key="quarry-wrong-values", description="Wrong values beside the expected ones")
    message = f"F1 {found.micro.f1}, {len(found.records)} records, {len(found.unasked)} not asked"
    get_run_logger().info(message)
    if (cancelled := signalled.cancelled(message)) is not None:
        return cancelled
    short = [
        f"{name} is {value} and not {least:g}"
        for name, least in (fail_under or {}).items()
        if (value := found.figure(name)) is None or value < least
    ]
    if fail_under and found.no_bar is not None:
        short.append(found.caution or found.no_bar)
    if short:
        return Failed(message="; ".join([*short, message]), data=figures(found))
    return Completed(message=message, data=figures(found))


def scores_markdown(found: Evaluation, folder: Path) -> str:
    """The table of scores, and where the page lies."""
    lines = [
        f"## {found.name} on {found.golden}: F1 {found.micro.f1}",
        "",
        "| field | precision | recall | F1 |",
        "|---|---:|---:|---:|",
        *(
            f"| {field} | {one.precision} | {one.recall} | {one.f1} |"
            for field, one in (("all", found.micro), *found.by_field.items())
        ),
        "",
        f"- {len(found.records):,} labelled records, {len(found.unasked):,} not asked; in parentheses 95 % intervals",
        f"- whole records right {found.whole}; valid {found.valid}; values without evidence {found.ungrounded}",
        f"- model `{found.model}`, recipe `{found.recipe}`, page `{folder / 'index.html'}`",
        *([] if found.caution is None else [f"- **{found.caution}**"]),
    ]
    return "\n".join(lines)


def wrong_rows(found: Evaluation) -> list[dict[str, str]]:
    """The first 100 wrong values."""
    rows = [
        {"record": one.given.record_id, "value": cell.path, "verdict": cell.verdict.value,
         "expected": str(cell.expected), "given": str(cell.got)}
        for one in found.records
        for cell in one.cells
        if cell.verdict not in (Verdict.RIGHT, Verdict.ABSENT)
    ]  # fmt: skip
    return rows[:_MOST_WRONG]


if __name__ == "__main__":
    evaluate_golden.serve(name="evaluate")
