"""The records that a golden set labels: where they are, and how a run asks just them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import BaseModel

from extractors.errors import JobError
from extractors.evaluate.golden import Labelled, read_golden
from extractors.evaluate.line_texts import LineTexts, line_texts
from extractors.evaluate.outcomes import Key
from extractors.sources import Source, open_dataframe, open_source
from extractors.sources.source import NO_TEXT
from schemas.job import ExtractionJob

_Row = tuple[str, str, str, str | None]


@dataclass(slots=True)
class LabelledRecords:
    """The labelled records: their texts by id and occurrence, which is the first, in the source's order, and how to ask them.
    ``fingerprints`` are what their outcomes are known by: one of another text is no outcome of the record."""

    job: ExtractionJob
    texts: dict[Key, str]
    own: bool
    fingerprints: dict[Key, set[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, golden: Path, job: ExtractionJob, labels: Mapping[str, Labelled], *, alone: Sequence[bool] = ()
    ) -> LabelledRecords:
        """``alone`` are the lines of the set whose text is in ``text``, not in the columns that the job names."""
        own = _is_source(golden, job)
        if not own and job.image is not None:
            raise JobError("records with pictures must be in the golden set itself: add their paths to its lines")
        made = cls(job, {}, own and not alone)
        with open_source(job) as source:
            place, rows = source.place, _staged(source)
        if alone:
            with open_source(job.model_copy(update={"text": "text"})) as source:
                beside = _staged(source)
            rows = [other if by_itself else row for by_itself, row, other in zip(alone, rows, beside, strict=True)]
        made._take(rows, labels, place)
        asked = {record_id for record_id, _ in made.texts}
        missing = [record_id for record_id in labels if record_id not in asked]
        if missing:
            raise JobError(
                f"{len(missing)} of {len(labels)} labelled records are not in {place} (the first is {missing[0]!r}); "
                "check --id and --records"
            )
        if (asked_from := made.source()) is not None:
            with asked_from:
                made._take(_staged(asked_from), labels, place)
        return made

    def _take(self, rows: Sequence[_Row], labels: Mapping[str, Labelled], place: str) -> None:
        """Take the texts and fingerprints of the labelled records, of one that stands there several times once. Raises
        ``JobError`` for one that has no text, and for texts that differ: a label can be right for one of them only."""
        seen: dict[str, str] = {}
        for record_id, text, fingerprint, problem in rows:
            if record_id not in labels:
                continue
            if problem in NO_TEXT:
                raise JobError(
                    f"{place}: {problem} of the labelled record {record_id!r}, which would be a failure of the model's. Put its "
                    "text there, or take its label out"
                )
            if seen.setdefault(record_id, fingerprint) != fingerprint:
                raise JobError(
                    f"{place} has several records of the id {record_id!r} with different texts, and the golden set one label for "
                    "it, which can be right for one of them only. Give each record an id of its own (--id), or take the label "
                    "out"
                )
            self.texts[record_id, 0] = text
            self.fingerprints.setdefault((record_id, 0), set()).add(fingerprint)

    def source(self) -> Source | None:
        """What the run reads: None for the job's own source."""
        if self.own:
            return None
        ids = [record_id for record_id, _ in self.texts]
        table = pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(list(self.texts.values()), pa.string())})
        return open_dataframe(table, id="id", text="text")


def _staged(source: Source) -> list[_Row]:
    """Id, text, fingerprint and problem of each record, in order."""
    with duckdb.connect() as con:
        con.execute("attach ':memory:' as quarry_golden")
        source.stage(con, "quarry_golden.staged")
        query = "select record_id, text, fingerprint, problem from quarry_golden.staged order by rowid"
        return con.execute(query).fetchall()


def prepared(
    golden: Path, job: ExtractionJob, model: type[BaseModel]
) -> tuple[ExtractionJob, dict[str, Labelled], LabelledRecords]:
    """The job as it is run, the labels, and the records that they are for. Raises ``JobError``."""
    lines = _lines(golden, job)
    job, labels = _labels(golden, job, model, lines)
    return job, labels, LabelledRecords.of(golden, job, labels, alone=() if lines is None else lines.alone)


def labels_of(golden: Path, job: ExtractionJob, model: type[BaseModel]) -> tuple[ExtractionJob, dict[str, Labelled]]:
    """The job as it is run, and the labels. Raises ``JobError``."""
    return _labels(golden, job, model, _lines(golden, job))


def _lines(golden: Path, job: ExtractionJob) -> LineTexts | None:
    """Where the texts of the set's lines are; None where the records are elsewhere."""
    return line_texts(golden, id=job.id, text=job.text, image=job.image) if _is_source(golden, job) else None


def _labels(
    golden: Path, job: ExtractionJob, model: type[BaseModel], lines: LineTexts | None
) -> tuple[ExtractionJob, dict[str, Labelled]]:
    # Columns of the records are for the rows of everyday runs, and a golden set rarely has them.
    changes: dict[str, Any] = {"keep": ()}
    if lines is not None:
        changes |= {"id": lines.id, "text": lines.text}
    job = job.model_copy(update=changes)
    return job, read_golden(golden, model, id_column=None if lines is None else lines.id)


def _is_source(golden: Path, job: ExtractionJob) -> bool:
    return job.source is not None and Path(job.source) == golden
