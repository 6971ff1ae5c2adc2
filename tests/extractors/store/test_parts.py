"""A chunk's outcomes as Parquet: what is kept, exactly, and always in the same bytes."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from extractors.errors import JobError
from extractors.store.parts import Item, PartSchemas, calls_part, failures_part, rows_part
from schemas.arrow import JSON_SCHEMA_KEY, RowCodec
from schemas.outcomes import Failed, Reason
from tests.extractors.store.builders import RECIPE, SKU, Thing, call, failure, record, row

SCHEMAS = PartSchemas(RowCodec(Thing), SKU, recipe_id=RECIPE)


def read(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def test_a_rows_part_has_the_fixed_the_kept_and_the_models_columns() -> None:
    table = read(rows_part([row(1)], SCHEMAS))
    assert table.column_names == [
        "record_id", "fingerprint", "sku", "name", "lines", "_evidence", "_confidence", "_meta",
    ]  # fmt: skip
    [found] = table.to_pylist()
    assert found["sku"] == "s1"
    assert found["name"] == "name 1"
    assert found["_evidence"][0] == {
        "path": "name", "match": "exact", "quote": "thing", "start": 0, "end": 5, "score": 1.0,
        "page": None, "box": None, "chunk": None, "tool": None,
    }  # fmt: skip
    assert found["_evidence"][1]["start"] is None
    assert found["_meta"] == {
        "model": "qwen-plus", "occurrence": 0, "attempts": 1, "input_tokens": 100, "output_tokens": 20,
        "cost": Decimal("0.0025"), "corrected": ["name"], "nulled": ["price"], "repaired": True, "merged": False, "incomplete": [],
    }  # fmt: skip


def test_the_schema_travels_with_the_parts() -> None:
    metadata = read(rows_part([row(1)], SCHEMAS)).schema.metadata
    assert json.loads(metadata[JSON_SCHEMA_KEY.encode()])["properties"].keys() == {"name", "lines"}
    assert metadata[b"quarry.recipe"].decode() == RECIPE
    assert read(failures_part([failure(1)], SCHEMAS, ledger_text="full")).schema.metadata == metadata


def test_a_merged_record_costs_nothing() -> None:
    meta = read(rows_part([row(1, merged=True)], SCHEMAS)).to_pylist()[0]["_meta"]
    assert (meta["merged"], meta["input_tokens"], meta["cost"]) == (True, 0, 0)


def test_a_failure_keeps_what_is_needed_to_ask_again() -> None:
    [found] = read(failures_part([failure(1)], SCHEMAS, ledger_text="full")).to_pylist()
    assert (found["reason"], found["retryable"], found["text"], found["kept_sku"]) == (
        "invalid", False, "thing 1", "s1",
    )  # fmt: skip
    assert found["problems"][0]["path"] == "name"
    assert found["attempts"][0]["raw"] == '{"name": 1}'
    assert json.loads(found["partial"]) == {"name": 1}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("none", None),
        ("hash", "sha256:28d50415252ab6c689a54413da15b083034b66e5"),
        ("full", "a text"),
    ],
)
def test_the_ledger_keeps_as_much_of_the_text_as_it_may(policy: str, expected: str | None) -> None:
    import hashlib

    if policy == "hash":
        expected = "sha256:" + hashlib.sha256(b"a text").hexdigest()
    [found] = read(failures_part([failure(1, text="a text")], SCHEMAS, ledger_text=policy)).to_pylist()
    assert found["text"] == expected


def test_lone_surrogates_and_nuls_do_not_stop_a_part() -> None:
    bad = "a\ud800b\x00c"
    item = failure(1, text=bad, record_id=bad, fingerprint="f" * 32, kept={"sku": bad})
    [found] = read(failures_part([item], SCHEMAS, ledger_text="full")).to_pylist()
    assert found["text"] == found["record_id"] == found["kept_sku"] == "a\ufffdb\x00c"
    [found] = read(rows_part([row(1, text=bad + "xyz", kept={"sku": bad}, fingerprint="f" * 32)], SCHEMAS)).to_pylist()
    assert found["_evidence"][0]["quote"] == "a\ufffdb\x00c"


@pytest.mark.parametrize("partial", [2**70, {"a": [-(2**64), "\ud800"]}, [1.5, None, True]])
def test_an_answer_that_is_unusual_json_is_kept_exactly(partial: object) -> None:
    item = Item(record(1), Failed(Reason.INVALID, "m", "qwen-plus", partial=partial))
    [found] = read(failures_part([item], SCHEMAS, ledger_text="none")).to_pylist()
    assert json.loads(found["partial"]) == partial


def test_an_unknown_price_is_null_and_not_zero() -> None:
    one = call(1)
    import dataclasses

    table = read(calls_part([dataclasses.replace(one, cost=None), one], SCHEMAS, chunk="c", run_id="r"))
    assert table.column("cost").to_pylist() == [None, Decimal("0.0025")]
    assert set(table.column("chunk").to_pylist()) == {"c"}
    assert set(table.column("run_id").to_pylist()) == {"r"}


@pytest.mark.parametrize("name", ["name", "Name", "record_id", "_meta", "recipe", "RUN_ID"])
def test_a_kept_column_may_not_take_the_name_of_another(name: str) -> None:
    with pytest.raises(JobError, match=f"'{name}'.*--keep {name}:source_{name}"):
        PartSchemas(RowCodec(Thing), pa.schema([(name, pa.string())]), recipe_id=RECIPE)


def test_two_kept_columns_that_differ_in_case_are_refused() -> None:
    with pytest.raises(JobError, match="another kept column"):
        PartSchemas(RowCodec(Thing), pa.schema([("sku", pa.string()), ("SKU", pa.string())]), recipe_id=RECIPE)


class Plain(BaseModel):
    name: str


def test_a_schema_without_kept_columns_has_a_part_too() -> None:
    schemas = PartSchemas(RowCodec(Plain), pa.schema([]), recipe_id=RECIPE)
    item = row(1)
    from schemas.outcomes import Extracted

    data = rows_part([Item(item.record, Extracted(Plain(name="x"), [], "m", [], item.outcome.usage))], schemas)
    assert read(data).to_pylist()[0]["_evidence"] == []
