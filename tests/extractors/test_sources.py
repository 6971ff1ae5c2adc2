"""Sources: every kind gives the same records, and bad input costs one record or says what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.errors import SourceError
from extractors.sources import Source, ledger_source, open_dataframe, open_source
from schemas.job import ExtractionJob
from schemas.records import content_fingerprint

ROWS = [
    {"id": "a", "text": "one, two", "n": 1},
    {"id": "b", "text": 'a "quoted"\nline', "n": 2},
    {"id": "c", "text": "grün 𝒳", "n": 3},
]


def opened(**options: Any) -> Source:
    return open_source(ExtractionJob.model_validate({"schema": "x", "out": "out", **options}))


def staged(source: Source) -> list[dict[str, Any]]:
    with source, duckdb.connect() as con:
        source.stage(con, "memory.main.staged")
        table = con.sql("select * from memory.main.staged order by rowid").to_arrow_table()
    names = {f"k{number}": name for number, name in enumerate(source.kept.names)}
    rows = table.rename_columns([names.get(name, name) for name in table.column_names]).to_pylist()
    for row in rows:
        if row["problem"] is None:
            assert row["fingerprint"] == content_fingerprint(row["text"])
        assert (row["characters"], row["bytes"]) == (len(row["text"]), len(row["text"].encode()))
    return rows


def texts(source: Source) -> list[tuple[str, str, str | None]]:
    return [(row["record_id"], row["text"], row["problem"]) for row in staged(source)]


def good(rows: list[dict[str, Any]]) -> list[tuple[str, str, None]]:
    return [(str(row["id"]), row["text"], None) for row in rows]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write(kind: str, folder: Path) -> Path:
    path = folder / f"rows.{kind}"
    if kind in ("jsonl", "ndjson"):
        return write_jsonl(path, ROWS)
    if kind == "json":
        path.write_text(json.dumps(ROWS, indent=2))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        pd.DataFrame(ROWS).to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "ndjson", "jsonl.gz", "parquet"])
def test_every_kind_of_file_gives_the_same_records_and_typed_kept_columns(kind: str, tmp_path: Path) -> None:
    source = opened(source=str(write(kind, tmp_path)), id="id", keep=["n:number"])
    assert source.kept == pa.schema([("number", pa.int64())])
    rows = staged(source)
    assert [(row["record_id"], row["text"], row["problem"]) for row in rows] == good(ROWS)
    assert [row["number"] for row in rows] == [1, 2, 3]


def test_a_json_file_may_hold_one_object_or_objects_after_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(ROWS[0], indent=1) + "\n" + json.dumps(ROWS[1], indent=1))
    assert texts(opened(source=str(path), id="id")) == good(ROWS[:2])


def test_a_long_array_is_read_in_pieces_and_its_order_is_kept(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "é𝒳x" * 100 + str(n)} for n in range(5000)]
    (tmp_path / "x.json").write_text(json.dumps(rows, ensure_ascii=False))
    assert texts(opened(source=str(tmp_path / "x.json"), id="id")) == good(rows)


@pytest.mark.parametrize(
    "text", ['[{"text": "a"}, {"text": ', '[{"text": "a"} {"text": "b"}]', '[{"text":"a"}] x', '[{"text":"a"},]']
)
def test_a_broken_array_is_an_error_that_says_where(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"x\.json is broken near character \d+"):
        staged(opened(source=str(path)))


def test_a_folder_of_text_files_is_a_record_a_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("beta")
    (tmp_path / "sub" / "a.md").write_text("alpha")
    (tmp_path / ".hidden").write_text("no")
    source = opened(source=str(tmp_path), keep=["name", "path:where"])
    rows = staged(source)
    assert [(row["record_id"], row["text"], row["name"], row["where"]) for row in rows] == [
        ("b.txt", "beta", "b.txt", "b.txt"),
        ("sub/a.md", "alpha", "a.md", "sub/a.md"),
    ]


def test_a_template_over_text_files_knows_name_and_text(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("beta")
    assert texts(opened(source=str(tmp_path / "*.txt"), text="{name}: {text}")) == [("b.txt", "b.txt: beta", None)]


def test_a_glob_of_csv_files_unites_them_by_name(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,text\n1,one\n")
    (tmp_path / "2.csv").write_text("extra,text,id\nx,two,2\n")
    rows = staged(opened(source=str(tmp_path / "*.csv"), id="id", keep=["extra"]))
    assert [(row["record_id"], row["text"], row["extra"]) for row in rows] == [("1", "one", None), ("2", "two", "x")]


def test_kinds_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    write("csv", tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SourceError, match=r"mixes kinds of files: csv \(rows.csv\), text \(a.txt\)"):
        opened(source=str(tmp_path))


def database(tmp_path: Path) -> Path:
    path = tmp_path / "file.db"
    with duckdb.connect(str(path)) as con:
        con.execute(
            "create table tickets as select range as id, 'ticket ' || range as text, range * 2 as n from range(5)"
        )
    return path


def test_a_table_and_a_query_of_a_duckdb_file(tmp_path: Path) -> None:
    path = database(tmp_path)
    assert len(texts(opened(duckdb=str(path), source="tickets", id="id"))) == 5
    source = opened(duckdb=str(path), sql="select * from tickets where n > 4 order by id desc;", id="id", keep=["n"])
    rows = staged(source)
    assert [(row["record_id"], row["n"]) for row in rows] == [("4", 8), ("3", 6)]
    assert rows[0]["text"] == "ticket 4"


def test_a_duckdb_file_is_given_back_when_it_is_read(tmp_path: Path) -> None:
    path = database(tmp_path)
    source = opened(duckdb=str(path), source="tickets", id="id")
    with duckdb.connect() as con:
        source.stage(con, "memory.main.staged")
        with duckdb.connect(str(path)) as writer:
            before = writer.execute("select count(*) from tickets").fetchall()[0][0]
            writer.execute("insert into tickets values (9, 'new', 1)")
            assert writer.execute("select count(*) from tickets").fetchall() == [(before + 1,)]


def test_a_missing_table_is_an_error_that_lists_the_tables(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no table 'ticket'; it has: tickets; did you mean 'tickets'"):
        opened(duckdb=str(database(tmp_path)), source="ticket")


def test_a_query_alone_reads_files_itself(tmp_path: Path) -> None:
    path = write("parquet", tmp_path)
    assert texts(opened(sql=f"select * from '{path}' where n < 3", id="id")) == good(ROWS[:2])


@pytest.mark.parametrize("sql", ["select 1; select 2", "create table x (i int)", "selec 1", ""])
def test_sql_must_be_one_select(sql: str) -> None:
    with pytest.raises(SourceError, match="--sql"):
        opened(sql=sql)


def test_data_frames_and_arrow_tables_are_sources() -> None:
    frame = pd.DataFrame({**{key: [row[key] for row in ROWS] for key in ("id", "text")}, "odd": [1, "x", object]})
    assert texts(open_dataframe(frame, id="id")) == good(ROWS)
    assert texts(open_dataframe(pa.Table.from_pylist(ROWS), id="id", text="{text}", keep=["n"])) == good(ROWS)


def test_the_default_id_is_a_hash_of_the_content() -> None:
    [row] = staged(open_dataframe(pa.table({"text": ["abc"]})))
    assert row["record_id"] == "c-" + content_fingerprint("abc")[:16]


def test_a_template_joins_columns_and_nulls_are_empty() -> None:
    table = pa.table({"id": ["a"], "title": ["T"], "body": pa.array([None], pa.string()), "n": [7]})
    assert texts(open_dataframe(table, id="id", text="{title}\\n{body}{{{n}}}"))[0][1] == "T\n{7}"


def test_the_text_column_is_found_or_asked_for() -> None:
    assert texts(open_dataframe(pa.table({"id": ["a"], "body": ["x"], "n": [1]}), id="id")) == [("a", "x", None)]
    with pytest.raises(SourceError, match="several columns that may be the text: body, title"):
        open_dataframe(pa.table({"id": ["a"], "body": ["x"], "title": ["y"]}), id="id")
    with pytest.raises(SourceError, match="no column with text; it has: n"):
        open_dataframe(pa.table({"n": [1]}))


@pytest.mark.parametrize("option", [{"text": "bdoy"}, {"text": "{bdoy}"}, {"id": "bdoy"}, {"keep": ["bdoy"]}])
def test_a_missing_column_is_named_with_those_there_are(option: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"title": "t", "body": "b"}])
    with pytest.raises(SourceError, match=r"has no column 'bdoy'.*it has: title, body; did you mean 'body'"):
        opened(source=str(tmp_path / "x.jsonl"), **{"text": "body", **option})


@pytest.mark.parametrize("template", ["{a", "a}", "{{}}", "{}"])
def test_a_wrong_template_is_an_error(template: str) -> None:
    with pytest.raises(SourceError):
        open_dataframe(pa.table({"a": ["x"]}), text=template)


def test_a_missing_file_is_named_with_what_is_like_it(tmp_path: Path) -> None:
    write("csv", tmp_path)
    with pytest.raises(SourceError, match=r"no file or folder .*rows\.cvs.*did you mean .*rows\.csv"):
        opened(source=str(tmp_path / "rows.cvs"))
    with pytest.raises(SourceError, match="no file matches"):
        opened(source=str(tmp_path / "*.jsonl"))
    with pytest.raises(SourceError, match="no DuckDB database"):
        opened(source="t", duckdb=str(tmp_path / "no.db"))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_a_file_of_no_bytes_is_an_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{kind}").write_bytes(b"")
    with pytest.raises(SourceError, match=r"is empty \(0 bytes\)"):
        opened(source=str(tmp_path / f"x.{kind}"))


@pytest.mark.parametrize(("name", "content"), [("x.csv", "id,text\n"), ("x.json", "[]"), ("x.jsonl", "\n\n")])
def test_a_file_without_rows_is_a_source_of_no_records(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert staged(opened(source=str(tmp_path / name))) == []


def test_a_broken_json_line_fails_alone_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b'{"id": 1, "text": "a"}\n{"id": 2, "text": \n\n[1]\n{"id": 5, "text": "\xff"}\n{"id": 6, "text": "b"}'
    )
    rows = texts(opened(source=str(path), id="id"))
    assert [(rid, problem and problem.split(":")[0]) for rid, _, problem in rows] == [
        ("1", None),
        ("x.jsonl:2", "line 2 is not JSON"),
        ("x.jsonl:4", "line 4 is JSON but not an object"),
        ("x.jsonl:5", "line 5 is not UTF-8"),
        ("6", None),
    ]
    assert rows[1][1] == '{"id": 2, "text": '


def test_null_and_blank_texts_and_null_ids_are_problems(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "text": None}, {"id": "b"}, {"id": "c", "text": ""}]
    rows += [{"id": "d", "text": " \t\u3000\u2028\x0b\x85"}, {"id": None, "text": "x"}, {"id": "e", "text": "\u200bx"}]
    write_jsonl(tmp_path / "x.jsonl", rows)
    found = texts(opened(source=str(tmp_path / "x.jsonl"), id="id"))
    assert [problem for _, _, problem in found] == [
        "the text is null",
        "the text is null",
        "the text is empty",
        "the text is only white space",
        "the id ('id') is null",
        None,
    ]
    assert found[4][0].startswith("c-")


def test_a_problem_never_has_the_fingerprint_of_a_text() -> None:
    rows = staged(open_dataframe(pa.table({"text": [None, "", "x"]}, schema=pa.schema([("text", pa.string())]))))
    assert rows[0]["fingerprint"] == content_fingerprint("\x00problem\x00the text is null")
    assert len({row["fingerprint"] for row in rows} | {content_fingerprint("")}) == 4


def test_broken_csv_rows_fail_alone_with_their_line_number(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        'id,text,n\n1,"two\nlines",1\n2,too few\n3,too,many,columns\n4,"open,4\n5,five,5\n6,"bad"quote,6\n7,seven,7\n'
    )
    rows = texts(opened(source=str(tmp_path / "x.csv"), id="id"))
    assert [rid for rid, _, _ in rows] == ["1", "x.csv:4", "x.csv:5", "x.csv:6", "5", "x.csv:8", "7"]
    assert rows[0][1] == "two\nlines"
    assert rows[1][2] == "line 4: 2 columns where the header has 3"
    assert [problem is None for _, _, problem in rows] == [True, False, False, False, True, False, True]
    assert "quotes are broken" in (rows[3][2] or "")


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    lines = ["id,text", '0,"open'] + [f"{n},text {n}" for n in range(1, 2000)]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    rows = texts(opened(source=str(tmp_path / "x.csv"), id="id"))
    assert len(rows) == 2000
    assert [rid for rid, _, problem in rows if problem] == ["x.csv:2"]


def test_the_delimiter_is_found_and_leading_zeros_stay(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id;text;zip;price;day\n007;a, b;01234;1.50;2024-01-31\n8;c;99;2;2024-02-01\n")
    source = opened(source=str(tmp_path / "x.csv"), id="id", text="text", keep=["zip", "price", "day"])
    assert source.kept.types == [pa.string(), pa.float64(), pa.date32()]
    assert [(row["record_id"], row["text"], row["zip"]) for row in staged(source)] == [
        ("007", "a, b", "01234"),
        ("8", "c", "99"),
    ]


def test_kept_json_values_have_the_type_that_fits_all_of_them(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "n": 1, "mixed": 1, "list": [1], "obj": {"a": 1.5}, "none": None, "big": 2**63},
        {"text": "b", "n": -2, "mixed": "x", "list": [], "obj": None, "big": 1},
    ]
    write_jsonl(tmp_path / "x.jsonl", rows)
    source = opened(source=str(tmp_path / "x.jsonl"), text="text", keep=["n", "mixed", "list", "obj", "none", "big"])
    found = staged(source)
    assert [row["n"] for row in found] == [1, -2]
    assert [row["mixed"] for row in found] == ["1", "x"]
    assert [row["list"] for row in found] == [[1], []]
    assert [row["obj"] for row in found] == [{"a": 1.5}, None]
    assert [row["big"] for row in found] == [2**63, 1]
    assert [row["none"] for row in found] == [None, None]


def test_a_json_column_may_appear_late(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"text": "a"}] * 3000 + [{"text": "b", "late": 5}])
    rows = staged(opened(source=str(tmp_path / "x.jsonl"), keep=["late"]))
    assert (rows[0]["late"], rows[-1]["late"]) == (None, 5)


def test_long_numbers_stay_exact_as_ids(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": 123456789012345678901234567890, "text": "a"}\n')
    assert texts(opened(source=str(tmp_path / "x.jsonl"), id="id"))[0][0] == "123456789012345678901234567890"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_byte_order_marks_are_understood(encoding: str, kind: str, tmp_path: Path) -> None:
    content = {"csv": "id,text\na,grün 𝒳\n", "jsonl": '{"id": "a", "text": "grün 𝒳"}\n', "txt": "grün 𝒳"}[kind]
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    (tmp_path / f"x.{kind}").write_bytes((mark + content).encode(encoding))
    [(_, text, problem)] = texts(opened(source=str(tmp_path / f"x.{kind}"), id=None if kind == "txt" else "id"))
    assert (text, problem) == ("grün 𝒳", None)


@pytest.mark.parametrize("content", ["id,text\n1,café\n2,thé\n", "id,téxt\n1,a\n"])
def test_a_latin1_csv_is_an_error_that_says_how_to_convert_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(SourceError, match=r"x\.csv is not UTF-8: byte 0xe9 at offset \d+.*iconv -f latin1 -t utf-8"):
        opened(source=str(tmp_path / "x.csv"))


def test_one_csv_row_with_wrong_bytes_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("id,text\n1,grün\n2,é\n".encode() + b"3,caf\xe9\n4,ok\n")
    rows = texts(opened(source=str(tmp_path / "x.csv"), id="id"))
    assert [(rid, problem) for rid, _, problem in rows] == [
        ("1", None), ("2", None), ("x.csv:4", "line 4 is not UTF-8"), ("4", None),
    ]  # fmt: skip


def test_a_text_file_with_wrong_bytes_is_a_problem_that_names_the_offset(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\xffdef")
    (tmp_path / "b.txt").write_text("fine")
    rows = texts(opened(source=str(tmp_path)))
    assert rows[0] == ("a.txt", "abc\ufffddef", "a.txt is not UTF-8: byte 0xff at offset 3")
    assert rows[1][2] is None


def test_nul_characters_stay_and_lone_surrogates_become_the_replacement_character(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "a\\ud800", "text": "n\\u0000l"}\n{"id": "b", "text": "x\\udc00y \\ud83d\\ude00"}\n')
    assert texts(opened(source=str(path), id="id")) == [("a\ufffd", "n\0l", None), ("b", "x\ufffdy 😀", None)]
    (tmp_path / "x.csv").write_bytes(b"id,text\n1,a\0b\n")
    assert texts(opened(source=str(tmp_path / "x.csv"), id="id")) == [("1", "a\0b", None)]
    (tmp_path / "x.txt").write_bytes(b"a\0b")
    assert texts(opened(source=str(tmp_path / "x.txt")))[0][1] == "a\0b"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "txt"])
def test_a_text_of_five_megabytes_is_read_whole(kind: str, tmp_path: Path) -> None:
    text = "é 1234567" * 500_000
    path = tmp_path / f"x.{kind}"
    path.write_text(
        {
            "csv": f'text\n"{text}"\n',
            "jsonl": json.dumps({"text": text}),
            "json": json.dumps([{"text": text}]),
            "txt": text,
        }[kind]
    )
    [(_, found, problem)] = texts(opened(source=str(path)))
    assert problem is None
    assert found == text


def test_the_ledger_gives_its_records_back_as_they_were() -> None:
    failures = pa.table(
        {
            "record_id": ["a", "a"],
            "occurrence": pa.array([0, 3], pa.int32()),
            "fingerprint": [content_fingerprint("x"), "f" * 32],
            "reason": ["invalid", "bad_input"],
            "message": ["no", "the text is null"],
            "text": ["x", ""],
            "kept_n": [1, 2],
        }
    )
    source = ledger_source(failures)
    assert source.kept == pa.schema([("n", pa.int64())])
    assert [
        (row["record_id"], row["given"], row["fingerprint"], row["problem"], row["n"]) for row in staged(source)
    ] == [
        ("a", 0, content_fingerprint("x"), None, 1),
        ("a", 3, "f" * 32, "the text is null", 2),
    ]
    with pytest.raises(SourceError, match="--ledger-text none"):
        ledger_source(failures.set_column(5, "text", pa.array(["x", None])))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8))
def test_fingerprints_in_sql_equal_those_in_python_and_all_sources_agree(
    tmp_path_factory: Any, values: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"id": f"r{n}", "text": value} for n, value in enumerate(values)]
    write_jsonl(folder / "x.jsonl", rows)
    (folder / "x.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    expected = staged(open_dataframe(pa.Table.from_pylist(rows), id="id"))
    assert [row["text"] for row in expected] == values
    assert staged(opened(source=str(folder / "x.jsonl"), id="id")) == expected
    assert staged(opened(source=str(folder / "x.json"), id="id")) == expected


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=8))
def test_csv_gives_any_quoted_text_back(tmp_path_factory: Any, values: list[str]) -> None:
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    lines = ["id,text"] + [f'{n},"{value.replace(chr(34), chr(34) * 2)}"' for n, value in enumerate(values)]
    path.write_bytes(("\n".join(lines) + "\n").encode())
    assert [text for _, text, _ in texts(opened(source=str(path), id="id", text="text"))] == values
