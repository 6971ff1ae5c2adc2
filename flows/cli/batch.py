"""``quarry batch``: the batches of an output folder, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extractors.errors import JobError, OutputError
from flows.cli import terminal

if TYPE_CHECKING:
    from extractors.batch.errands import Found

batch = typer.Typer(
    name="batch", help="List, look at, collect and cancel the batches of an output folder.", no_args_is_help=True
)
_OUT = typer.Argument(metavar="OUT", help="The output folder of a run.")
_NAME = typer.Argument(metavar="BATCH", help="The batch's name, its id at the service, or the end of either.")
_JSON = typer.Option("--json", help="Print one JSON object, for machines.")


@batch.command("list")
def list_command(out: Annotated[str, _OUT], json: Annotated[bool, _JSON] = False) -> None:
    """List the batches, as the ledger on disk knows them. Nothing is called.

    Example: `quarry batch list out`
    """
    from extractors.batch.errands import find_batches

    found = find_batches(_existing(out))
    if json:
        terminal.say_json({"batches": [_told(one) for one in found]})
        return
    if not found:
        terminal.say("no batches")
    for one in found:
        entry = one.entry
        terminal.say(
            f"{entry.name}  {entry.state.value}{f' ({entry.status})' if entry.status else ''}  "
            f"{entry.lines:,} requests, {entry.completed:,} done  {entry.model}  {entry.batch_id or 'no id yet'}"
        )


@batch.command()
def show(out: Annotated[str, _OUT], name: Annotated[str, _NAME], json: Annotated[bool, _JSON] = False) -> None:
    """Show one batch: what is known of it, and what its lines were.

    Example: `quarry batch show out 0001`
    """
    from extractors.batch.errands import find_batches

    one = _one(find_batches(_existing(out)), name)
    if json:
        terminal.say_json(_told(one))
        return
    for key, value in _told(one).items():
        terminal.say(f"{key}: {value}")


@batch.command()
def collect(out: Annotated[str, _OUT], json: Annotated[bool, _JSON] = False) -> None:
    """Take in what has ended, ask what failed or needs a correction, and stop without waiting.

    Example: `quarry batch collect out`
    """
    from extractors.batch.errands import collect_batches

    reports = collect_batches(_existing(out))
    if json:
        terminal.say_json({"runs": [report.as_dict() for report in reports]})
        return
    if not reports:
        terminal.talk().print("no batch is under way: nothing to collect")
    for report in reports:
        terminal.summary(terminal.talk(), report)


@batch.command()
def cancel(
    out: Annotated[str, _OUT],
    name: Annotated[str | None, typer.Argument(metavar="[BATCH]", help="One batch. Default: all.")] = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Cancel what is under way. What is done of it is billed, kept, and taken in by the next `collect` or run.

    Example: `quarry batch cancel out`
    """
    from extractors.batch.errands import cancel_batches, find_batches

    path = _existing(out)
    chosen = None if name is None else _one(find_batches(path), name).entry.name
    cancelled = cancel_batches(path, name=chosen)
    if json:
        terminal.say_json({"cancelled": [_told(one) for one in cancelled]})
        return
    for one in cancelled:
        terminal.say(f"{one.entry.name}: {one.entry.status}")
    if not cancelled:
        terminal.talk().print("no batch is under way: nothing to cancel")


@batch.command("try")
def try_command(
    base_url: Annotated[str | None, typer.Option(help="The address. Default: that of the environment.")] = None,
    poll: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.01)] = 60.0,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Try files and batches with the service's free test model: one line, a fixed answer, no cost.

    Example: `quarry batch try --base-url https://dashscope.aliyuncs.com/compatible-mode/v1`
    """
    from extractors.batch.dry_run import try_batches
    from extractors.endpoint import Settings

    trial = try_batches(Settings.from_environment(), address=base_url, poll=poll)
    output = trial.output.decode("utf-8", "replace")
    if json:
        terminal.say_json({"batch_id": trial.batch.id, "status": trial.batch.status.value, "output": output})
        return
    terminal.say(f"{trial.batch.id}: {trial.batch.status.value}")
    terminal.say(output.strip())


def _told(found: Found) -> dict[str, Any]:
    entry = found.entry
    return {
        "batch": entry.name,
        "schema": found.schema,
        "recipe": found.recipe,
        "state": entry.state.value,
        "status": entry.status,
        "batch_id": entry.batch_id,
        "model": entry.model,
        "requests": entry.lines,
        "completed": entry.completed,
        "bytes": entry.size,
        "window": entry.window,
        "written_at": entry.written_at,
        "most_cost": format(entry.worst.cost, "f"),
        "input_file_id": entry.file_id,
        "output_file_id": entry.output_file_id,
        "error_file_id": entry.error_file_id,
        "lines": dict(entry.tally),
        "problems": [list(one) for one in entry.problems],
    }


def _one(found: list[Found], name: str) -> Found:
    chosen = [one for one in found if one.entry.name.endswith(name) or (one.entry.batch_id or "").endswith(name)]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(one.entry.name for one in found[:10]) or "none"
    raise JobError(f"{name} names {len(chosen)} batches; there are: {known}")


def _existing(out: str) -> Path:
    from extractors.store.files import is_remote

    if is_remote(out):
        raise JobError(f"batches are kept beside an output on a disk: {out} is on an object store, and has none")
    path = Path(out)
    if not (path / "quarry.json").is_file():
        raise OutputError(f"{out} is not an output folder of quarry: it has no quarry.json. Give the --out of a run")
    return path
