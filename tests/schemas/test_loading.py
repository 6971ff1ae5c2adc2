"""Import paths, files and lines to models."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from schemas.arrow import SchemaMappingError
from schemas.loading import load_schema
from schemas.product import Product

MODEL = "from __future__ import annotations\nfrom pydantic import BaseModel\nclass Book(BaseModel):\n    part: Part\nclass Part(BaseModel):\n    name: str\nLIMIT = 3\n"


def test_an_import_path_gives_the_class_itself() -> None:
    assert load_schema("schemas.product:Product") is Product


def test_a_python_file_is_run_and_its_model_taken(tmp_path: Path) -> None:
    (tmp_path / "books.py").write_text(MODEL)
    model = load_schema("books.py:Book", base=tmp_path)
    assert model.model_validate({"part": {"name": "A"}}).model_dump() == {"part": {"name": "A"}}


def test_a_module_of_the_folder_is_found_and_the_path_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "quarry_test_books.py").write_text(MODEL)
    before = list(sys.path)
    assert load_schema("quarry_test_books:Book", base=tmp_path).__name__ == "Book"
    assert sys.path == before


def test_a_json_file_is_named_after_its_file_or_title(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    (tmp_path / "trade-card.schema.json").write_text(json.dumps(schema))
    assert load_schema("trade-card.schema.json", base=tmp_path).__name__ == "TradeCard"
    (tmp_path / "x.json").write_text(json.dumps({**schema, "title": "Price list"}))
    assert load_schema("x.json", base=tmp_path).__name__ == "PriceList"


@pytest.mark.parametrize("spec", ["name", "name: str", "name:str", "price:float", "a, b: [int]"])
def test_a_line_is_a_line_even_without_spaces(spec: str) -> None:
    assert load_schema(spec).__name__ == "Extraction"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "the schema is empty; give package.module:Model"),
        ("nowhere.at.all:X", "there is no module nowhere, neither installed nor in "),
        ("schemas.nothing:X", "there is no module schemas.nothing, neither"),
        ("schemas.product:Nope", "the module has no Nope; its models are Product"),
        ("schemas.product:EXAMPLES", "EXAMPLES is a list, not a pydantic model class; its models are Product"),
        ("missing.json", "missing.json does not exist"),
        ("missing.py:X", "missing.py does not exist"),
        ("broken.py:X", "running the file failed: ZeroDivisionError: division by zero"),
        ("broken.json", "broken.json is not JSON: line 2, column 6: "),
        ("latin.json", "latin.json is not UTF-8 text (byte 2)"),
        ("nan.json", "NaN is not a JSON value"),
        ("list.json", "#: a JSON list says nothing about fields"),
    ],
)
def test_each_mistake_has_its_own_message(tmp_path: Path, spec: str, words: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "broken.json").write_text('{\n"a": }')
    (tmp_path / "latin.json").write_bytes(b'{"\xe9": 1}')
    (tmp_path / "nan.json").write_text('{"minimum": NaN}')
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SchemaMappingError) as caught:
        load_schema(spec, base=tmp_path)
    assert words in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom file modes bind")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "closed.json"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(SchemaMappingError, match="cannot be read: Permission denied"):
        load_schema("closed.json", base=tmp_path)
