"""Keeps Python's garbage collector from looking at the whole program again and again during a run.

A full collection walks every object alive: with the libraries loaded that is 100 to 200 ms, in which the event
loop sends nothing, and it happens several times while the first records come in. What is there when a run begins
is therefore set aside (``gc.freeze``) until the last run of the process has ended; what the run makes is collected
as ever.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_runs = 0
_ours = False


@contextmanager
def older_objects_set_aside() -> Iterator[None]:
    """For as long as it is entered, by however many runs. A program that froze objects itself is left alone."""
    global _runs, _ours
    with _lock:
        _runs += 1
        if _runs == 1 and not gc.get_freeze_count():
            gc.freeze()
            _ours = True
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if not _runs and _ours:
                gc.unfreeze()
                _ours = False
