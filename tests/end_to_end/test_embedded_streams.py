"""The real embedded Qwen, streamed: the frames of a server that is not our own."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from extractors import extract
from extractors.endpoint import Settings
from extractors.qwen.weights import find
from extractors.store.catalog import query
from schemas.receipt import Receipt

MODEL = "local-0.5b"
TEXT = "NORTHWIND BOOKS\n4 Harbour Street, Bergen\n2023-11-20\nAtlas 39.90\nTOTAL 39.90"


@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_embedded_model_answers_the_same_streamed_and_tells_its_usage(tmp_path: Path) -> None:
    if find(MODEL) is None:
        pytest.skip(f"the weights of {MODEL} are not here: quarry model pull {MODEL}")
    table = pa.table({"id": ["books"], "text": [TEXT]})
    rows, calls = [], []
    for stream in ("never", "always"):
        out = tmp_path / stream
        found = extract(
            table, Receipt, out, id="id", model=MODEL, max_output_tokens=256, stream=stream, settings=Settings()
        )
        assert found.report.rows == 1, found.failures().to_pylist()
        (row,) = found.rows().to_pylist()
        rows.append((row["company"], row["date"], row["total"]))
        calls += query(out, "select raw, input_tokens, output_tokens, finish_reason from receipt_calls").to_pylist()
    assert rows[0] == rows[1]
    plain, streamed = calls[0], calls[-1]
    assert streamed == plain


@pytest.mark.model
@pytest.mark.timeout(600)
def test_no_call_meets_a_connection_that_the_server_closed_behind_a_stream(tmp_path: Path) -> None:
    if find(MODEL) is None:
        pytest.skip(f"the weights of {MODEL} are not here: quarry model pull {MODEL}")
    notes = [f"Note {number}: call Ann about order {number}{number}" for number in range(24)]
    found = extract(
        pa.table({"id": [str(number) for number in range(24)], "text": notes}), "name: str?, tags: list[str]",
        tmp_path / "out", id="id", model=MODEL, max_output_tokens=24, max_attempts=1, made_up_examples="never",
        settings=Settings(),
    )  # fmt: skip
    report = found.report
    assert report.rows + report.failures == 24
    assert query(tmp_path / "out", "select distinct status, try_number from extraction_calls").to_pylist() == [
        {"status": "ok", "try_number": 1}
    ]
