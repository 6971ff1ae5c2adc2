"""What batches brought back, found by the request that it answers.

The answers stay in the downloaded files; memory holds a digest and a place for each. A place is one integer: the
file's number, the offset and the length of the line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from extractors.batch.ledger import BatchEntry
from extractors.budget import Amount
from extractors.qwen.batch import custom_id_in, error_code, read_result, result_of
from extractors.qwen.prices import Pricing
from extractors.qwen.requests import CallError, ChatReply, ErrorKind
from schemas.usage import Usage

NOT_RUN = frozenset({"batch_expired", "batch_cancelled"})
"""Codes of lines that were neither run nor billed."""
_OFFSET_BITS, _LENGTH_BITS = 34, 24
_LONGEST = 1 << _LENGTH_BITS


@dataclass(slots=True)
class Taken:
    """What a batch brought, counted in lines. ``spent`` is what the answered lines cost, the worst case of those
    whose cost was not told; ``usage`` is what the lines themselves told."""

    ok: int = 0
    failed: int = 0
    missing: int = 0
    not_run: int = 0
    duplicate: int = 0
    foreign: int = 0
    unreadable: int = 0
    spent: Amount = field(default_factory=Amount)
    usage: Usage = field(default_factory=Usage)
    left: set[bytes] = field(default_factory=set)
    """The requests of a batch that was cancelled or refused that were not run."""
    fatal: CallError | None = None
    """An error that every other request would meet too: a rejected key, an unknown model."""

    def counts(self) -> Mapping[str, int]:
        """For the ledger."""
        return {
            name: getattr(self, name)
            for name in ("ok", "failed", "missing", "not_run", "duplicate", "foreign", "unreadable")
        }


class Answers:
    """The results of all batches whose records are not all committed. Use ``close`` at the end."""

    def __init__(self, *, model: str, pricing: Pricing) -> None:
        self._model = model
        self._pricing = pricing
        self._files: list[int] = []
        self._good: dict[bytes, int] = {}
        self._bad: dict[bytes, list[int | CallError]] = {}

    def __len__(self) -> int:
        return len(self._good)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()

    def take(
        self,
        entry: BatchEntry,
        asked: Iterable[bytes],
        *,
        output: Path | None,
        errors: Path | None,
        skip: Mapping[bytes, int] | None = None,
    ) -> Taken:
        """Read what a batch brought. ``asked`` are the digests that its file holds; one of them that no line
        answers was lost, or not run. ``skip`` are requests that a commit has used, with that commit's number.

        The first success of a request counts, and a success counts more than a failure."""
        taken = Taken()
        left = set(asked)
        known = set(left)
        failed: dict[bytes, int | CallError] = {}
        refused = {line: (code, message) for code, message, line in entry.problems if line is not None}
        for path in (output, errors):
            if path is not None and path.exists():
                self._scan(path, entry, taken, known=known, left=left, failed=failed)
        if refused:
            self._refuse(entry, asked, refused, failed)
        taken.failed = sum(1 for digest in failed if digest in left)
        for digest, one in failed.items():
            if digest in left:
                left.discard(digest)
                self._bad.setdefault(digest, []).append(one)
        if entry.status in ("cancelled", "failed"):
            taken.not_run = len(left)
            taken.left = left
        elif entry.status == "expired":
            taken.not_run = len(left)
            late = CallError(
                ErrorKind.TIMED_OUT,
                f"batch {entry.batch_id} ended its window of {entry.window} before this request was run",
                self._model,
                code="batch_expired",
            )
            for digest in left:
                self._bad.setdefault(digest, []).append(late)
        else:
            taken.missing = len(left)
            lost = CallError(
                ErrorKind.GARBLED,
                f"batch {entry.batch_id} ended without a line for this request",
                self._model,
                code="batch_line_missing",
            )
            for digest in left:
                self._bad.setdefault(digest, []).append(lost)
            # A line that was lost may have been run and billed.
            taken.spent += Amount(entry.worst_line.cost * len(left), entry.worst_line.tokens * len(left))
        for digest in known:
            if skip is not None and skip.get(digest, 0) > entry.after:
                self.forget((digest,))
        return taken

    def result(self, digest: str) -> tuple[ChatReply | CallError | None, int]:
        """The answer to a request, with the failed tries before it; and how many tries failed. Without an
        answer, the last failure (which may be worth another try), or None when it was never asked."""
        key = bytes.fromhex(digest)
        place = self._good.get(key)
        failures = self._bad.get(key)
        if place is None and failures is None:
            return None, 0
        tries = [self._failure(one) for one in failures or ()]
        if place is not None:
            return replace(self._read(place), earlier=tuple(tries)), len(tries)
        return replace(tries[-1], earlier=tuple(tries[:-1])), len(tries)

    def hold(self, digests: Iterable[bytes]) -> bool:
        """Whether any of these has a result that no outcome has used."""
        return any(digest in self._good or digest in self._bad for digest in digests)

    def forget(self, digests: Iterable[bytes]) -> None:
        """These have become outcomes; who asks the same again wants another answer."""
        for digest in digests:
            self._good.pop(digest, None)
            self._bad.pop(digest, None)

    def _scan(
        self,
        path: Path,
        entry: BatchEntry,
        taken: Taken,
        *,
        known: set[bytes],
        left: set[bytes],
        failed: dict[bytes, int | CallError],
    ) -> None:
        number = len(self._files)
        self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        offset = 0
        good, pricing, model = self._good, self._pricing, self._model
        answered = known - left
        usages: list[Usage] = []
        with path.open("rb", buffering=1 << 20) as file:
            for raw in file:
                place = (number << _OFFSET_BITS + _LENGTH_BITS) | (offset << _LENGTH_BITS) | len(raw)
                offset += len(raw)
                line = read_result(raw) if len(raw) < _LONGEST else None
                if line is None:
                    taken.unreadable += bool(raw.strip())
                    continue
                try:
                    digest = bytes.fromhex(line.custom_id.rpartition("-")[2])
                except ValueError:
                    digest = b""
                if digest not in known or not line.custom_id.startswith(tag_of(entry)):
                    taken.foreign += 1
                    continue
                if digest in answered:
                    taken.duplicate += 1
                    continue
                result = result_of(line, model=model, pricing=pricing)
                if isinstance(result, ChatReply):
                    left.discard(digest)
                    answered.add(digest)
                    good[digest] = place
                    taken.ok += 1
                    usages.append(result.usage)
                elif error_code(line) not in NOT_RUN:
                    taken.duplicate += digest in failed
                    failed.setdefault(digest, place)
                    if result.fatal and taken.fatal is None:
                        taken.fatal = result
        for usage in usages:
            told = usage.total_tokens > 0
            cost = usage.cost if told and usage.cost is not None else entry.worst_line.cost
            taken.spent += Amount(cost, usage.total_tokens if told else entry.worst_line.tokens)
            taken.usage += usage

    def _refuse(
        self,
        entry: BatchEntry,
        asked: Iterable[bytes],
        refused: Mapping[int, tuple[str, str]],
        failed: dict[bytes, int | CallError],
    ) -> None:
        """Lines that the service named when it refused a whole file: they are at fault, the others were not run."""
        for number, digest in enumerate(asked, start=1):
            if number in refused:
                code, message = refused[number]
                failed[digest] = CallError(
                    ErrorKind.BAD_REQUEST,
                    f"the batch service refused this request: {message} ({code})",
                    self._model,
                    code=code,
                )

    def _failure(self, one: int | CallError) -> CallError:
        if isinstance(one, CallError):
            return one
        result = self._read(one)
        assert isinstance(result, CallError)
        return result

    def _read(self, place: int) -> ChatReply | CallError:
        length = place & (_LONGEST - 1)
        offset = (place >> _LENGTH_BITS) & ((1 << _OFFSET_BITS) - 1)
        raw = os.pread(self._files[place >> _OFFSET_BITS + _LENGTH_BITS], length, offset)
        line = read_result(raw)
        assert line is not None, "a line that was read before"
        return result_of(line, model=self._model, pricing=self._pricing)


def tag_of(entry: BatchEntry) -> str:
    """What begins every ``custom_id`` of a batch: the run's last six digits and the round."""
    return tag(entry.run_id, entry.round)


def tag(run_id: str, number: int) -> str:
    """See ``tag_of``."""
    return f"{run_id[-6:]}-{number:02}-"


def digests_in(path: Path) -> list[bytes]:
    """The requests of a file that ``RequestFiles`` wrote, in order. Raises ``OSError`` or ``ValueError``."""
    with path.open("rb", buffering=1 << 20) as file:
        return [bytes.fromhex(custom_id_in(line).rpartition("-")[2]) for line in file]
