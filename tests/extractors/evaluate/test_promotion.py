"""Records into a golden set by the command: what is labelled, what is kept, and that nothing is added by half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from extractors.errors import JobError
from flows.cli.app import app
from tests.end_to_end.things import run_things
from tests.extractors.review.things import copied, waiting
from tests.fakes.answers import thing_answer, thing_text
from tests.fakes.qwen import FakeQwen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return waiting(tmp_path_factory.mktemp("made")).parent


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path)


def add(out: Path, *arguments: str, golden: str = "golden.jsonl") -> Result:
    return CliRunner().invoke(app, ["golden", "add", str(out), "-o", str(out.parent / golden), *arguments])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out.parent / "golden.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("given", [{"name": "kettle"}, {"price": 4.5}, {}, {"name": "kettle", "price": None}])
def test_a_key_that_is_not_given_is_not_labelled(out: Path, given: dict[str, Any]) -> None:
    assert add(out, "--id", "r00003", "--expected", json.dumps(given)).exit_code == 0
    [line] = lines(out)
    assert line["expected"] == ({**given, "price": "4.5"} if given.get("price") else given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"prise": 4}', "no field 'prise'; its fields are name, price"),
        ('{"price": "dear"}', "--expected, price"),
        ('{"name": null}', "--expected, name"),
        ("[1]", "no JSON object"),
        ("{", "no JSON"),
        ('{"price": NaN}', "no JSON"),
    ],
)
def test_values_that_do_not_fit_are_refused(out: Path, given: str, said: str) -> None:
    found = add(out, "--id", "r00003", "--expected", given)
    assert isinstance(found.exception, JobError) and said in str(found.exception)
    assert not (out.parent / "golden.jsonl").exists()


def test_of_several_records_all_are_added_or_none(out: Path) -> None:
    found = add(out, "--id", "r00004,nope")
    assert isinstance(found.exception, JobError) and "'nope'; nothing was added" in str(found.exception)
    assert not (out.parent / "golden.jsonl").exists()
    found = add(out, "--id", "r00004,r00003")
    assert isinstance(found.exception, JobError) and "give its right values" in str(found.exception)
    assert not (out.parent / "golden.jsonl").exists()


@pytest.mark.parametrize("name", ["golden.parquet", "golden.PQ"])
def test_a_golden_set_in_parquet_is_not_added_to(out: Path, name: str) -> None:
    found = add(out, "--id", "r00004", golden=name)
    assert isinstance(found.exception, JobError) and "golden.jsonl" in str(found.exception)
    assert not (out.parent / name).exists()


def test_a_record_that_is_replaced_keeps_what_it_accepts_of_the_same_values(out: Path) -> None:
    before = {"id": "r00004", "text": "old", "expected": {"name": "thing-0000004", "price": 9}, "free": ["name"],
              "accept": {"name": ["thing 4"], "price": [9.5]}}  # fmt: skip
    other = {"id": "r1", "text": thing_text(1), "expected": {"name": "a"}, "accept": {"name": ["b"]}}
    (out.parent / "golden.jsonl").write_text(f"{json.dumps(before)}\n{json.dumps(other)}\n")
    assert add(out, "--id", "r00004").exit_code == 0
    assert lines(out) == [
        {"id": "r00004", "text": thing_text(4), "expected": {"name": "thing-0000004", "price": "4.04"},
         "accept": {"name": ["thing 4"]}, "free": ["name"]},
        other,
    ]  # fmt: skip


def test_a_value_that_is_only_written_otherwise_is_the_same(out: Path) -> None:
    before = {"id": "r00004", "text": "old", "expected": {"price": 4.04}, "accept": {"price": [4]}}
    (out.parent / "golden.jsonl").write_text(f"{json.dumps(before)}\n")
    assert add(out, "--id", "r00004").exit_code == 0
    assert lines(out)[0]["accept"] == {"price": [4]}


def test_an_integer_beyond_64_bits_is_kept_to_the_last_digit(tmp_path: Path) -> None:
    number = "123456789012345678901"
    source = tmp_path / "records.jsonl"
    source.write_text('{"id": "a", "text": "serial 7"}\n')
    with FakeQwen('{"serial": 7}') as qwen:
        ran = CliRunner().invoke(
            app,
            ["run", str(source), "--schema", "serial: int", "--out", str(tmp_path / "out"), "--id", "id", "--model", "qwen-plus",
             "--base-url", qwen.base_url],
        )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    for _ in range(2):
        found = add(tmp_path / "out", "--id", "a", "--expected", f'{{"serial": {number}}}')
        assert found.exit_code == 0, found.exception
    [line] = (tmp_path / "golden.jsonl").read_text().splitlines()
    assert json.loads(line, parse_int=str)["expected"]["serial"] == number


def test_an_id_with_a_comma_is_one_record_where_there_is_such_a_one(tmp_path: Path) -> None:
    ids = ["a,b", "a", "b", "c"]
    source = tmp_path / "records.jsonl"
    source.write_text("".join(json.dumps({"sku": one, "text": thing_text(n)}) + "\n" for n, one in enumerate(ids)))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen, id="sku")
    assert add(tmp_path / "out", "--id", "a,b").exit_code == 0
    assert [one["id"] for one in lines(tmp_path / "out")] == ["a,b"]
    assert add(tmp_path / "out", "--id", "b, c", "--id", "a").exit_code == 0
    assert [one["id"] for one in lines(tmp_path / "out")] == ["a,b", "b", "c", "a"]
