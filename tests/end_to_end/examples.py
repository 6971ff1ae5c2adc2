"""The bundled examples answered by a fake model that knows the golden answers: the demo without the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.report import RunReport
from extractors.sources import open_source
from schemas.job import ExtractionJob
from tests.fakes.answers import record_of
from tests.fakes.qwen import FakeQwen

ROOT = Path(__file__).parents[2]
NAMES = ("products", "receipts", "tickets")


def golden_by_text() -> dict[str, str]:
    """The expected answer of every record that has one, by the record's text."""
    import duckdb

    answers = {}
    for name in NAMES:
        job = ExtractionJob.from_toml(ROOT / "examples" / f"{name}.toml")
        golden = [
            json.loads(line) for line in (ROOT / "examples" / "golden" / f"{name}.jsonl").read_text().splitlines()
        ]
        expected = {row["id"]: json.dumps(row["expected"], ensure_ascii=False) for row in golden}
        with duckdb.connect() as con, open_source(job) as source:
            rows = con.execute(f"select rid, txt from ({source.relation(con)})").fetchall()
        answers.update({text: expected[record] for record, text in rows if record in expected and text})
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
