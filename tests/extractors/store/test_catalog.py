"""The views: what is current, what is open, and names that get in each other's way."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from extractors.errors import JobError, OutputError
from extractors.store.catalog import (
    build_catalog,
    current_rows,
    mean_output_tokens,
    open_failures,
    outputs,
    query,
)
from extractors.store.parts import Item
from schemas.arrow import RowCodec
from schemas.outcomes import Extracted, Reason
from tests.extractors.store.builders import USAGE, call, failure, open_store, put, record, row

OTHER = "cd" * 32


def values(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in table.to_pylist()]


def rows_of(model: type[BaseModel], *contents: dict[str, Any]) -> list[Item]:
    return [
        Item(record(number), Extracted(model.model_validate(content), [], "m", [], USAGE))
        for number, content in enumerate(contents)
    ]


def test_the_latest_outcome_of_a_record_is_the_current_one(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1, "old"), failure(2), row(3), row(4)])
        put(store, "b", [row(1, "new"), row(2, "at last"), failure(3)])
    assert values(current_rows(tmp_path), "record_id", "name") == [
        ("r0001", "new"), ("r0002", "at last"), ("r0004", "name 4"),
    ]  # fmt: skip
    assert values(open_failures(tmp_path), "record_id") == [("r0003",)]


def test_records_that_share_an_id_are_told_apart(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1, "first"), row(1, "second", occurrence=1)])
        put(store, "b", [row(1, "third", occurrence=1)])
    assert values(current_rows(tmp_path), "name") == [("first",), ("third",)]


def test_rows_say_which_run_of_which_recipe_made_them_and_when(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1), failure(2)], [call(1)])
    for table in (current_rows(tmp_path), open_failures(tmp_path), query(tmp_path, "from thing_calls")):
        [found] = table.to_pylist()
        assert (found["recipe"], found["run_id"]) == ("abababab", "run-1")
        assert found["committed_at"].timestamp() == 1767323045
        assert "sequence" not in found and not any("file" in name for name in found)


def test_a_part_that_no_commit_names_does_not_count(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1)])
        put(store, "b", [row(2)], [call(2)])
        (store.folder / "commits" / "b.json").unlink()
    assert values(current_rows(tmp_path), "record_id") == [("r0001",)]
    assert query(tmp_path, "from thing_calls").num_rows == 0


def test_a_damaged_commit_or_a_missing_part_does_not_stop_a_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(tmp_path) as store:
        for number, chunk in enumerate("abc"):
            put(store, chunk, [row(number)])
    (store.folder / "commits" / "a.json").write_text("{}")
    (store.folder / "rows" / "part-b.parquet").unlink()
    assert values(current_rows(tmp_path), "record_id") == [("r0002",)]
    assert "a.json" in caplog.text and "part-b.parquet is missing" in caplog.text


def test_an_output_without_outcomes_has_typed_empty_views(tmp_path: Path) -> None:
    with open_store(tmp_path):
        pass
    rows = current_rows(tmp_path)
    assert rows.num_rows == 0
    assert rows.schema.field("lines").type == pa.list_(pa.struct([("label", pa.string()), ("position", pa.int64())]))
    assert {"sku", "recipe", "run_id", "committed_at"} <= set(rows.column_names)
    failures = open_failures(tmp_path)
    assert {"reason", "text", "kept_sku"} <= set(failures.column_names)
    assert failures.schema.field("input_tokens").type == pa.int64()
    for view in ("thing_calls", "runs", "thing_lines"):
        assert query(tmp_path, f"from {view}").num_rows == 0
    assert outputs(tmp_path)[0].as_dict() == {
        "name": "thing", "recipe": "abababab", "rows": 0, "failures": 0, "ignored": 0, "calls": 0,
    }  # fmt: skip


def test_failures_alone_leave_a_typed_empty_table_of_rows(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [failure(1)])
    assert current_rows(tmp_path).num_rows == 0
    assert open_failures(tmp_path).num_rows == 1


def test_a_list_of_objects_has_a_view_with_a_row_for_each(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1)])
    found = query(tmp_path, "from thing_lines order by position")
    assert values(found, "record_id", "position", "label", "item_position", "recipe") == [
        ("r0001", 0, "a", 7, "abababab"), ("r0001", 1, "b", 8, "abababab"),
    ]  # fmt: skip


class Call(BaseModel):
    who: str


class Clashing(BaseModel):
    """Every name here is also one of ours."""

    calls: list[Call]
    filename: str
    recipe: str
    sequence: int
    run_id: str
    committed_at: str


def test_a_schema_may_use_the_names_of_our_own_columns_and_views(tmp_path: Path) -> None:
    content = {
        "calls": [{"who": "me"}], "filename": "f", "recipe": "soup", "sequence": 9, "run_id": "x", "committed_at": "y",
    }  # fmt: skip
    kept = pa.schema([("chunk", pa.string())])
    with open_store(tmp_path, name="commits", codec=RowCodec(Clashing), kept=kept) as store:
        put(store, "a", rows_of(Clashing, content), [call(1)])
        put(store, "b", [failure(0)], [])
        put(store, "c", rows_of(Clashing, {**content, "recipe": "stew"}), [])
    [found] = current_rows(tmp_path).to_pylist()
    assert (found["recipe"], found["sequence"], found["run_id"], found["filename"]) == ("stew", 9, "x", "f")
    assert (found["_recipe"], found["_run_id"]) == ("abababab", "run-1")
    assert values(query(tmp_path, "from commits_calls"), "record_id") == [("r0001",)]
    assert values(query(tmp_path, "from commits_calls_"), "who", "recipe") == [("me", "abababab")]


def test_one_schema_may_have_the_name_of_anothers_exploded_view(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1)])
    with open_store(tmp_path, name="thing_lines") as store:
        put(store, "a", [row(2, "of the other")])
    assert values(query(tmp_path, "from thing_lines"), "name") == [("of the other",)]
    assert query(tmp_path, "from thing_lines_").num_rows == 2


class Priced(BaseModel):
    name: str
    lines: str
    price: int | None = None


def test_recipes_whose_columns_differ_are_shown_side_by_side(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1), failure(2)])
    with open_store(tmp_path, recipe_id=OTHER, codec=RowCodec(Priced)) as store:
        put(store, "a", rows_of(Priced, {"name": "n", "lines": "two", "price": 3}))
    both = current_rows(tmp_path)
    assert sorted(values(both, "recipe", "name", "price")) == [("abababab", "name 1", None), ("cdcdcdcd", "n", 3)]
    assert sorted(both.column("lines").to_pylist()) == [
        '"two"', '[{"label":"a","position":7},{"label":"b","position":8}]',
    ]  # fmt: skip
    alone = current_rows(tmp_path, recipe="abababab")
    assert alone.column("lines").to_pylist() == [[{"label": "a", "position": 7}, {"label": "b", "position": 8}]]
    assert [(one.recipe, one.rows, one.failures) for one in outputs(tmp_path)] == [
        ("abababab", 1, 1), ("cdcdcdcd", 1, 0),
    ]  # fmt: skip
    build_catalog(tmp_path)


def test_the_same_record_under_two_recipes_is_current_in_both(tmp_path: Path) -> None:
    for recipe in ("ab" * 32, OTHER):
        with open_store(tmp_path, recipe_id=recipe) as store:
            put(store, "a", [row(1)])
    assert sorted(current_rows(tmp_path).column("recipe").to_pylist()) == ["abababab", "cdcdcdcd"]


def test_kept_columns_that_a_run_did_not_ask_for_are_null(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1), failure(2)])
    with open_store(tmp_path, kept=pa.schema([("sku", pa.string()), ("size", pa.int64())])) as store:
        put(store, "b", [row(3, kept={"sku": "x", "size": 4}), failure(4, kept={"size": 5})])
    with open_store(tmp_path, kept=pa.schema([])) as store:
        put(store, "c", [row(5)])
    assert values(current_rows(tmp_path), "record_id", "sku", "size") == [
        ("r0001", "s1", None), ("r0003", "x", 4), ("r0005", None, None),
    ]  # fmt: skip
    assert values(open_failures(tmp_path), "kept_sku", "kept_size") == [("s2", None), (None, 5)]


def test_what_an_earlier_version_wrote_is_read_beside_what_this_one_writes(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1)], [call(1)])
    [folder] = (path.parent for path in tmp_path.rglob("commits"))
    as_of_columns_1(folder)
    with open_store(tmp_path) as store:
        put(store, "b", [row(2)], [call(2)])
    rows = current_rows(tmp_path).to_pylist()
    assert [(one["record_id"], one["_meta"]["incomplete"], one["_evidence"][0]["page"]) for one in rows] == [
        ("r0001", None, None), ("r0002", [], None),
    ]  # fmt: skip
    assert [one["quote"] for one in rows[0]["_evidence"]] == ["thing", None]
    assert query(tmp_path, "select tool from thing_calls").column("tool").to_pylist() == [None, None]


def earlier(field: pa.Field) -> pa.Field:
    if field.name == "_meta":
        return field.with_type(pa.struct([one for one in field.type if one.name != "incomplete"]))
    if field.name == "_evidence":
        inner = [one for one in field.type.value_type if one.name not in ("page", "box", "chunk")]
        return field.with_type(pa.list_(pa.struct(inner)))
    return field


def as_of_columns_1(folder: Path) -> None:
    """Rewrite a recipe's folder as the version before pages, look-ups and incomplete lists wrote it."""
    for part in folder.glob("*/*.parquet"):
        told = pq.read_table(part)
        fields = [earlier(field) for field in told.schema if field.name not in ("tool", "arguments", "pack")]
        names = [field.name for field in fields]
        pq.write_table(pa.Table.from_pylist(told.select(names).to_pylist(), schema=pa.schema(fields)), part)
    for commit in folder.glob("commits/*.json"):
        told = orjson.loads(commit.read_bytes())
        del told["columns"], told["sha256"]
        for part in told["parts"]:
            content = (folder / part["path"]).read_bytes()
            part |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        body = orjson.dumps(told)[:-1]
        commit.write_bytes(body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}')


def test_failures_are_chosen_with_sql(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [failure(1), failure(2, Reason.TIMED_OUT)])
    assert values(open_failures(tmp_path, where="retryable -- only those"), "reason") == [("timed_out",)]
    assert values(open_failures(tmp_path, where="kept_sku = 's1' or false"), "reason") == [("invalid",)]
    with pytest.raises(JobError, match=r"DuckDB refuses the query: .*nonsense"):
        open_failures(tmp_path, where="nonsense = 1")


def test_a_query_that_has_no_result_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(JobError, match="give a SELECT"):
        query(tmp_path, "-- nothing")


def test_a_folder_or_a_schema_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not an output folder of quarry"):
        outputs(tmp_path)
    open_store(tmp_path).close()
    with pytest.raises(OutputError, match="no schema 'other'; it holds thing"):
        current_rows(tmp_path, name="other")
    with pytest.raises(OutputError, match="no recipe 'ffffffff' of thing; it holds abababab"):
        current_rows(tmp_path, recipe="ffffffff")
    open_store(tmp_path, name="second").close()
    with pytest.raises(OutputError, match="holds second, thing: say which one"):
        current_rows(tmp_path)


@pytest.mark.parametrize("folder", ["a [1]*", "it's", "ümläut"])
def test_the_catalog_is_read_by_anyone_wherever_it_lies(tmp_path: Path, folder: str) -> None:
    out = tmp_path / folder
    with open_store(out) as store:
        put(store, "a", [row(1), failure(2)], [call(1)])
        store.write_run("r1", {"run_id": "r1", "rows": 1, "cost": "0.0050", "failures_by_reason": {"invalid": 1}})
        path = build_catalog(out)
    assert path == out / "catalog.duckdb"
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.sql("select name from thing").fetchall() == [("name 1",)]
        assert con.sql("select count(*) from thing_failures").fetchall() == [(1,)]
        assert con.sql("select label from thing_lines order by position").fetchall() == [("a",), ("b",)]
        assert con.sql("select run_id, rows from runs").fetchall() == [("r1", 1)]
    with duckdb.connect() as con:
        con.execute(f"attach '{str(path).replace(chr(39), chr(39) * 2)}' as held (read_only)")
        assert con.sql("select count(*) from held.thing").fetchall() == [(1,)]


def test_the_catalog_is_replaced_whole_under_its_readers(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1)])
        path = build_catalog(tmp_path)
        with duckdb.connect(str(path), read_only=True) as reader:
            put(store, "b", [row(2)])
            build_catalog(tmp_path)
            assert reader.sql("select count(*) from thing").fetchall() == [(1,)]
        with duckdb.connect(str(path), read_only=True) as reader:
            assert reader.sql("select count(*) from thing").fetchall() == [(2,)]
    assert not list(tmp_path.glob(".tmp-*"))


def test_reading_does_not_disturb_a_writer(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1)])
        assert current_rows(tmp_path).num_rows == 1
        put(store, "b", [row(2)])
        assert current_rows(tmp_path).num_rows == 2


def test_output_tokens_of_a_record_on_average(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1), row(2), row(3, merged=True)])
    assert mean_output_tokens(tmp_path, name="thing", recipe="abababab") == 20
    assert mean_output_tokens(tmp_path, name="thing", recipe="ffffffff") is None
