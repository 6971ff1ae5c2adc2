"""The ledger of batches: one small file for each, written before what it says is acted on.

::

    OUT/<name>/recipe=<id8>/batches/job                     the job that they are made for
                                    <batch>.json           the entry
                                    <batch>.requests.jsonl  what is asked; there before the entry is
                                    <batch>.output.jsonl    what came back, each whole or not there
                                    <batch>.errors.jsonl

The three data files go when every record that they hold an answer for is committed; the entry stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from extractors.budget import Amount
from extractors.errors import OutputError
from extractors.store import files

FOLDER = "batches"


class State(StrEnum):
    """What has been begun for a batch. Each is on disk before the step that it names is taken."""

    WRITTEN = "written"
    """The request file is there; nothing has left the machine."""
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    CREATING = "creating"
    """The service may know the batch, and its id may be lost: it is looked for by its name."""
    RUNNING = "running"
    ENDED = "ended"
    COLLECTED = "collected"
    """What came back is on disk."""
    SETTLED = "settled"
    """Every record that it answered is committed."""

    @property
    def withdrawable(self) -> bool:
        """Whether the service surely has no batch of it."""
        return self in (State.WRITTEN, State.UPLOADING, State.UPLOADED)

    @property
    def under_way(self) -> bool:
        """Whether the service works on it, or has results that are not here yet."""
        return self in (State.RUNNING, State.ENDED)


_AMOUNTS = ("worst", "worst_line", "spent")


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One batch. ``worst`` is what it may cost at most, ``worst_line`` what one of its requests may."""

    name: str
    run_id: str
    round: int
    model: str
    url: str
    window: str
    address: str
    lines: int
    size: int
    worst: Amount
    worst_line: Amount
    after: int
    """The last commit when it was written: only later ones can have used its answers."""
    written_at: str
    state: State = State.WRITTEN
    created_at: float = 0.0
    """Unix seconds."""
    file_id: str | None = None
    batch_id: str | None = None
    status: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    completed: int = 0
    failed: int = 0
    """The service's own counts, for progress only."""
    problems: tuple[tuple[str, str, int | None], ...] = ()
    gone_live: bool = False
    """Cancelled so that what is left of it is asked live."""
    tally: Mapping[str, int] = field(default_factory=dict)
    """The lines that came back, by what they were."""
    series: str = ""
    """The first of the runs that went on from each other while batches were under way: they share one ceiling."""
    spent: Amount = field(default_factory=Amount)
    """What it took, once it is collected."""

    def to_json(self) -> bytes:
        """The entry as it lies on disk."""
        told = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        for key in _AMOUNTS:
            told[key] = [str(told[key].cost), told[key].tokens]
        return orjson.dumps(told, option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, data: bytes) -> BatchEntry:
        """Raises ``ValueError``, ``TypeError`` or ``KeyError`` for what ``to_json`` did not write."""
        told: dict[str, Any] = orjson.loads(data)
        for key in _AMOUNTS:
            if key in told:
                told[key] = Amount(Decimal(told[key][0]), told[key][1])
        told["state"] = State(told["state"])
        told["problems"] = tuple((code, message, line) for code, message, line in told["problems"])
        return cls(**told)


class BatchLedger:
    """The batches of one recipe's folder. Who writes holds the store's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def open(self) -> list[BatchEntry]:
        """Make the folder, delete what a killed run was in the middle of writing, and give the entries."""
        files.make_folder(self.folder)
        files.remove_stale(self.folder)
        entries = self.entries()
        known = {entry.name for entry in entries}
        for path in files.listed(self.folder, "*.requests.jsonl"):
            if path.name.removesuffix(".requests.jsonl") not in known:
                files.remove(path)
        return entries

    def entries(self) -> list[BatchEntry]:
        """Every entry, by name. Raises ``OutputError`` for one that cannot be read: it may be money."""
        found = []
        for path in files.listed(self.folder, "*.json"):
            try:
                found.append(BatchEntry.from_json(files.read(path)))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise OutputError(
                    f"{path} cannot be read ({error}): it names a batch that may be under way; put it back from a copy, "
                    "or delete it to have its records asked again"
                ) from error
        return found

    def save(self, entry: BatchEntry) -> BatchEntry:
        """Make an entry durable; gives it back. Raises ``OutputError``."""
        files.write_whole(self.folder / f"{entry.name}.json", entry.to_json())
        return entry

    def keep_job(self, data: bytes) -> None:
        """Keep the job that batches are made for, so that they can be collected without it being told again."""
        path = self.folder / "job"
        if not path.is_file() or files.read(path) != data:
            files.write_whole(path, data)

    def job(self) -> bytes | None:
        """The last job that batches were made for."""
        path = self.folder / "job"
        return files.read(path) if path.is_file() else None

    def remove(self, entry: BatchEntry) -> None:
        """Forget a batch that the service never had."""
        files.remove(self.folder / f"{entry.name}.json")
        files.remove(self.requests(entry.name))

    def settle(self, entry: BatchEntry) -> BatchEntry:
        """Every answer of it is committed: the entry stays, its data goes."""
        entry = self.save(dataclasses.replace(entry, state=State.SETTLED))
        for path in (self.requests(entry.name), self.output(entry.name), self.errors(entry.name)):
            files.remove(path)
        return entry

    def requests(self, name: str) -> Path:
        """The request file."""
        return self.folder / f"{name}.requests.jsonl"

    def output(self, name: str) -> Path:
        """The output file, once it is whole."""
        return self.folder / f"{name}.output.jsonl"

    def errors(self, name: str) -> Path:
        """The error file, once it is whole."""
        return self.folder / f"{name}.errors.jsonl"
