"""llama.cpp's server in a child process on loopback, started and stopped by whoever needs it.

    with LocalServer(path, slots=2) as server:
        ...  # POST to server.base_url + "/chat/completions"

The defaults are measured: see ``docs/local-model.md`` and ``benchmarks/local_server.py``.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from extractors.errors import ModelMissing, ServerUnreachable

DEFAULT_SLOTS = 2
DEFAULT_CONTEXT = 8192
"""Tokens of one slot: prompt and answer together."""

_LOG = logging.getLogger(__name__)
_CHILD = Path(__file__).with_name("local_child.py")
_START_TIMEOUT = 300.0
_STOP_TIMEOUT = 5.0
_LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the server uses the machine. ``threads`` None: one for each core that this process may use.

    ``spin`` is how often a thread looks at a barrier before it sleeps there, None being OpenMP's own choice of
    spinning on for milliseconds. On cores that others use as well, a spinning thread burns the time slice that the
    one it waits for needs; a few hundred looks are long enough for a barrier that is about to open.
    ``poll`` is ggml's own polling, which builds with OpenMP, such as xllamacpp's, ignore.
    ``speculate``: stretches that the answer may copy from the prompt are tried at once (n-gram speculation). llama.cpp tells
    a probability of 1 for each token that was tried and agreed to, so whoever wants probabilities does without.
    """

    threads: int | None = None
    spin: int | None = 300
    poll: int = 0
    speculate: bool = False
    batch: int = 512
    quantized_cache: bool = False


class LocalServer:
    """One embedded model behind an OpenAI-compatible address.

    ``slots`` requests are worked on at a time, each with ``context_per_slot`` tokens for prompt and answer;
    further requests wait in the server. ``alias`` is the model name that replies carry; ``adapter`` a LoRA adapter's file. Not
    reentrant, but may be started again after it was stopped.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        slots: int = DEFAULT_SLOTS,
        context_per_slot: int = DEFAULT_CONTEXT,
        alias: str | None = None,
        tuning: Tuning | None = None,
        log_path: Path | None = None,
        adapter: Path | None = None,
    ) -> None:
        if slots < 1 or context_per_slot < 256:
            raise ValueError(f"a server needs at least 1 slot of 256 tokens, not {slots} of {context_per_slot}")
        self.model_path = Path(model_path)
        self.adapter = adapter
        self.model = alias or self.model_path.stem
        self.slots = slots
        self.context_per_slot = context_per_slot
        self.tuning = tuning or Tuning()
        self.threads = self.tuning.threads or available_cores()
        self.log_path = log_path
        self._own_log = log_path is None
        self._address = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        """Such as ``http://127.0.0.1:41234/v1``. Raises ``ServerUnreachable`` when the server is not running."""
        if not self._address:
            raise ServerUnreachable(f"the embedded server for {self.model} is not running: enter it with `with` first")
        return f"{self._address}/v1"

    @property
    def pid(self) -> int | None:
        """The process that holds the model, None when there is none."""
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        """Whether the process is there; it may have been killed, for memory for instance."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the child and wait until it answers.

        Raises ``ModelMissing`` when there is no such file, ``ServerUnreachable`` with the last lines of the log
        when the child dies or does not get ready in 5 minutes."""
        if self._process is not None:
            raise RuntimeError("this server is running already")
        if not self.model_path.is_file():
            raise ModelMissing(f"there is no model file at {self.model_path}: `quarry model list` shows what is there")
        if self._own_log:
            self.log_path = _fresh_log()
        log_path = self.log_path
        assert log_path is not None
        _LOG.debug("the embedded server's log is %s", log_path)
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                # -P: the script's folder must not become an import path, its neighbours have common names.
                [sys.executable, "-P", str(_CHILD), json.dumps(self._settings())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(),
                # Ctrl-C goes to the terminal's whole group; what is in flight must still be answered.
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + _START_TIMEOUT
            self._address = self._listening(self._process, deadline)
            self._wait_healthy(deadline)
        except BaseException:
            self.stop()
            raise
        _LOG.info(
            "%s answers at %s: %d slots of %d tokens, %d threads, pid %d, log %s",
            self.model,
            self._address,
            self.slots,
            self.context_per_slot,
            self.threads,
            self._process.pid,
            log_path,
        )

    def stop(self) -> None:
        """End the child, by its id. Requests in flight are cut off. Does nothing when it is not running."""
        process, self._process = self._process, None
        self._address = ""
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def log_tail(self, *, lines: int = _LOG_LINES) -> str:
        """The last lines of the child's log, at most 4,000 characters."""
        if self.log_path is None or not self.log_path.is_file():
            return ""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])[-4000:]

    def _settings(self) -> dict[str, object]:
        return {
            "parent": os.getpid(),
            "model": str(self.model_path),
            "adapter": None if self.adapter is None else str(self.adapter),
            "alias": self.model,
            "slots": self.slots,
            "context_per_slot": self.context_per_slot,
            "threads": self.threads,
            "poll": self.tuning.poll,
            "batch": self.tuning.batch,
            "speculate": self.tuning.speculate,
            "quantized_cache": self.tuning.quantized_cache,
            "log_to_remove": str(self.log_path) if self._own_log else None,
        }

    def _environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
        if self.tuning.spin is not None:
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
            environment["GOMP_SPINCOUNT"] = str(self.tuning.spin)
        return environment

    def _listening(self, process: subprocess.Popen[bytes], deadline: float) -> str:
        """The address that the child itself reports, so that the listener is certainly its own."""
        lines: list[bytes] = []
        assert process.stdout is not None
        reader = threading.Thread(target=_read_line, args=(process.stdout, lines), daemon=True)
        reader.start()
        reader.join(timeout=max(deadline - time.monotonic(), 0))
        if not lines or not lines[0]:
            raise self._failure("did not start")
        return str(json.loads(lines[0])["address"])

    def _wait_healthy(self, deadline: float) -> None:
        # A proxy from the environment must not get between us and loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            if not self.alive:
                raise self._failure("died while it loaded the model")
            try:
                with opener.open(f"{self._address}/health", timeout=5) as reply:
                    if reply.status == 200:
                        return
            except (urllib.error.URLError, OSError) as error:
                _LOG.debug("not ready yet: %s", error)
            time.sleep(0.05)
        raise self._failure(f"was not ready after {_START_TIMEOUT:.0f} s")

    def _failure(self, what: str) -> ServerUnreachable:
        tail = self.log_tail()
        advice = ""
        if "libgomp" in tail:
            advice = " Install the system package libgomp1 (GNU OpenMP)."
        elif "llocat" in tail or "std::bad_alloc" in tail:
            advice = " The machine may lack memory: fewer slots, or a smaller model."
        return ServerUnreachable(
            f"the embedded server for {self.model} ({self.model_path}) {what}.{advice} "
            f"The last lines of its log {self.log_path}:\n{tail}"
        )


def available_cores() -> int:
    """Physical cores that this process may use: its affinity, less hyper-threads, within its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        usable = os.sched_getaffinity(0)
        cores = {_siblings(cpu) for cpu in usable}
        count = len(cores)
    else:
        count = os.cpu_count() or 1
    quota = _quota()
    return max(1, count if quota is None else min(count, int(quota + 0.5)))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that the control group allows, None for no limit."""
    try:
        allowed, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            allowed = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if allowed in ("max", "-1") else int(allowed) / int(period)


def _fresh_log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="quarry-server-", suffix=".log")
    os.close(descriptor)
    return Path(name)


def _read_line(stream: IO[bytes], into: list[bytes]) -> None:
    try:
        into.append(stream.readline())
    except (OSError, ValueError):
        into.append(b"")
