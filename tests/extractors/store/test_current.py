"""Current outcomes: the latest commit of a record wins."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from extractors.store.commits import KEYS
from extractors.store.current import current_outcomes


def batch(*rows: tuple[str, int, str, int, bool, str]) -> pa.RecordBatch:
    names = KEYS.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=KEYS)


def test_the_outcome_of_the_highest_sequence_is_current_in_whatever_order_the_keys_come() -> None:
    one, two = "1" * 32, "2" * 32
    keys = [
        batch(("a", 0, two, 7, True, "/rows/7"), ("b", 0, one, 7, False, "/failures/7")),
        batch(("a", 0, one, 3, False, "/failures/3"), ("a", 1, one, 3, True, "/rows/3")),
    ]
    with duckdb.connect() as con:
        found = current_outcomes(con, keys, schema="main")
        rows = con.sql(f"select hex(fingerprint), part from {found.current}").fetchall()
        assert len(con.sql(f"from {found.outcomes}").fetchall()) == 4
    assert sorted((digits[0], found.path(part), "failure" if part % 2 else "row") for digits, part in rows) == [
        ("1", "/failures/7", "failure"),
        ("1", "/rows/3", "row"),
        ("2", "/rows/7", "row"),
    ]


def test_no_commits_are_no_outcomes() -> None:
    with duckdb.connect() as con:
        found = current_outcomes(con, [], schema="main")
        assert con.sql(f"from {found.current}").fetchall() == []
