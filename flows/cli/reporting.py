"""``quarry report``: the bar while it is written, and where it went."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from extractors.reporting import write_report
from extractors.reporting.words import size
from flows.cli import terminal


def make_report(
    out: Path,
    output: str | None,
    *,
    schema: str | None,
    recipe: str | None,
    run: str | None,
    limit: int,
    texts: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Write the page and say what is in it. Raises the errors of ``extractors.errors``."""
    console = terminal.talk()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=as_json,
    ) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        written = write_report(
            out, output, schema=schema, recipe=recipe, run=run, limit=limit, texts=texts, progress=tell
        )
    scope, sample = written.scope, written.sample
    if as_json:
        terminal.say_json(
            {
                "path": str(written.path),
                "schema": scope.name,
                "recipe": scope.recipe,
                "run": scope.run,
                "rows": sample.of_rows,
                "failures": sample.of_failures,
                "shown": sample.records,
                "bytes": written.bytes,
            }
        )
    else:
        what = f"{scope.name} recipe={scope.recipe}" + (f" run {scope.run}" if scope.run else "")
        console.print(
            f"{what} ({scope.why}): {sample.of_rows:,} rows and {sample.of_failures:,} open failures"
            + ("" if sample.whole else f"; {sample.records:,} of them in the page, --limit for more"),
            markup=False,
        )
        if scope.others:
            others = ", ".join(f"{name} recipe={recipe}" for name, recipe in scope.others[:5])
            more = f" and {len(scope.others) - 5} more" if len(scope.others) > 5 else ""
            console.print(f"also in the folder: {others}{more} (--schema, --recipe)", markup=False)
        terminal.say(f"{written.path} ({size(written.bytes)})")
    if show:
        webbrowser.open(written.path.resolve().as_uri())
