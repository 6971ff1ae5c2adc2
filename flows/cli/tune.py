"""``quarry tune``: an embedded model tuned to a schema on labelled records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from extractors.errors import Interrupted
from flows.cli import terminal
from flows.cli.evaluate import JOB, JSON, RECORDS, golden_job, golden_options

if TYPE_CHECKING:
    from extractors.tuning.settings import Watcher
    from extractors.tuning.tune import Tuned
    from schemas.job import ExtractionJob

_TO = typer.Option(help="The tuned model's file, to be named with --model or --draft; it ends in .gguf.")
_EPOCHS = typer.Option(help="Times that every labelled record is seen.", min=0.1, max=100)
_RANK = typer.Option(help="Rank of the adapter: how much it can learn, and how large it is.", min=1, max=256)
_RATE = typer.Option(help="Learning rate of Adam, which falls to a tenth on a cosine.", min=1e-6, max=1e-1)


@golden_options
def tune_command(
    given: dict[str, Any],
    job: Annotated[str | None, JOB] = None,
    records: Annotated[str | None, RECORDS] = None,
    to: Annotated[str, _TO] = "tuned.gguf",
    epochs: Annotated[float, _EPOCHS] = 3.0,
    rank: Annotated[int, _RANK] = 16,
    learning_rate: Annotated[float, _RATE] = 3e-4,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Tune an embedded model to a schema: train an adapter on labelled records, on this machine's processor.

    It takes minutes for hundreds of short records; stopped or killed, the same command goes on. A tuned model is shown no
    examples and answers what it was tuned to: the same schema, prompt and instructions. Without --model it is local-0.5b.

    Example: `quarry tune golden.jsonl --schema schemas.product:Product --model local-0.5b --to product.gguf`
    """
    from extractors.tuning.settings import Settings
    from extractors.tuning.tune import tune

    path, made = golden_job(given, job, records)
    settings = Settings(epochs=epochs, rank=rank, learning_rate=learning_rate, seed=made.seed or 0)
    try:
        with _watching(quiet=json) as watch:
            found = tune(path, made, Path(to), settings=settings, watch=watch)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped: the same command goes on; what it needs for that is in {to}.part") from None
    if json:
        terminal.say_json(found.as_dict())
        return
    _print(found, made, str(path))


@contextmanager
def _watching(*, quiet: bool) -> Iterator[Watcher]:
    """Bars: of the weights that are fetched, of the records that are read, of the steps."""
    from extractors.tuning.settings import Step, Watcher

    if quiet:
        yield Watcher()
        return

    class Bars(Watcher):
        def __init__(self, bar: Progress, fetched: terminal.Bar) -> None:
            self._bar, self._fetched, self._task = bar, fetched, bar.add_task("", total=None, said="")

        def fetching(self, what: str, done: int, total: int) -> None:
            self._fetched.fetching(what, done, total)

        def reading(self, done: int, total: int) -> None:
            self._fetched.close()
            self._bar.start()
            self._bar.update(self._task, completed=done, total=total, said="records read")

        def compiling(self) -> None:
            self._bar.update(self._task, completed=0, total=None, said="compiling, and looking at the untuned model")

        def stepped(self, step: Step) -> None:
            said = f"steps, loss {step.loss:.3f}, held back {step.best:.3f}"
            self._bar.update(self._task, completed=step.number, total=step.of, said=said)

    console = terminal.talk()
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True), console=console)
    with terminal.Bar(console) as fetched:
        try:
            yield Bars(bar, fetched)
        finally:
            bar.stop()


def _print(found: Tuned, job: ExtractionJob, golden: str) -> None:
    console = terminal.talk()
    console.print(
        f"{found.base} learned from {found.learned_from:,} labelled records in {found.steps:,} steps, {found.seconds:,.0f} s"
        + (f", of which {found.resumed_at:,} were there already" if found.resumed_at else "")
        + (f"; {found.too_long:,} were too long and left out" if found.too_long else "")
        + (f"; {found.partly_labelled:,} are labelled in part and were left out" if found.partly_labelled else ""),
        markup=False,
    )
    console.print(
        f"answers to {found.held_back:,} records held back: {found.loss_before:.3f} nats a token before, "
        f"{found.loss_after:.3f} after (best at step {found.best_step:,})",
        markup=False,
    )
    terminal.say(found.path)
    console.print(
        "next, on labelled records that it has not seen: how right it is, and whether a final model behind it pays:",
        markup=False,
    )
    same = f"--schema {quote(job.schema_spec)}" + (
        f" --instructions {quote(job.instructions)}" if job.instructions else ""
    )
    console.print(f"  quarry eval OTHERS.jsonl {same} --model {quote(found.path)}", markup=False)
    console.print(
        f"  quarry route OTHERS.jsonl {same} --examples {quote(golden)} --model {quote(found.path)} --final local-1.5b",
        markup=False,
    )
