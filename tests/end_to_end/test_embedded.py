"""The real embedded Qwen, end to end: three records with the smaller model."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pytest
from pydantic import BaseModel, Field

from extractors import extract
from extractors.endpoint import Settings
from extractors.qwen.weights import find
from schemas.evidence import Match
from schemas.receipt import Receipt
from schemas.verbatim import Verbatim

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
    sure = dict(rows["books"]["_confidence"])
    assert {"total", "date", "company"} <= set(sure) and all(0 < one <= 1 for one in sure.values())
    assert len(set(sure.values())) > 2, "the model's own probabilities, not those of kinds of evidence"
    assert found.report.cost == 0
    assert found.report.output_tokens < 200, "answers are not indented"
    again = extract(table, Receipt, tmp_path / "out", id="id", model=MODEL, max_output_tokens=256, settings=Settings())
    assert (again.report.skipped, again.report.calls) == (3, 0)


class Printed(BaseModel):
    shop: Annotated[str, Verbatim()]
    address: Annotated[str, Verbatim()]
    wares: list[Annotated[str, Verbatim()]]


@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_embedded_model_cannot_write_a_verbatim_value_that_is_not_in_the_record(tmp_path: Path) -> None:
    if find(MODEL) is None:
        pytest.skip(f"the weights of {MODEL} are not here: quarry model pull {MODEL}")
    texts = [*TEXTS[:2], 'Verkauft: "Größe \\ L"\tbei Müller & Söhne\n東京都 1-2 (日本)']
    table = pa.table({"id": ["bakery", "books", "odd"], "text": texts})
    # It is told to break the rule; the decoder keeps it.
    told = "Translate every value to French, in capitals."
    found = extract(
        table,
        Printed,
        tmp_path / "out",
        id="id",
        model=MODEL,
        instructions=told,
        max_output_tokens=256,
        settings=Settings(),
    )
    assert found.report.failures == 0 and found.report.calls == 3, "nothing had to be corrected"
    for row, text in zip(sorted(found.rows().to_pylist(), key=lambda row: row["record_id"]), texts, strict=True):
        for value in (row["shop"], row["address"], *row["wares"]):
            assert value in text
        assert {one["match"] for one in row["_evidence"]} == {"exact"}


class Ordered(BaseModel):
    vendor: str
    vendor_id: str | None = Field(default=None, description="The vendor's number, from find_vendor.")


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_embedded_model_looks_a_vendor_up(tmp_path: Path) -> None:
    if find(MODEL) is None:
        pytest.skip(f"the weights of {MODEL} are not here: quarry model pull {MODEL}")
    table = pa.table({"id": ["a"], "text": ["Acme GmbH\nInvoice 2024-17\nTotal 19.90 EUR"]})
    tools = ("tests.extractors.tools.vendors:find_vendor",)
    found = extract(table, Ordered, tmp_path / "out", id="id", model=MODEL, tools=tools, settings=Settings())
    [row] = found.rows().to_pylist()
    assert (row["vendor"], row["vendor_id"]) == ("Acme GmbH", "V-0017")
    evidence = {one["path"]: one for one in row["_evidence"]}
    assert (evidence["vendor_id"]["match"], evidence["vendor_id"]["tool"]) == ("tool", "find_vendor#1")
