"""Approval at the command line: the forecast is shown, and where there is a terminal, somebody is asked."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from rich.console import Console

from extractors.errors import ApprovalNeeded
from extractors.forecast import Forecast
from extractors.pipeline import Control, Watcher
from extractors.report import RunReport
from extractors.stages import Decision, run_in_stages
from flows.cli.options import settings_for
from flows.cli.terminal import Bar
from schemas.job import ExtractionJob


class Asker:
    """Hears a run's forecast and decides, by ``--approve`` or by asking. ``read`` reads an answer, None: there is
    no terminal to read from."""

    def __init__(
        self,
        console: Console,
        bar: Bar,
        *,
        approved: bool,
        quiet: bool = False,
        read: Callable[[str], str] | None = None,
    ) -> None:
        self._console = console
        self._bar = bar
        self._approved = approved
        self._quiet = quiet
        self._read = read if read is not None else _terminal()
        self._forecast: Forecast | None = None

    def run(self, job: ExtractionJob, *, control: Control, watch: Watcher | None) -> RunReport:
        """Run a job here, in stages where it asks for them."""
        return run_in_stages(
            job, settings=settings_for(job), decide=self.decide, told=self.hear, control=control, watch=watch
        )

    def told(self) -> dict[str, Any]:
        """The forecast as JSON, where there was one."""
        return {} if self._forecast is None else {"forecast": self._forecast.as_dict()}

    def hear(self, found: Forecast) -> None:
        """Show a forecast."""
        self._forecast = found
        self._bar.close()
        if not self._quiet:
            for line in found.lines():
                self._console.print(line, markup=False)

    def decide(self, found: Forecast) -> Decision:
        """Yes, no, or an amount as the ceiling. Raises ``ApprovalNeeded`` where nobody can be asked."""
        if self._approved:
            return Decision(go=True)
        if self._read is None:
            raise ApprovalNeeded(
                f"the run may cost up to {found.most:.4f} {found.currency} with its sample, more than --approve-above. "
                "Nothing else was asked; the sample is kept and not paid again. Run the same command with --approve to go "
                "on, with --max-cost beside it for a ceiling, or with a higher --approve-above"
            )
        while True:
            answer = self._read(
                f"up to {found.most:.4f} {found.currency} with the sample: go on? y, n, or an amount as the ceiling: "
            )
            decision = parse_answer(answer)
            if decision is not None:
                return decision
            self._console.print("answer y, n, or an amount such as 2.50", markup=False)


def parse_answer(answer: str) -> Decision | None:
    """What somebody typed; None when it cannot be understood. An empty answer is a no."""
    word = answer.strip().lower()
    if word in ("y", "yes"):
        return Decision(go=True)
    if word in ("", "n", "no"):
        return Decision(go=False)
    try:
        amount = Decimal(word)
    except InvalidOperation:
        return None
    return Decision(go=True, ceiling=amount) if amount.is_finite() and amount >= 0 else None


def _terminal() -> Callable[[str], str] | None:
    """Reads a line from the terminal, the question on stderr; None without one."""
    main = threading.current_thread() is threading.main_thread()
    if not (main and sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def read(question: str) -> str:
        sys.stderr.write(question)
        sys.stderr.flush()
        # A run's own Ctrl-C asks it to finish what is in flight; at the question nothing is, and it is a no.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return sys.stdin.readline() or "n"
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            return "n"
        finally:
            signal.signal(signal.SIGINT, before)

    return read
