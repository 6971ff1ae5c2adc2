"""The real embedded Qwen, end to end: three records with the smaller model."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from extractors import extract
from extractors.endpoint import Settings
from extractors.qwen.weights import find
from schemas.evidence import Match
from schemas.receipt import Receipt

MODEL = "local-0.5b"
TEXTS = [
    "CORNER BAKERY LTD\n12 Mill Lane, Leeds\nDate: 2024-03-05\nSourdough 4.20\nRye 3.80\nTOTAL 8.00\nThank you",
    "NORTHWIND BOOKS\n4 Harbour Street, Bergen\n2023-11-20\nAtlas 39.90\nTOTAL 39.90",
    "",
]


@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_embedded_model_reads_receipts_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    if find(MODEL) is None:
        pytest.skip(f"the weights of {MODEL} are not here: quarry model pull {MODEL}")
    table = pa.table({"id": ["bakery", "books", "blank"], "text": TEXTS})
    found = extract(table, Receipt, tmp_path / "out", id="id", model=MODEL, max_output_tokens=256, settings=Settings())
    assert (found.report.records, found.report.rows, found.report.failures) == (3, 2, 1)
    assert found.failures().column("reason").to_pylist() == ["bad_input"]
    rows = {row["record_id"]: row for row in found.rows().to_pylist()}
    assert (rows["bakery"]["total"], rows["bakery"]["date"]) == (Decimal("8.00"), date(2024, 3, 5))
    assert rows["books"]["total"] == Decimal("39.90")
    evidence = {one["path"]: one for one in rows["books"]["_evidence"]}
    assert evidence["total"]["match"] in (Match.EXACT.value, Match.VALUE.value)
    assert TEXTS[1][evidence["total"]["start"] : evidence["total"]["end"]] == "39.90"
    assert found.report.cost == 0
    assert found.report.output_tokens < 200, "answers are not indented"
    again = extract(table, Receipt, tmp_path / "out", id="id", model=MODEL, max_output_tokens=256, settings=Settings())
    assert (again.report.skipped, again.report.calls) == (3, 0)
