"""A flow run that is cancelled, or interrupted by Ctrl-C, ends by itself: what is done is committed before the process goes.

Prefect's worker ends a cancelled run's process with SIGTERM, and with SIGKILL half a minute later.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from extractors.pipeline import Control

PATIENCE = 5.0
"""Seconds that calls in flight have to end; they are paid for, so their answers are worth waiting for."""


@dataclass(slots=True)
class Signalled:
    """Whether the process was asked to end."""

    number: int | None = None

    def cancelled(self, message: str) -> State[Any] | None:
        """The state of a run that ended because somebody cancelled it; None when it ended by itself.

        Where the process was asked to end for another reason, the signal goes on to Prefect's own handler, which
        tells of a crash: then this does not come back."""
        if self.number is None:
            return None
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(str(flow_run.id))).state
        if state is not None and state.is_cancelling():
            return Cancelled(message=message)
        os.kill(os.getpid(), self.number)
        signal.pause()
        return None


@contextmanager
def ended_by_signal(control: Control) -> Iterator[Signalled]:
    """SIGTERM stops the run: at first nothing new is asked, after ``PATIENCE`` what is in flight is let go. SIGINT
    (Ctrl-C) does the first, a second one the other; a process that ignores it goes on ignoring it.

    Outside of the main thread, where Python takes no signals, it changes nothing."""
    told = Signalled()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def stop(number: int, frame: FrameType | None) -> None:
        told.number = number
        control.stop("cancelled")
        timer = threading.Timer(PATIENCE, control.stop)
        timer.daemon = True
        timer.start()

    def interrupt(number: int, frame: FrameType | None) -> None:
        sys.stderr.write("\nstopping: finishing what is in flight (again: do not wait)…\n")
        control.stop()

    handlers = {signal.SIGTERM: stop}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        handlers[signal.SIGINT] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """While nothing is in flight, Ctrl-C ends the process as it does elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
