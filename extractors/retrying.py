"""Asking again for open failures: each one in its own recipe, from the ledger's text or the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from extractors.errors import OutputError
from extractors.sources import Source, ledger_source, open_source, reads_documents
from extractors.store.catalog import open_failures, outputs, query
from extractors.store.plan import RetrySelection
from schemas.job import ExtractionJob


@dataclass(frozen=True, slots=True)
class Again:
    """One recipe's failures to ask again: the job they came from, the records, which of them."""

    job: ExtractionJob
    source: Source
    selection: RetrySelection


def retry_jobs(
    out: Path, *, where: str | None = None, recipe: str | None = None, changes: Mapping[str, Any] | None = None
) -> Iterator[Again]:
    """One ``Again`` for each recipe with matching open failures, or for the one recipe that is named.

    ``changes`` override the recorded job's fields (an address, a ceiling). The records come from the
    ledger where it keeps their text, else from the job's source, read again. Raises ``OutputError``
    when a recipe's job is not to be found, and ``JobError`` for a ``where`` that DuckDB refuses.
    """
    for one in outputs(out):
        if recipe is not None and one.recipe != recipe:
            continue
        failures = open_failures(out, name=one.name, recipe=one.recipe, where=where)
        if not failures.num_rows:
            continue
        job = last_job(out, one.recipe, changes or {})
        selection = RetrySelection.of(failures, recipe=one.recipe)
        texts = failures.column("text")
        images = failures.column("image") if "image" in failures.column_names else None
        # A picture is not in the ledger, only its name; nor is the page of a PDF, and what reads it may be well again.
        whole = not reads_documents(job) and (
            texts.null_count == 0
            and (images is None or images.null_count == len(images))
            and not any(text.startswith("sha256:") and len(text) == 71 for text in texts.to_pylist())
        )
        source = ledger_source(failures) if whole else open_source(job)
        yield Again(job, source, selection)


def last_job(out: Path, recipe: str, changes: Mapping[str, Any]) -> ExtractionJob:
    """The job of a recipe's newest run, without its ceilings, with ``changes``. Raises ``OutputError``."""
    runs = query(out, "select run_id, recipe from runs order by started_at desc, run_id desc").to_pylist()
    for run in runs:
        if run["recipe"] != recipe:
            continue
        told = orjson.loads((out / "runs" / f"{run['run_id']}.json").read_bytes())["job"]
        try:
            # A retry has its own ceilings: those of the run that failed are spent.
            kept = {k: v for k, v in told.items() if k not in ("max_cost", "max_tokens", "max_records")}
            return ExtractionJob.model_validate({**kept, **changes, "out": str(out)})
        except ValidationError as error:
            raise OutputError(f"the job of run {run['run_id']} cannot be read: {error}") from error
    raise OutputError(f"{out} has no run of recipe {recipe} in {out / 'runs'}")
