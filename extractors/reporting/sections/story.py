"""What the page tells: everything that was measured, and the words that are common to its sections."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from extractors.reporting.failing import Group
from extractors.reporting.fields import FieldProfile
from extractors.reporting.figures import LOW_SCORE, Figures
from extractors.reporting.records import Sample
from extractors.reporting.scope import Scope
from extractors.reporting.words import count

LOW_EVIDENCE_WORDS = (
    f"a value that was not found in the source, was found with a similarity below {LOW_SCORE:g}, or was set to null "
    "for want of evidence; choices from a fixed set are left out"
)


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that the written part tells."""

    scope: Scope
    figures: Figures
    fields: Sequence[FieldProfile]
    failures: Sequence[Group]
    sample: Sample
    made_at: str
    texts_missing: Sequence[str]

    @property
    def out(self) -> str:
        """The folder, as a shell takes it."""
        return shlex.quote(str(self.scope.out))

    @property
    def command(self) -> str:
        """The report's command with the choice that it stands for."""
        return f"quarry report {self.out} --schema {shlex.quote(self.scope.name)} --recipe {self.scope.recipe}"


def sample_words(sample: Sample) -> str:
    """Which of the records the page holds."""
    if sample.whole:
        return f"All {count(sample.records)} records are in this page."
    rows = f"{count(sample.rows)} of {count(sample.of_rows)} rows"
    failed = (
        f"all {count(sample.failures)} open failures"
        if sample.failures == sample.of_failures
        else f"{count(sample.failures)} of {count(sample.of_failures)} open failures"
    )
    return (
        f"This page holds a sample: {rows} and {failed}. It is drawn by a hash of the records' identity, the same each "
        "time. The figures above are over everything; --limit makes the sample larger."
    )
