"""The bundled examples answered by a fake model that knows the golden answers: the demo without the weights."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.report import RunReport
from extractors.sources import open_source
from extractors.store.plan import Plan
from schemas.job import ExtractionJob
from tests.fakes.answers import record_of
from tests.fakes.qwen import FakeQwen

ROOT = Path(__file__).parents[2]
NAMES = ("products", "receipts", "tickets")


def golden_by_text() -> dict[str, str]:
    """The expected answer of every record that has one, by the record's text."""
    answers = {}
    for name in NAMES:
        job = ExtractionJob.from_toml(ROOT / "examples" / f"{name}.toml")
        golden = [
            json.loads(line) for line in (ROOT / "examples" / "golden" / f"{name}.jsonl").read_text().splitlines()
        ]
        expected = {row["id"]: json.dumps(row["expected"], ensure_ascii=False) for row in golden}
        with (
            tempfile.TemporaryDirectory() as scratch,
            open_source(job) as source,
            Plan.make(source, [], scratch=Path(scratch), chunk_size=100) as plan,
        ):
            records = [record for chunk in plan.chunks() for group in chunk.groups for record in group.records]
        answers.update({one.text: expected[one.record_id] for one in records if one.record_id in expected and one.text})
    return answers


def run_examples(out: Path) -> list[RunReport]:
    """Run the three example jobs into ``out``."""
    known = golden_by_text()

    def answer(body: dict[str, Any]) -> str:
        return known.get(record_of(body), "I see nothing to extract here.")

    reports = []
    with FakeQwen(answer) as qwen:
        for name in NAMES:
            job = ExtractionJob.from_toml(ROOT / "examples" / f"{name}.toml").model_copy(
                update={"out": str(out), "model": "fake", "base_url": qwen.base_url}
            )
            reports.append(run(job, settings=Settings()))
    return reports
