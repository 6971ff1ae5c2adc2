"""Planning: what is skipped, what is grouped, how it is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.errors import SourceError
from extractors.sources import ledger_source, open_dataframe, open_source
from extractors.store.commits import KEYS
from extractors.store.plan import Chunk, Group, Plan, PlanCounts, RetrySelection, chunk_name
from schemas.job import ExtractionJob
from schemas.records import Record, content_fingerprint

Row = tuple[str, str | None]
Key = tuple[str, int, str, int, bool]


def plan(
    rows: list[Row], scratch: Path, keys: Iterable[Key] = (), *, size: int = 10, retry: RetrySelection | None = None
) -> Plan:
    table = pa.table({"id": [row[0] for row in rows], "text": pa.array([row[1] for row in rows], pa.string())})
    source = open_dataframe(table, id="id", text="text", keep=["id:kept_id"])
    return Plan.make(source, [committed(keys)], scratch=scratch, chunk_size=size, retry=retry)


def committed(keys: Iterable[Key]) -> pa.RecordBatch:
    """(record_id, occurrence, text, sequence, is_row) as the store tells them; the part is named by the last two."""
    rows = [
        (rid, n, content_fingerprint(text), sequence, is_row, f"/{'rows' if is_row else 'failures'}/{sequence}")
        for rid, n, text, sequence, is_row in keys
    ]
    return pa.RecordBatch.from_pylist([dict(zip(KEYS.names, row, strict=True)) for row in rows], schema=KEYS)


def done(rows: list[Row], scratch: Path, keys: Iterable[Key] = (), **options: Any) -> tuple[PlanCounts, list[Chunk]]:
    with plan(rows, scratch, keys, **options) as made:
        return made.counts, list(made.chunks())


def told(chunks: list[Chunk]) -> list[tuple[list[tuple[str, int]], str | None]]:
    return [
        ([(r.record_id, r.occurrence) for r in group.records], group.donor)
        for chunk in chunks
        for group in chunk.groups
    ]


def test_records_come_in_source_order_with_their_kept_columns(tmp_path: Path) -> None:
    counts, chunks = done([("b", "two"), ("a", "one")], tmp_path)
    [chunk] = chunks
    assert [group.records[0] for group in chunk.groups] == [
        Record("b", "two", content_fingerprint("two"), 0, {"kept_id": "b"}),
        Record("a", "one", content_fingerprint("one"), 0, {"kept_id": "a"}),
    ]
    assert (counts.records, counts.new, counts.distinct, counts.text_characters) == (2, 2, 2, 6)


def test_a_record_is_skipped_when_its_current_outcome_has_its_fingerprint(tmp_path: Path) -> None:
    rows: list[Row] = [("row", "a"), ("failed", "b"), ("changed", "new"), ("fresh", "c")]
    keys: list[Key] = [
        ("row", 0, "a", 1, True),
        ("failed", 0, "b", 1, False),
        ("changed", 0, "old", 1, True),
        ("gone", 0, "x", 1, True),
    ]
    counts, chunks = done(rows, tmp_path, keys)
    assert told(chunks) == [([("changed", 0)], None), ([("fresh", 0)], None)]
    assert (counts.skipped_rows, counts.skipped_failures, counts.new, counts.removed) == (1, 1, 2, 1)


def test_a_text_that_went_back_to_an_earlier_one_is_planned_with_a_donor(tmp_path: Path) -> None:
    keys: list[Key] = [("a", 0, "first", 1, True), ("a", 0, "second", 2, True)]
    counts, chunks = done([("a", "first")], tmp_path, keys)
    assert told(chunks) == [([("a", 0)], "/rows/1")]
    assert (counts.reused, counts.distinct, counts.merged, counts.text_characters) == (1, 0, 1, 0)


def test_a_donor_is_a_row_rather_than_a_failure_and_the_latest_of_its_kind(tmp_path: Path) -> None:
    keys: list[Key] = [("x", 0, "t", 1, True), ("y", 0, "t", 5, True), ("z", 0, "t", 9, False), ("w", 0, "u", 3, False)]
    _, chunks = done([("n", "t"), ("m", "u")], tmp_path, keys)
    assert told(chunks) == [([("n", 0)], "/rows/5"), ([("m", 0)], "/failures/3")]


def test_identical_texts_are_one_group_at_the_place_of_the_first(tmp_path: Path) -> None:
    counts, chunks = done([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "x")], tmp_path, size=1)
    assert told(chunks) == [([("a", 0), ("c", 0), ("e", 0)], None), ([("b", 0), ("d", 0)], None)]
    assert chunks[0].groups[0].records[2].kept == {"kept_id": "e"}
    assert (counts.new, counts.distinct, counts.merged, len(chunks)) == (5, 2, 3, 2)


def test_a_great_many_identical_records_stay_in_one_chunk(tmp_path: Path) -> None:
    rows: list[Row] = [(f"r{n}", "same" if n % 2 else f"own {n}") for n in range(40_000)]
    counts, chunks = done(rows, tmp_path, size=500)
    assert max(chunk.size for chunk in chunks) == 20_000 + 499
    assert {len(chunk.groups) for chunk in chunks[:-1]} == {500}
    assert sum(chunk.size for chunk in chunks) == counts.new == 40_000


def test_an_id_that_occurs_again_is_another_occurrence(tmp_path: Path) -> None:
    rows: list[Row] = [("x", "one"), ("y", "two"), ("x", "three"), ("x", "one")]
    counts, chunks = done(rows, tmp_path, [("x", 1, "three", 1, True)])
    assert told(chunks) == [([("x", 0), ("x", 2)], None), ([("y", 0)], None)]
    assert (counts.duplicate_ids, counts.skipped_rows) == (2, 1)


def test_bad_input_is_planned_as_a_problem_and_not_counted_as_asked(tmp_path: Path) -> None:
    counts, chunks = done([("a", None), ("b", "x"), ("c", None), ("d", " ")], tmp_path)
    first = chunks[0].groups[0]
    assert [(r.record_id, r.text, r.problem) for r in first.records] == [
        ("a", "", "the text is null"),
        ("c", "", "the text is null"),
    ]
    assert (counts.new, counts.distinct, counts.unaskable, counts.problems, counts.merged) == (4, 1, 2, 3, 1)


def test_chunks_that_were_not_committed_come_out_the_same_after_a_crash(tmp_path: Path) -> None:
    rows: list[Row] = [(f"r{n}", f"text {n % 37}") for n in range(100)]
    _, before = done(rows, tmp_path, size=5)
    keys: list[Key] = [
        (r.record_id, r.occurrence, r.text, number, True)
        for number, chunk in enumerate(before)
        if number in (1, 4)
        for group in chunk.groups
        for r in group.records
    ]
    _, after = done(rows, tmp_path, keys, size=5)
    assert after == [chunk for number, chunk in enumerate(before) if number not in (1, 4)]


def test_a_chunk_is_named_by_its_records_in_whatever_order(tmp_path: Path) -> None:
    one, two = Record("a", "x", "f" * 32), Record("b", "y", "e" * 32, 1)
    assert chunk_name([one, two]) == chunk_name([two, one]) != chunk_name([one])
    assert len(chunk_name([one])) == 16


def test_the_first_records_of_a_chunk_are_a_chunk_of_their_own() -> None:
    records = [Record(str(n), "x", "f" * 32) for n in range(4)]
    chunk = Chunk.of([Group(tuple(records[:3]), "/donor"), Group((records[3],))])
    assert chunk.first(2) == Chunk.of([Group(tuple(records[:2]), "/donor")])
    assert chunk.first(9) == chunk
    assert chunk.first(0).size == 0


def test_a_sample_is_of_distinct_new_texts_and_does_not_depend_on_the_source_order(tmp_path: Path) -> None:
    rows: list[Row] = [(f"r{n}", f"text {n % 50}") for n in range(200)]
    with plan(rows, tmp_path, [("r3", 0, "text 3", 1, True)]) as made, plan(rows[::-1], tmp_path) as other:
        sample = made.sample(100)
        assert set(sample) == {text for _, text in rows} - {"text 3"}
        assert sample == sorted(sample, key=content_fingerprint)
        assert made.sample(7) == sample[:7]
        assert [text for text in other.sample(100) if text != "text 3"] == sample


def test_a_retry_plans_the_selected_open_failures_only(tmp_path: Path) -> None:
    rows: list[Row] = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]
    keys: list[Key] = [
        ("a", 0, "1", 1, False),
        ("b", 0, "2", 1, False),
        ("c", 0, "3", 1, False),
        ("c", 0, "3", 2, True),
        ("d", 0, "4", 1, True),
    ]
    retry = RetrySelection.of(
        pa.table({"record_id": ["a", "c", "d", "e"], "occurrence": pa.array([0] * 4, pa.int32())})
    )
    counts, chunks = done(rows, tmp_path, keys, retry=retry)
    assert told(chunks) == [([("a", 0)], None)]
    assert (counts.records, counts.new, counts.skipped_failures) == (1, 1, 0)


def test_a_retry_from_the_ledger_keeps_the_occurrences_it_was_given(tmp_path: Path) -> None:
    failures = pa.table(
        {
            "record_id": ["a", "a"],
            "occurrence": pa.array([2, 5], pa.int32()),
            "fingerprint": [content_fingerprint("x"), content_fingerprint("y")],
            "reason": ["invalid"] * 2,
            "message": ["m"] * 2,
            "text": ["x", "y"],
        }
    )
    keys = committed([("a", 2, "x", 1, False), ("a", 5, "y", 1, False), ("other", 0, "y", 1, True)])
    with Plan.make(
        ledger_source(failures), [keys], scratch=tmp_path, chunk_size=5, retry=RetrySelection.of(failures)
    ) as made:
        assert told(list(made.chunks())) == [([("a", 2)], None), ([("a", 5)], "/rows/1")]
        assert made.counts.duplicate_ids == 0


def test_the_scratch_files_go_with_the_plan_and_those_of_killed_runs_with_the_next(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, alive = tmp_path / f"plan-{process.pid}-x", tmp_path / f"plan-{os.getpid()}-x"
    dead.mkdir()
    alive.mkdir()
    with plan([("a", "x")], tmp_path):
        assert not dead.exists()
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == [alive]


def test_a_source_that_breaks_while_it_is_read_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "y.json"
    path.write_text('[{"text": "a"}]')
    opened = open_source(ExtractionJob.model_validate({"source": str(path), "schema": "x", "out": "o"}))
    path.write_text('[{"text": "a"}, {"te')
    with pytest.raises(SourceError, match="broken near character"):
        Plan.make(opened, [], scratch=tmp_path / "scratch", chunk_size=5)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_source_may_change_after_it_was_staged(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "before"}\n')
    source = open_source(ExtractionJob.model_validate({"source": str(path), "schema": "x", "out": "o"}))
    with Plan.make(source, [], scratch=tmp_path / "scratch", chunk_size=5) as made:
        path.write_text('{"text": "after"}\n')
        assert [group.records[0].text for chunk in made.chunks() for group in chunk.groups] == ["before"]


def test_large_texts_are_handed_out_in_order_too(tmp_path: Path) -> None:
    rows: list[Row] = [(f"r{n}", f"{n}" + "x" * 3_000_000) for n in range(12)]
    _, chunks = done(rows, tmp_path, size=5)
    assert [group.records[0].text for chunk in chunks for group in chunk.groups] == [text for _, text in rows]


def test_texts_that_outgrow_the_first_memory_limit_are_read_again_under_a_larger_one(tmp_path: Path) -> None:
    rows: list[Row] = [(f"r{n}", f"{n} word " * 1_500_000) for n in range(12)]
    _, chunks = done(rows, tmp_path, size=5)
    assert [group.records[0].text for chunk in chunks for group in chunk.groups] == [text for _, text in rows]
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_needs_more_memory_than_the_least_is_read_as_often_as_one_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extractors.store.plan._READING_MEMORY", ("1MB", "96MB"))
    rows: list[Row] = [(f"r{n}", f"text {n}") for n in range(20_000)]
    with plan(rows, tmp_path, size=100) as made:
        first = [group.records[0].record_id for chunk in made.chunks() for group in chunk.groups]
        again = [group.records[0].record_id for chunk in made.chunks() for group in chunk.groups]
    assert first == again == [record_id for record_id, _ in rows]


_ids, _texts = st.sampled_from("abcdef"), st.sampled_from(["t1", "t2", "t3", "t4", "t5", "t6", "t7", None, " "])


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(_ids, _texts), max_size=30),
    keys=st.lists(
        st.tuples(_ids, st.integers(0, 3), st.sampled_from(["t1", "t2", "t3", "t9"]), st.booleans()), max_size=20
    ),
    size=st.integers(1, 4),
)
def test_every_record_is_skipped_or_in_exactly_one_group(
    tmp_path_factory: Any, rows: list[Row], keys: list[tuple[str, int, str, bool]], size: int
) -> None:
    history: list[Key] = [(rid, n, text, sequence, is_row) for sequence, (rid, n, text, is_row) in enumerate(keys, 1)]
    counts, chunks = done(rows, tmp_path_factory.mktemp("scratch"), history, size=size)
    current = {(rid, n): (text, is_row) for rid, n, text, _, is_row in history}
    seen: dict[str, int] = {}
    expected = []
    for rid, text in rows:
        identity = (rid, seen.setdefault(rid, 0))
        seen[rid] += 1
        if text is None or current.get(identity, (None, None))[0] != text:
            expected.append(identity)
    groups = [group for chunk in chunks for group in chunk.groups]
    planned = [(r.record_id, r.occurrence) for group in groups for r in group.records]
    assert sorted(planned) == sorted(expected)
    assert len(set(planned)) == len(planned) == counts.new
    assert all(len({r.fingerprint for r in group.records}) == 1 for group in groups)
    assert len({group.records[0].fingerprint for group in groups}) == len(groups)
    assert all(len(chunk.groups) == size for chunk in chunks[:-1])
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)
    assert counts.records == len(rows) == counts.skipped_rows + counts.skipped_failures + counts.new
    assert counts.new == counts.distinct + counts.unaskable + counts.merged
    assert counts.reused == sum(group.donor is not None for group in groups)
    assert counts.duplicate_ids == len(rows) - len(seen)
    assert counts.removed == len(set(current) - {(rid, n) for rid in seen for n in range(seen[rid])})
    answered = {
        text: {f"/{'rows' if r else 'failures'}/{s}" for _, _, text_, s, r in history if text_ == text}
        for text in ("t1", "t2", "t3")
    }
    for group in groups:
        assert (group.donor is None) == (group.records[0].text not in {t for t, parts in answered.items() if parts})
        assert group.donor is None or group.donor in answered[group.records[0].text]


FULL = """
import random, resource, sys
from pathlib import Path
import pyarrow as pa
from extractors.errors import OutputError
from extractors.sources import open_dataframe
from extractors.store.plan import Plan
noise = random.Random(1)
table = pa.table({"text": [noise.randbytes(200).hex() for _ in range(40_000)]})
source = open_dataframe(table, id=None, text="text", keep=[])
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
try:
    Plan.make(source, [], scratch=Path(sys.argv[1]), chunk_size=10)
except OutputError as error:
    print(error)
"""


def test_a_disk_that_is_full_while_the_source_is_read_is_the_outputs_trouble(tmp_path: Path) -> None:
    """The kernel's limit on a file's size stands for the disk's."""
    said = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=Path.cwd())
    assert "planning cannot write to" in said.stdout, said.stderr
    assert "make room" in said.stdout
    assert not list(tmp_path.iterdir())
