"""The records that a golden set labels: where they are, and how a run asks just them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import BaseModel

from extractors.errors import JobError
from extractors.evaluate.golden import Labelled, read_golden, record_columns
from extractors.evaluate.outcomes import Key
from extractors.sources import Source, open_dataframe, open_source
from extractors.sources.text_template import TextTemplate
from schemas.job import ExtractionJob


@dataclass(slots=True)
class LabelledRecords:
    """The labelled records: their texts by id and occurrence, in the source's order, and how to ask them.
    ``fingerprints`` are what their outcomes are known by: one of another text is no outcome of the record."""

    job: ExtractionJob
    texts: dict[Key, str]
    own: bool
    fingerprints: dict[Key, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, golden: Path, job: ExtractionJob, labels: Mapping[str, Labelled]) -> LabelledRecords:
        own = _is_source(golden, job)
        if own and not any(column not in ("id", job.id) for column in record_columns(golden)):
            raise JobError(
                f"{golden} holds labels but no records; say where the records are with --records, or add their `text`"
            )
        if not own and job.image is not None:
            raise JobError("records with pictures must be in the golden set itself: add their paths to its lines")
        made = cls(job, {}, own)
        with open_source(job) as source:
            made._read(source, labels)
        asked = {record_id for record_id, _ in made.texts}
        missing = [record_id for record_id in labels if record_id not in asked]
        if missing:
            raise JobError(
                f"{len(missing)} of {len(labels)} labelled records are not in {source.place} (the first is {missing[0]!r}); "
                "check --id and --records"
            )
        if (asked_from := made.source()) is not None:
            with asked_from:
                made._read(asked_from, labels)
        return made

    def _read(self, source: Source, labels: Mapping[str, Labelled]) -> None:
        """Take the texts and fingerprints of the labelled records."""
        seen: dict[str, int] = {}
        with duckdb.connect() as con:
            con.execute("attach ':memory:' as quarry_golden")
            source.stage(con, "quarry_golden.staged")
            cursor = con.execute("select record_id, text, fingerprint from quarry_golden.staged order by rowid")
            for record_id, text, fingerprint in cursor.fetchall():
                if record_id in labels:
                    occurrence = seen[record_id] = seen.get(record_id, -1) + 1
                    self.texts[record_id, occurrence] = text
                    self.fingerprints.setdefault((record_id, occurrence), set()).add(fingerprint)

    def source(self) -> Source | None:
        """What the run reads: None for the job's own source."""
        if self.own:
            return None
        ids = [record_id for record_id, _ in self.texts]
        table = pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(list(self.texts.values()), pa.string())})
        return open_dataframe(table, id="id", text="text")


def prepared(
    golden: Path, job: ExtractionJob, model: type[BaseModel]
) -> tuple[ExtractionJob, dict[str, Labelled], LabelledRecords]:
    """The job as it is run, the labels, and the records that they are for. Raises ``JobError``."""
    job, labels = labels_of(golden, job, model)
    return job, labels, LabelledRecords.of(golden, job, labels)


def labels_of(golden: Path, job: ExtractionJob, model: type[BaseModel]) -> tuple[ExtractionJob, dict[str, Labelled]]:
    """The job as it is run, and the labels. Raises ``JobError``."""
    own = _is_source(golden, job)
    # Columns of the records are for the rows of everyday runs, and a golden set rarely has them.
    changes: dict[str, Any] = {"keep": ()}
    if own:
        # A set that records were promoted into has `id` and `text`, whatever the job's source calls them.
        columns = record_columns(golden)
        changes["id"] = "id" if job.id not in columns and "id" in columns else job.id
        if job.text is not None and "text" in columns:
            named = TextTemplate.parse(job.text).columns if "{" in job.text else (job.text,)
            changes["text"] = job.text if set(named) <= set(columns) else "text"
    job = job.model_copy(update=changes)
    return job, read_golden(golden, model, id_column=job.id if own else None)


def _is_source(golden: Path, job: ExtractionJob) -> bool:
    return job.source is not None and Path(job.source) == golden
