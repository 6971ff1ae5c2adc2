"""One writer at a time on an object store: a lease in an object, renewed while its owner lives.

Arrow has no conditional PUT, so taking it is write, wait, read back: of two that start in the same second the later
writer wins and the other one gives up. The owner renews its lease every 15 s and looks before each commit that it
still has it; one that is not renewed for 60 s, by the store's clock, may be taken. This keeps runs apart that are started
by mistake. It is no proof against a process that is frozen for a minute in the middle of a commit: give runs whose
outputs must never meet a prefix each.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson

from extractors.errors import OutputBusy, OutputError
from extractors.store import files, layout
from extractors.store.lock import Lock
from extractors.store.objects import ObjectPath

logger = logging.getLogger(__name__)
RENEW_SECONDS = 15.0
LEASE_SECONDS = 60.0
SETTLE_SECONDS = 0.5


def lock_of(out: Path) -> Lock | ObjectLock:
    """The lock of an output, wherever it is."""
    return ObjectLock(out) if isinstance(out, ObjectPath) else Lock(out)


class ObjectLock:
    """A lease on ``OUT/.lock``."""

    def __init__(self, out: ObjectPath) -> None:
        self._path = out / layout.LOCK
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None
        self._renewed = 0.0
        self._lost: str | None = None

    def take(self) -> None:
        """Raises ``OutputBusy`` when another run has it, naming that run."""
        try:
            holder = self._holder()
            if holder is not None and not self._stale(holder):
                raise self._busy(holder)
            self._write()
            time.sleep(SETTLE_SECONDS)
            holder = self._holder()
            if holder is None or holder["token"] != self._token:
                raise self._busy(holder or {})
        except OSError as error:
            raise files.explained(error, self._path) from error
        self._renewing = threading.Thread(target=self._renew, name="quarry-lease", daemon=True)
        self._renewing.start()

    def check(self) -> None:
        """Raises ``OutputBusy`` when somebody else took it, or it could not be renewed in time."""
        if self._lost is not None:
            raise OutputBusy(self._lost)
        if time.monotonic() - self._renewed > LEASE_SECONDS:
            raise OutputBusy(
                f"the lease {self._path} ran out while this process stood still; run the same command again"
            )

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._renewing is None:
            return
        self._ended.set()
        self._renewing.join()
        self._renewing = None
        try:
            if self._lost is None:
                files.remove(self._path)
        except OSError as error:
            logger.warning("the lease %s cannot be deleted (%s); it ends by itself", self._path, error)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                holder = self._holder()
                if holder is None or holder["token"] != self._token:
                    self._lost = f"{self._path.parent} was taken over by another run ({_told(holder or {})})"
                    logger.error("%s", self._lost)
                    return
                self._write()
            except (OSError, OutputError) as error:
                logger.warning("the lease %s cannot be renewed (%s)", self._path, error)

    def _write(self) -> None:
        began = time.monotonic()
        held = {"token": self._token, "pid": os.getpid(), "host": socket.gethostname()}
        files.write_whole(self._path, orjson.dumps({**held, "since": datetime.now(UTC).isoformat(timespec="seconds")}))
        self._renewed = began

    def _holder(self) -> dict[str, object] | None:
        try:
            told = orjson.loads(files.read(self._path))
            return told if isinstance(told, dict) and "token" in told else {"token": ""}
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError:
            return {"token": ""}

    def _stale(self, holder: dict[str, object]) -> bool:
        """Whether its owner is gone: a dead process of this machine, or a lease that ran out by the store's clock."""
        pid = holder.get("pid")
        if holder.get("host") == socket.gethostname() and isinstance(pid, int) and not _alive(pid):
            return True
        probe = self._path.with_name(f"{self._path.name}-{self._token}")
        files.write_whole(probe, b"{}")
        try:
            now, then = probe.info().mtime, self._path.info().mtime
        finally:
            files.remove(probe)
        return then is None or (now is not None and (now - then).total_seconds() > LEASE_SECONDS)

    def _busy(self, holder: dict[str, object]) -> OutputBusy:
        return OutputBusy(
            f"{self._path.parent} is in use by another run ({_told(holder)}); wait for it, stop it, or give another --out. "
            f"The lease of a machine that was lost ends {LEASE_SECONDS:.0f} s after it"
        )


def _told(holder: dict[str, object]) -> str:
    if "pid" not in holder:
        return "holder unknown"
    return f"pid {holder['pid']} on {holder.get('host')} since {holder.get('since')}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
