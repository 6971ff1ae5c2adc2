"""A flow run that is cancelled ends by itself: what is done is committed before the process goes.

Prefect's worker ends a cancelled run's process with SIGTERM, and with SIGKILL half a minute later.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from extractors.pipeline import Control

PATIENCE = 5.0
"""Seconds that calls in flight have to end; they are paid for, so their answers are worth waiting for."""


@dataclass(slots=True)
class Signalled:
    """Whether the process was asked to end."""

    number: int | None = None

    def pass_on(self) -> None:
        """Give the signal to who would have had it: Prefect makes the run's state of it. Nothing, when there was none."""
        if self.number is not None:
            os.kill(os.getpid(), self.number)
            # The handler runs in the main thread, which this is; it does not come back.
            signal.pause()


@contextmanager
def ended_by_signal(control: Control) -> Iterator[Signalled]:
    """SIGTERM stops the run: at first nothing new is asked, after ``PATIENCE`` what is in flight is let go.

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

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
