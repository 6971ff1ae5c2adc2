"""The made-up records of the end-to-end tests, their schema, and a run over them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.report import RunReport
from schemas.job import ExtractionJob
from tests.fakes.answers import thing_text
from tests.fakes.qwen import FakeQwen


class Thing(BaseModel):
    """What is extracted from a record of the kind ``thing``."""

    name: str
    price: Decimal | None = Field(default=None, max_digits=10, decimal_places=2)


def write_things(path: Path, numbers: range | list[int]) -> Path:
    """A JSONL file with one record for each number; the id is the number."""
    path.write_text("".join(json.dumps({"id": f"r{n:05}", "text": thing_text(n)}) + "\n" for n in numbers))
    return path


def job_for(source: Path, out: Path, qwen: FakeQwen | str, **options: Any) -> ExtractionJob:
    """A job over ``source`` with the fake model."""
    return ExtractionJob.model_validate(
        {
            "source": str(source),
            "schema": "tests.end_to_end.things:Thing",
            "out": str(out),
            "id": "id",
            "model": "qwen-plus",
            "base_url": qwen if isinstance(qwen, str) else qwen.base_url,
            "chunk_size": 10,
            **options,
        }
    )


def run_things(source: Path, out: Path, qwen: FakeQwen | str, **options: Any) -> RunReport:
    """Run a job over ``source``, with nothing of the environment in it."""
    return run(job_for(source, out, qwen, **options), settings=Settings())
