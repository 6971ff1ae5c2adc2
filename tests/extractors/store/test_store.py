"""The store: what a commit makes count, what is refused, and what happens to damage."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extractors.errors import JobError, OutputError
from extractors.qwen.requests import ChatReply
from extractors.store import files
from extractors.store.commits import KEYS, load_commits
from extractors.store.journal import entry_result, result_entry
from extractors.store.store import read_keys_of
from schemas.outcomes import Extracted, Failed
from schemas.usage import Usage
from tests.extractors.store.builders import RECIPE, USAGE, call, failure, open_store, put, row


def test_a_commit_says_what_its_parts_hold(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        commit = put(store, "c1", [row(2), failure(1), row(3, merged=True)], [call(1), call(2)])
        assert store.commits() == [commit]
    assert (commit.chunk, commit.sequence, commit.run_id, commit.committed_at) == (
        "c1", 1, "run-1", "2026-01-02T03:04:05.000+00:00",
    )  # fmt: skip
    assert (commit.records, commit.rows, commit.failures, commit.merged) == (3, 2, 1, 1)
    assert commit.usage == USAGE + USAGE, "a merged record was not paid for"
    assert [(part.kind, part.path, part.rows) for part in commit.parts] == [
        ("rows", "rows/part-c1.parquet", 2),
        ("failures", "failures/part-c1.parquet", 1),
        ("calls", "calls/part-c1.parquet", 2),
    ]
    for part in commit.parts:
        assert files.differs(store.folder / part.path, size=part.bytes, sha256_hex=part.sha256) is None
    with open_store(tmp_path) as again:
        assert again.commits() == [commit]


def test_a_kind_without_records_has_no_part(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        commit = put(store, "c1", [row(1)])
    assert [part.kind for part in commit.parts] == ["rows"]
    assert not list((store.folder / "failures").iterdir())


def test_sequences_go_on_from_one_run_to_the_next(tmp_path: Path) -> None:
    for number in range(3):
        with open_store(tmp_path) as store:
            assert put(store, f"c{number}", [row(number)]).sequence == number + 1


def test_a_cost_that_is_not_known_stays_unknown(tmp_path: Path) -> None:
    one = row(1)
    assert isinstance(one.outcome, Extracted)
    free = dataclasses.replace(one, outcome=dataclasses.replace(one.outcome, usage=Usage(1, cost=None)))
    with open_store(tmp_path) as store:
        assert put(store, "c1", [free, row(2)]).usage.cost is None
    with open_store(tmp_path) as store:
        assert store.commits()[0].usage.cost is None


def test_the_same_items_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    items = [row(1), row(2), row(2, occurrence=1), failure(3), failure(4)]
    found = []
    for name, order in (("one", items), ("two", items[::-1])):
        with open_store(tmp_path / name) as store:
            commit = store.commit("c", order, [], run_id=name, at=datetime.now(UTC))
        found.append([(part.kind, part.sha256) for part in commit.parts])
    assert found[0] == found[1]


def test_a_chunk_done_once_more_leaves_what_was_committed_as_it_was(tmp_path: Path) -> None:
    """A retry of a chunk in which all had failed has the same records, so the same name."""
    with open_store(tmp_path) as store:
        first = put(store, "c", [failure(1), failure(2)], [call(1)])
        second = put(store, "c", [row(1), row(2)], [call(2)])
        assert (first.chunk, second.chunk) == ("c", "c-2")
        assert store.commits() == [first, second]
    with open_store(tmp_path) as store:
        assert store.commits() == [first, second]
        assert put(store, "c", [row(1)]).chunk == "c-3"


def test_an_outcome_is_read_back_as_it_was(tmp_path: Path) -> None:
    good, bad = row(1), failure(2)
    with open_store(tmp_path) as store:
        commit = put(store, "c", [good, bad])
        rows, failures = (str(store.folder / part.path) for part in commit.parts)
        found, failed = (
            store.read_outcome(rows, good.record.fingerprint),
            store.read_outcome(failures, bad.record.fingerprint),
        )
        with pytest.raises(KeyError, match="has no ffff"):
            store.read_outcome(rows, "ffff")
    assert isinstance(found, Extracted) and isinstance(good.outcome, Extracted)
    for name in ("value", "evidence", "model", "corrected", "nulled", "repaired"):
        assert getattr(found, name) == getattr(good.outcome, name), name
    assert (found.usage.input_tokens, found.usage.cost, len(found.attempts)) == (100, Decimal("0.0025"), 1)
    assert isinstance(failed, Failed) and isinstance(bad.outcome, Failed)
    assert dataclasses.replace(failed, usage=bad.outcome.usage) == bad.outcome


def test_keys_list_what_was_decided_in_which_part(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "c", [failure(1), row(2, occurrence=3)])
        [batch] = store.keys()
    assert batch.schema == KEYS
    assert [(r["record_id"], r["occurrence"], r["is_row"], Path(r["part"]).parent.name) for r in batch.to_pylist()] == [
        ("r0002", 3, True, "rows"), ("r0001", 0, False, "failures"),
    ]  # fmt: skip
    assert [one.to_pylist() for one in read_keys_of(tmp_path, name="thing", recipe_id=RECIPE)] == [batch.to_pylist()]


# What is refused ------------------------------------------------------------------------------------


def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(OutputError, match=r"not Quarry's \(it holds thesis.doc\); give another --out"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_folder_in_which_a_run_was_killed_at_its_very_start_is_used(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("pid 1")
    files.temporary(tmp_path / "quarry.json").write_text("{")
    open_store(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "quarry.json", "runs", "thing"]


def test_a_folder_of_a_newer_quarry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "quarry.json").write_text('{"format": 2}')
    with pytest.raises(OutputError, match="newer Quarry"):
        open_store(tmp_path)


@pytest.mark.parametrize("marker", ["{", "[]", '{"format": "x"}'])
def test_a_marker_that_cannot_be_read_is_refused(tmp_path: Path, marker: str) -> None:
    (tmp_path / "quarry.json").write_text(marker)
    with pytest.raises(OutputError, match=r"quarry.json cannot be read"):
        open_store(tmp_path)


def test_an_output_that_is_a_file_or_below_one_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file; --out must name a folder"):
        open_store(tmp_path / "file")
    with pytest.raises(OutputError, match=r"cannot write .*file/sub"):
        open_store(tmp_path / "file" / "sub")


def test_a_folder_whose_name_a_database_cannot_bear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"what\?: .* give another --out"):
        open_store(tmp_path / "what?")
    assert not list(tmp_path.iterdir())


def test_another_recipe_with_the_same_short_id_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(OutputError, match=r"belongs to recipe abab.* not abababab0"):
        open_store(tmp_path, recipe_id="ab" * 4 + "0" * 56)
    with open_store(tmp_path) as store:
        assert json.loads((store.folder / "recipe.json").read_text()) == {"id": RECIPE, "prompt": "…"}


@pytest.mark.parametrize("name", ["runs", ".lock", "a/b", ""])
def test_a_schema_must_have_a_name_that_is_free(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match="rename its class"):
        open_store(tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_a_refused_recipe_gives_the_lock_back(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(OutputError):
        open_store(tmp_path, recipe_id="ab" * 4 + "0" * 56)
    open_store(tmp_path).close()


# Damage ---------------------------------------------------------------------------------------------


def flip(path: Path, offset: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["rows", "failures", "calls"])
def test_a_damaged_part_is_named_and_its_chunk_is_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with open_store(tmp_path) as store:
        put(store, "bad", [row(1), failure(2)], [call(1)])
        good = put(store, "good", [row(3)])
    damaged = store.folder / kind / "part-bad.parquet"
    flip(damaged)
    with open_store(tmp_path) as store:
        assert store.commits() == [good]
        assert f"{damaged} does not match the checksum" in caplog.text
        assert "the 2 records of chunk bad are done again" in caplog.text
        aside = {str(path.relative_to(store.folder / "quarantine")) for path in store.folder.glob("quarantine/*/*")}
        assert aside == {
            "commits/bad.json", "rows/part-bad.parquet", "failures/part-bad.parquet", "calls/part-bad.parquet",
        }  # fmt: skip
        assert put(store, "bad", [row(1), failure(2)]).chunk == "bad"
        assert [one.chunk for one in store.commits()] == ["good", "bad"]


def test_what_was_set_aside_is_never_overwritten(tmp_path: Path) -> None:
    for _ in range(3):
        with open_store(tmp_path) as store:
            put(store, "c", [row(1)])
        flip(store.folder / "rows" / "part-c.parquet")
    with open_store(tmp_path) as store:
        assert store.commits() == []
        assert len(list((store.folder / "quarantine" / "rows").iterdir())) == 3


def test_a_missing_or_shortened_part_is_found_by_its_size_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(tmp_path) as store:
        for chunk in ("gone", "short", "fine"):
            put(store, chunk, [row(1)])
    (store.folder / "rows" / "part-gone.parquet").unlink()
    short = store.folder / "rows" / "part-short.parquet"
    short.write_bytes(short.read_bytes()[:-1])
    assert [one.chunk for one in load_commits(store.folder, verify="size")] == ["fine"]
    assert "part-gone.parquet is missing" in caplog.text
    assert "part-short.parquet has" in caplog.text


def test_any_flipped_byte_of_a_commit_is_noticed(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "c", [row(1)])
    path = store.folder / "commits" / "c.json"
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert load_commits(store.folder, verify="size") == [], f"byte {place} of {data!r}"
    path.write_bytes(data)
    assert len(load_commits(store.folder, verify="full")) == 1


def test_reading_sets_nothing_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_store(tmp_path) as store:
        put(store, "c", [row(1)])
    flip(store.folder / "rows" / "part-c.parquet")
    assert not list(read_keys_of(tmp_path, name="thing", recipe_id=RECIPE))
    assert (store.folder / "rows" / "part-c.parquet").exists()
    assert caplog.records[0].levelno == logging.WARNING


def test_what_a_killed_run_was_writing_is_cleaned_up(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "c", [row(1)])
    leftovers = [
        files.temporary(tmp_path / "quarry.json"),
        files.temporary(tmp_path / "catalog.duckdb"),
        files.temporary(tmp_path / "runs" / "r.json"),
        files.temporary(store.folder / "recipe.json"),
        files.temporary(store.folder / "rows" / "part-d.parquet"),
        files.temporary(store.folder / "commits" / "d.json"),
    ]
    for path in leftovers:
        path.write_bytes(b"half")
    with open_store(tmp_path) as store:
        assert len(store.commits()) == 1
        assert not [path for path in leftovers if path.exists()]


# Journals and runs ------------------------------------------------------------------------------------


def answer(text: str) -> ChatReply:
    return ChatReply(text, "stop", USAGE, "qwen-plus")


def test_an_interrupted_run_finds_its_answers_again(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        journal = store.journal("c")
        journal.append("q", result_entry(answer("paid for")))
        journal.close()
    with open_store(tmp_path) as store:
        replay = store.replay()
        assert entry_result(replay.get("q") or {}) == answer("paid for")
        replay.discard()
        assert not len(store.replay())


def test_answers_that_became_outcomes_are_not_replayed(tmp_path: Path) -> None:
    """A stopped run commits a part of its chunk and keeps the journal; a retry of a failure must ask anew."""
    with open_store(tmp_path) as store:
        put(store, "before", [row(9)], [call(9)])
        journal = store.journal("c")
        for number in (1, 2):
            journal.append(call(number).request, result_entry(answer(str(number))))
        journal.close()
        put(store, "c-part", [failure(1)], [call(1)])
    with open_store(tmp_path) as store:
        replay = store.replay()
        assert replay.after == 1, "commits before the journal need not be looked at"
        assert replay.get(call(1).request) is None
        assert entry_result(replay.get(call(2).request) or {}) == answer("2")


def test_a_runs_report_is_kept(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.write_run("r1", {"rows": 3})
    assert orjson.loads((tmp_path / "runs" / "r1.json").read_bytes()) == {"rows": 3}


def test_leaving_the_store_deletes_its_scratch_files(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        (store.scratch / "plan.duckdb").write_bytes(b"")
    assert not store.scratch.exists()


# A full disk ------------------------------------------------------------------------------------------

FULL = """
import resource, sys
from pathlib import Path
from extractors.errors import OutputError
from tests.extractors.store.builders import open_store, put, row
store = open_store(Path(sys.argv[1]))
put(store, "first", [row(1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    put(store, "second", [row(2)])
except OutputError as error:
    print(error)
"""


def test_a_full_disk_is_named_with_what_is_free_and_nothing_half_is_left(tmp_path: Path) -> None:
    """The kernel's limit on a file's size stands for the disk's: the write stops in the middle."""
    out = tmp_path / "out"
    said = subprocess.run([sys.executable, "-c", FULL, str(out)], capture_output=True, text=True, cwd=Path.cwd())
    assert "no space to write" in said.stdout, said.stderr
    assert "part-second.parquet" in said.stdout
    assert "MiB free" in said.stdout
    assert not list(out.rglob(".tmp-*"))
    with open_store(out) as store:
        assert [one.chunk for one in store.commits()] == ["first"]
        assert pq.read_table(store.folder / "rows" / "part-first.parquet").num_rows == 1
        assert put(store, "second", [row(2)]).sequence == 2


def test_kept_columns_may_differ_between_runs(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1)])
    with open_store(tmp_path, kept=pa.schema([("price", pa.int64())])) as store:
        commit = put(store, "b", [row(2, kept={"price": 3})])
        assert commit.kept == ("price: int64",)
        assert len(store.commits()) == 2


def test_a_record_without_its_kept_value_has_a_null(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        put(store, "a", [row(1, kept={})])
        assert pq.read_table(store.folder / "rows" / "part-a.parquet").column("sku").to_pylist() == [None]
