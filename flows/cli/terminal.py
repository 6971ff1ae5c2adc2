"""What the command line says: a bar while it works, tables of what happened. Talk goes to stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    # The engine costs half a second to load, which `quarry --help` does not need.
    from extractors.engine import ChunkDone
    from extractors.report import Progress as Counters
    from extractors.report import RunReport
    from extractors.store.plan import PlanCounts

_TICK = 0.2


def talk() -> Console:
    """The console for people: stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line of data on stdout."""
    sys.stdout.write(line + "\n")


def say_json(value: Any) -> None:
    """One JSON object on stdout, the last thing that a ``--json`` command prints."""
    say(orjson.dumps(value, default=str).decode())


class Bar:
    """A watcher that shows downloads, then records with rate, failures, cost and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._download: Progress | None = None
        self._bar: Progress | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Show the last figures and leave the line; a later ``planned`` opens a new one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for shown in (self._download, self._bar):
            if shown is not None:
                shown.stop()
        self._thread = self._bar = self._download = None
        self._stop.clear()

    def fetching(self, what: str, done: int, total: int) -> None:
        """Bytes of an embedded model's weights."""
        if self._download is None:
            self._download = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=self._console,
            )
            self._download.add_task(f"fetching {what}", total=total)
            self._download.start()
        self._download.update(self._download.task_ids[0], completed=done, total=total)

    def planned(self, counts: PlanCounts, progress: Counters) -> None:
        """Show the bar and refresh it a few times a second until the run ends."""
        self.close()
        self._console.print(
            f"{counts.records:,} records: {counts.records - counts.new:,} already done, {counts.new:,} to do, "
            f"{counts.distinct:,} to ask"
            + (f"; {counts.duplicate_ids:,} share an id with an earlier one" if counts.duplicate_ids else "")
        )
        if not counts.new:
            return
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[failed]} failed{task.fields[look_ups]}"),
            TextColumn("{task.fields[money]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        task = self._bar.add_task("", total=progress.total, rate="", failed="0", look_ups="", money="", left="")
        self._bar.start()
        bar = self._bar

        def show() -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = progress.done / elapsed if elapsed else 0.0
            left = (progress.total - progress.done) / rate if rate else 0.0
            bar.update(
                task,
                completed=progress.done,
                rate=f"{rate:,.1f}/s" if rate >= 1 else f"{rate * 60:,.1f}/min",
                failed=f"{progress.failures:,}",
                look_ups=f"  {progress.look_ups}" if progress.look_ups else "",
                money=f"{progress.input_tokens + progress.output_tokens:,} tokens {money(progress.cost)}",
                left=f"{_duration(left)} left" if left else "",
            )

        def refresh() -> None:
            while not self._stop.wait(_TICK):
                show()
            show()

        self._thread = threading.Thread(target=refresh, name="quarry-bar", daemon=True)
        self._thread.start()

    def chunk_done(self, done: ChunkDone, progress: Counters) -> None:
        """The bar reads the counters by itself."""


def money(cost: Decimal | None, currency: str = "USD") -> str:
    """``0.001234 USD``; an unknown price says so."""
    return "price unknown" if cost is None else f"{cost:.6f} {currency}" if cost else f"0 {currency}"


def summary(console: Console, report: RunReport) -> None:
    """The counts that add up, the cost, and what to do next."""
    from extractors.report import unfinished
    from extractors.routing_report import sentences

    console.print(
        f"[bold]{report.records:,} records = {report.rows:,} rows + {report.failures:,} failures + "
        f"{report.skipped:,} already done + {report.undone:,} undone[/bold]"
        + (f"  ({report.merged:,} answered by an identical record's call)" if report.merged else "")
    )
    console.print(
        f"{report.calls:,} calls ({report.tries - report.calls:,} more tries failed on the way), "
        f"{report.input_tokens:,} input + {report.output_tokens:,} output tokens, "
        f"{money(report.cost, report.currency)}, {report.seconds:,.1f} s, model {report.model}, recipe {report.recipe}"
    )
    if told := unfinished(report.unfinished_calls, report.unfinished_cost, report.currency):
        console.print(told)
    if report.routing:
        for one in sentences(report.routing, report.currency):
            console.print(one.text, style="yellow" if one.warns else None, markup=False)
    if report.saved:
        console.print(f"the batch lane saved {money(report.saved, report.currency)} against the same answers live")
    if report.replayed:
        console.print(
            f"{report.replayed:,} answers came from the journal of an interrupted run: not asked again, and counted here"
        )
    if report.duplicate_ids:
        console.print(
            f"{report.duplicate_ids:,} records share their id with an earlier one; each is kept as its own row"
        )
    if report.failures_by_reason:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.failures_by_reason.items())
        console.print(f"failures: {reasons}")
    if report.stopped:
        console.print(f"[yellow]stopped: {report.stopped}[/yellow]")


def next_commands(console: Console, report: RunReport, resume: str) -> None:
    """The exact commands to go on with."""
    from shlex import quote

    out = quote(report.out)
    console.print("next:")
    console.print(f"  quarry show {out}", markup=False)
    console.print(f"  quarry report {out} --open   # one HTML page: plots, failures, every record", markup=False)
    console.print(
        f"  duckdb -readonly {quote(report.out + '/catalog.duckdb')} 'select * from {report.name} limit 5'",
        markup=False,
    )
    if report.failures or report.skipped_failures:
        console.print(f"  quarry failures {out}", markup=False)
        console.print(f"  quarry retry {out}", markup=False)
    if report.undone:
        console.print(f"  {resume}   # goes on with the {report.undone:,} undone", markup=False)


def table(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str | None = None,
    width: int = 60,
    bare: bool = False,
) -> None:
    """Rows of one shape as a table; long values are cut at ``width`` characters. ``bare``: no lines, nothing folded."""
    if not rows:
        return
    shown = Table(
        title=title,
        title_justify="left",
        box=None if bare else HEAVY_HEAD,
        pad_edge=not bare,
        padding=(0, 1, 0, 0 if bare else 1),
    )
    for name in rows[0]:
        shown.add_column(str(name), overflow="fold", no_wrap=bare)
    for row in rows:
        shown.add_row(*(_cell(value, width).replace("[", "\\[") for value in row.values()))
    console.print(shown, markup=False)


def blocks(rows: Sequence[Mapping[str, Any]], *, width: int = 100) -> None:
    """Rows with many columns, one value a line; on stdout, for it is data."""
    for row in rows:
        say("")
        longest = max(len(name) for name in row)
        for name, value in row.items():
            say(f"  {name:<{longest}}  {_cell(value, width)}")


def _cell(value: Any, width: int) -> str:
    text = (
        ""
        if value is None
        else value
        if isinstance(value, str)
        else orjson.dumps(value, default=str).decode()
        if isinstance(value, dict | list)
        else str(value)
    )
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
