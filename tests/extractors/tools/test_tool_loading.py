"""From what a user writes after ``--tool`` to what the model is told, and what is refused."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from extractors.errors import JobError
from extractors.tools.loading import load_tools
from extractors.tools.toolbox import Tool

HERE = "tests.extractors.tools.vendors"


def tool(spec: str) -> Tool:
    box = load_tools([spec], timeout=5, most_steps=3)
    assert box is not None
    [only] = box.tools.values()
    return only


@pytest.fixture
def vendors(tmp_path: Path) -> Path:
    path = tmp_path / "vendors.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(
            "create table vendors as select i as id, 'Vendor ' || i as name, 2000 + i as year from range(50) t(i)"
        )
    return path


def test_hints_and_docstring_are_what_the_model_is_told() -> None:
    spec = tool(f"{HERE}:find_vendor").spec
    assert (spec.name, spec.description) == ("find_vendor", "Finds a vendor's number.")
    assert spec.parameters == {
        "type": "object",
        "properties": {"name": {"type": "string", "description": "The vendor's name as the record prints it."}},
        "required": ["name"],
        "additionalProperties": False,
    }


def test_limits_choices_and_defaults_are_in_the_schema() -> None:
    properties = tool(f"{HERE}:find_slowly").spec.parameters["properties"]
    assert properties["limit"] == {"type": "integer", "minimum": 1, "default": 3}
    assert properties["kind"] == {"type": "string", "enum": ["any", "exact"], "default": "any"}


def test_a_function_may_come_from_a_file_and_have_another_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text('def find(code: int) -> str:\n    """Finds."""\n    return str(code)\n')
    assert tool(f"find_code={file}:find").spec.name == "find_code"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("find_vendor", "give package.module:name"),
        ("no_such_module:f", "there is no module no_such_module"),
        (f"{HERE}:nothing", "has no nothing"),
        (f"{HERE}:LIMIT", "this is a int, not a function"),
        (f"{HERE}:search", "refuses a function called search"),
        (f"{HERE}:untyped", "the parameter name has no type"),
        (f"{HERE}:anything", "\\*\\*more has no name and type"),
        (f"find(x: int)={HERE}:find_vendor", "a function's parameters are those of its own hints"),
        ("duckdb:v.duckdb:select 1", "a query needs a name"),
        ("f=duckdb:/nowhere/v.duckdb:select 1", "there is no database"),
    ],
)
def test_what_cannot_be_a_look_up_is_said_at_the_start(spec: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        tool(spec)


def test_two_look_ups_of_one_name_are_refused() -> None:
    with pytest.raises(JobError, match="two look-ups are called find_vendor"):
        load_tools([f"{HERE}:find_vendor", f"find_vendor={HERE}:find_slowly"], timeout=5, most_steps=3)


def test_a_query_has_text_parameters_unless_they_are_declared(vendors: Path) -> None:
    query = f"duckdb:{vendors}:/* Finds by name. */ select id from vendors where name = $name and year > $year"
    assert tool(f"find={query}").spec.parameters["properties"] == {
        "name": {"type": "string"},
        "year": {"type": "string"},
    }
    declared = tool(f"find(name, year: int)={query}")
    assert declared.spec.parameters["properties"]["year"]["type"] == "integer"
    assert declared.spec.description == "Finds by name. At most 20 rows."
    assert declared.run is not None and declared.run({"name": "Vendor 7", "year": 2000}) == [{"id": 7}]


def test_a_query_with_two_columns_of_one_name_is_refused_since_a_row_would_lose_one(vendors: Path) -> None:
    with pytest.raises(JobError, match="two columns are called 'id'"):
        tool(f"find=duckdb:{vendors}:select a.id, b.id from vendors a join vendors b on a.name = b.name")
    renamed = tool(f"find=duckdb:{vendors}:select a.id, b.id as other from vendors a join vendors b on a.id + 1 = b.id")
    assert renamed.run is not None and {"id": 3, "other": 4} in renamed.run({})["rows"]


def test_a_query_without_parameters_gives_at_most_twenty_rows(vendors: Path) -> None:
    found = tool(f"all=duckdb:{vendors}:select id from vendors order by id")
    assert found.run is not None
    told = found.run({})
    assert told["more_rows"] is True and [row["id"] for row in told["rows"]] == list(range(20))


@pytest.mark.parametrize(
    "sql",
    [
        "delete from vendors",
        "select 1; drop table vendors",
        "attach 'other.duckdb'",
        "copy vendors to 'out.csv'",
        "select * from read_text('/etc/hostname')",
        "select * from 'pyproject.toml'",
        "select nothing from vendors",
        "set enable_external_access = true",
        "install httpfs",
    ],
)
def test_a_query_reads_its_own_file_and_nothing_else(vendors: Path, sql: str) -> None:
    with pytest.raises(JobError, match=r"one SELECT|cannot be run|no query"):
        tool(f"find=duckdb:{vendors}:{sql}")


def test_a_query_that_takes_too_long_is_ended(vendors: Path) -> None:
    box = load_tools(
        [f"slow=duckdb:{vendors}:select sum(a.i * b.i) from range(1000000) a(i), range(1000000) b(i)"],
        timeout=0.1,
        most_steps=1,
    )
    assert box is not None
    run = box.tools["slow"].run
    assert run is not None
    with pytest.raises(duckdb.InterruptException):
        run({})
