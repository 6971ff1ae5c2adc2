"""The job as a form: what a filled one becomes, and that every field of the job is in it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.form import GROUPS, HIDDEN, flattened, form_schema
from schemas.job import ExtractionJob

FLAT = {"source": "x.csv", "schema": "name", "out": "o"}


def shown() -> dict[str, Any]:
    return form_schema(ExtractionJob.model_json_schema(by_alias=True), choices={"schema": ["a:A", "b:B"]})


def test_a_filled_form_is_the_same_job_as_flat_fields() -> None:
    form = {
        "source": {"kind": "query", "sql": "select 1 as text", "database": "shop.db"},
        "schema": "name",
        "out": "o",
        "limits": {"rpm": 60, "max_cost": 2.5},
        "advanced": {"chunk_size": 10},
        "pictures": {},
        "service": None,
    }
    flat = {"sql": "select 1 as text", "duckdb": "shop.db", "schema": "name", "out": "o", "rpm": 60, "max_cost": 2.5, "chunk_size": 10}  # fmt: skip
    assert ExtractionJob.model_validate(form) == ExtractionJob.model_validate(flat)


@pytest.mark.parametrize(
    ("source", "becomes"),
    [
        ({"kind": "files", "path": "mail/*.txt"}, {"source": "mail/*.txt"}),
        ({"kind": "table", "database": "a.db", "table": "notes"}, {"duckdb": "a.db", "source": "notes"}),
        ({"kind": "query", "sql": "select 1", "database": None}, {"sql": "select 1"}),
        ("x.csv", {"source": "x.csv"}),
    ],
)
def test_a_source_is_taken_apart_by_its_kind(source: Any, becomes: dict[str, str]) -> None:
    assert flattened({"source": source}) == becomes


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({**FLAT, "source": {"kind": "letters"}}, "kind must be one of files, table, query"),
        ({**FLAT, "source": {"kind": "table", "table": "x"}}, "needs database"),
        ({**FLAT, "source": {"kind": "files", "path": "x", "sql": "y"}}, "sql"),
        ({**FLAT, "rpm": 5, "limits": {"rpm": 6}}, "limits: rpm is given twice"),
        ({**FLAT, "limits": {"rmp": 6}}, "rmp"),
    ],
)
def test_a_form_that_cannot_be_is_refused_naming_the_field(form: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ExtractionJob.model_validate(form)


def test_every_field_of_the_job_is_in_the_form_once() -> None:
    schema = shown()
    names = []
    for name, about in schema["properties"].items():
        names += about["properties"] if name in (*GROUPS, "advanced") else [name]
    own = set(ExtractionJob.model_json_schema(by_alias=True)["properties"])
    assert sorted(names) == sorted(own - HIDDEN)
    assert list(schema["properties"])[:3] == ["source", "schema", "out"]


def test_a_choice_leaves_room_for_any_other_value() -> None:
    listed, another = shown()["properties"]["schema"]["anyOf"]
    assert listed["enum"] == ["a:A", "b:B"]
    assert another["type"] == "string"
