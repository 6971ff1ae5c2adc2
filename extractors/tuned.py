"""A tuned model in a recipe: how it is asked, and what cannot be asked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from extractors.errors import JobError
from schemas.job import ExtractionJob


@dataclass(frozen=True, slots=True)
class TunedWays:
    """How a tuned model was asked while it was tuned: behind instructions with this digest (``instructions_digest``; None: it
    is about to be tuned), with answers that leave nulls out and are in the order of the text, or not."""

    system_sha256: str | None
    omit_nulls: bool = True
    text_order: bool = True


def instructions_digest(system: str) -> str:
    """What names a recipe's instructions: the SHA-256 of its system message."""
    return hashlib.sha256(system.encode()).hexdigest()


def check_tuned(job: ExtractionJob, tuned: Mapping[str, TunedWays], system: str) -> None:
    """Raises ``JobError`` for a job whose questions are others than a model of ``tuned``, by name, was tuned to answer: it
    would answer as it was tuned, and badly."""
    said = instructions_digest(system)
    for name, ways in tuned.items():
        if job.records_per_call > 1:
            raise JobError(
                f"{name} was tuned to answer about one record at a time: leave --records-per-call out, or use an untuned model"
            )
        if job.count_lists == "always":
            raise JobError(f"{name} was tuned to answer about whole records: leave --count-lists always out")
        if ways.system_sha256 not in (None, said):
            raise JobError(
                f"{name} was tuned for other instructions (SHA-256 {ways.system_sha256[:12] if ways.system_sha256 else ''}) than "
                f"this job has ({said[:12]}): give what `quarry tune` was given (--schema, --instructions, --prompt, --compact, "
                "--omit-nulls, --field-order), or tune it anew for this job"
            )
