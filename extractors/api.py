"""The Python door: ``extract(source, schema, out=...)`` and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.forecast import Forecast
from extractors.pipeline import Watcher
from extractors.report import RunReport
from extractors.sources import Source, open_dataframe
from extractors.stages import Decide, run_in_stages
from extractors.store.catalog import current_rows, open_failures
from schemas.job import ExtractionJob

if TYPE_CHECKING:
    import pandas as pd


class Options(TypedDict, total=False):
    """The optional fields of ``ExtractionJob``; its descriptions say what each does."""

    s3_endpoint: str
    duckdb: str
    sql: str
    id: str
    text: str
    image: str
    image_root: str
    image_hosts: Sequence[str]
    scanned_pages: Literal["skip", "pictures"]
    document_max_pages: int
    document_max_mb: int
    document_timeout: float
    second_look: Literal["auto", "always", "never"]
    keep: Sequence[str]
    instructions: str
    tools: Sequence[str]
    tool_timeout: float
    max_tool_steps: int
    examples: str
    examples_shown: int
    examples_choice: Literal["similar", "fixed"]
    examples_common: int | None
    made_up_examples: Literal["auto", "always", "never"]
    prompt: str
    model: str
    draft: str
    final: str
    high_accuracy: bool
    route_below: float
    base_url: str
    region: str
    workspace: str
    thinking: int
    dialect: Literal["auto", "chat", "responses", "dashscope"]
    stream: Literal["auto", "always", "never"]
    lane: Literal["live", "batch", "mixed"]
    live_tail: int
    live_after: float
    batch_window: str
    batch_requests: int
    batch_wait: bool
    batch_poll: float
    mode: Literal["auto", "json_schema", "json_object", "tools", "prompted", "grammar"]
    concurrency: int
    rpm: int
    tpm: int
    max_cost: Decimal | str
    max_tokens: int
    max_records: int
    sample: int
    approve_above: Decimal | str
    max_attempts: int
    max_output_tokens: int
    max_record_tokens: int
    require_evidence: Sequence[str]
    evidence_policy: Literal["null", "fail", "drop"]
    repeated_items: Literal["drop", "keep"]
    long_text: Literal["auto", "whole", "chunks"]
    context_tokens: int
    embedding_model: str
    embedding_dimensions: int
    rerank_model: str
    count_lists: Literal["auto", "always", "never"]
    max_windows: int
    failed_windows: Literal["fail", "incomplete"]
    omit_nulls: bool
    field_order: Literal["auto", "schema", "text"]
    compact: bool
    records_per_call: int
    confidence: Literal["auto", "evidence", "never"]
    agreement: Literal["never", "always"]
    calibration: str
    review_below: float
    ledger_text: Literal["none", "hash", "full"]
    chunk_size: int
    catalog: str
    temperature: float
    seed: int
    timeout: float
    idle_timeout: float
    transport_attempts: int
    transport_seconds: float


class Extraction:
    """What a run left behind. ``report`` holds its counts; the tables are read from the output folder."""

    def __init__(self, report: RunReport, *, source: Source | None = None) -> None:
        self.report = report
        self._source = source

    def rows(self) -> pa.Table:
        """The current rows of the run's recipe, one for each record that has one."""
        return current_rows(self.report.out, name=self.report.name, recipe=self.report.recipe)

    def df(self) -> pd.DataFrame:
        """``rows()`` as a pandas DataFrame with Arrow-backed types, so that nothing is widened."""
        import pandas as pd

        return self.rows().to_pandas(types_mapper=pd.ArrowDtype)

    def failures(self) -> pa.Table:
        """The open ledger entries of the run's recipe."""
        return open_failures(self.report.out, name=self.report.name, recipe=self.report.recipe)

    def write_report(self, file: str | Path | None = None, *, limit: int = 10_000, texts: bool = True) -> Path:
        """Write the run's recipe as one HTML page that opens from disk; its path, ``OUT/report.html`` by default.

        ``limit``: records in the page; ``texts=False`` leaves the source texts out. Raises ``OutputError``.
        """
        # Not at the top: the command line imports this module for its options, and must be quick.
        from extractors.reporting import write_report

        return write_report(
            self.report.out,
            file,
            schema=self.report.name,
            recipe=self.report.recipe,
            limit=limit,
            texts=texts,
            source=self._source,
        ).path

    def __repr__(self) -> str:
        report = self.report
        return (
            f"<Extraction {report.name} recipe={report.recipe}: {report.records} records = {report.rows} rows "
            f"+ {report.failures} failures + {report.skipped} skipped + {report.undone} undone>"
        )


def extract(
    source: str | Path | pa.Table | pd.DataFrame | None,
    schema: str | type[BaseModel],
    out: str | Path = "quarry-out",
    *,
    settings: Settings | None = None,
    watch: Watcher | None = None,
    told: Callable[[Forecast], None] | None = None,
    decide: Decide | None = None,
    **options: Unpack[Options],
) -> Extraction:
    """Extract ``schema`` from every record of ``source`` into ``out``.

    ``source`` is a path or glob, a pandas DataFrame or Arrow table, or None with ``sql=``. ``schema``
    is a model class or anything that ``--schema`` takes. Works inside a running event loop (a
    notebook). With ``sample``, ``told`` hears what the rest will cost; above ``approve_above``, ``decide`` gives a
    ``Decision``, and without one ``ApprovalNeeded`` is raised. Raises ``JobError`` for wrong options and the errors of
    ``extractors.errors``.
    """
    named = schema if isinstance(schema, str) else f"{schema.__module__}:{schema.__qualname__}"
    in_memory = not isinstance(source, str | Path | None)
    try:
        job = ExtractionJob.model_validate(
            {
                **options,
                "source": "<in memory>" if in_memory else None if source is None else str(source),
                "schema": named,
                "out": str(out),
            }
        )
    except ValidationError as error:
        raise JobError(explain(error)) from error

    def frame() -> Source:
        assert not isinstance(source, str | Path | None)
        return open_dataframe(
            source,
            id=job.id,
            text=job.text,
            keep=job.keep,
            image=job.image,
            image_root=job.image_root,
            image_hosts=job.image_hosts,
        )

    report = run_in_stages(
        job,
        settings=settings,
        schema=None if isinstance(schema, str) else schema,
        source=frame if in_memory else None,
        told=told,
        decide=decide,
        watch=watch,
    )
    return Extraction(report, source=frame() if in_memory else None)


def explain(error: ValidationError) -> str:
    """A job's validation errors in one line: which option, what is wrong, what was given."""
    parts = []
    for detail in error.errors(include_url=False, include_context=False):
        where = ".".join(str(step) for step in detail["loc"]) or "job"
        given = detail.get("input")
        shown = f" (given {given!r})" if detail["loc"] and not isinstance(given, dict) else ""
        parts.append(f"{where}: {detail['msg'].removeprefix('Value error, ')}{shown}")
    return "; ".join(parts)
