"""An output on an object store: a real S3 server on loopback, and Arrow's own client."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from extractors.errors import JobError, OutputBusy
from extractors.evaluate.evaluation import evaluate
from extractors.qwen.requests import ChatReply
from extractors.reporting import write_report
from extractors.review import acts
from extractors.review.queue import queues
from extractors.store import catalog, files, segments
from extractors.store.journal import Replay, result_entry
from extractors.store.object_lock import ObjectLock
from extractors.store.objects import ObjectPath
from flows.cli.app import app
from schemas.usage import Usage
from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen
from tests.fakes.s3 import running_s3


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server with the empty bucket ``quarry``."""
    with running_s3("quarry") as address:
        yield address


@pytest.fixture(autouse=True)
def _environment(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def at(address: str) -> ObjectPath:
    path = files.place(address)
    assert isinstance(path, ObjectPath)
    return path


def test_a_run_leaves_the_same_table_as_on_a_disk(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(25))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen)
        report = run_things(source, "s3://quarry/same", qwen)  # type: ignore[arg-type]
    columns = ["record_id", "fingerprint", "name", "price"]
    found = catalog.current_rows("s3://quarry/same").select(columns)
    assert found == catalog.current_rows(tmp_path / "out").select(columns)
    assert (report.rows, report.chunks) == (25, 3)
    assert files.listed(at("s3://quarry/same/Thing") / f"recipe={report.recipe}" / "journal", "*") == []
    assert not at("s3://quarry/same/.lock").exists()


def test_a_second_run_asks_only_what_is_new_and_copies_what_is_identical(tmp_path: Path) -> None:
    with FakeQwen(thing_answer) as qwen:
        out = "s3://quarry/again"
        run_things(write_things(tmp_path / "things.jsonl", range(12)), out, qwen)  # type: ignore[arg-type]
        (tmp_path / "more.jsonl").write_text(
            (tmp_path / "things.jsonl").read_text()
            + (tmp_path / "things.jsonl").read_text().splitlines()[3].replace("r00003", "twin")
            + "\n"
        )
        report = run_things(tmp_path / "more.jsonl", out, qwen)  # type: ignore[arg-type]
        assert qwen.count == 12
    assert (report.skipped, report.rows, report.merged) == (12, 1, 1)
    [row] = catalog.query(out, "select name from Thing where record_id = 'twin'").to_pylist()
    assert row["name"] == "thing-0000003"


def test_what_people_do_with_an_output_works_or_is_refused_in_a_sentence(tmp_path: Path) -> None:
    out = "s3://quarry/people"
    source = write_things(tmp_path / "things.jsonl", range(4))
    with FakeQwen(lambda body: "no" if "thing-0000001" in str(body) else thing_answer(body)) as qwen:
        run_things(source, out, qwen)  # type: ignore[arg-type]
    with pytest.raises(JobError, match="-o FILE"):
        write_report(out)
    assert write_report(out, tmp_path / "report.html").sample.of_rows == 3
    [queue] = queues(files.place(out))
    [entry] = [one for one in queue.entries() if one.kind == "failure"]
    target = acts.Target("failure", entry.record_id, entry.occurrence, entry.sequence)
    acts.accept(queue, target, {"name": "by hand", "price": None})
    assert queue.record("row", "r00001", 0)["value"]["name"] == "by hand"
    with pytest.raises(JobError, match="on a disk"):
        evaluate(source, job_for(source, out, "http://127.0.0.1:9"))  # type: ignore[arg-type]
    refused = CliRunner().invoke(app, ["batch", "list", out])
    assert isinstance(refused.exception, JobError) and "has none" in str(refused.exception)


def test_the_catalog_is_made_where_the_job_says(tmp_path: Path) -> None:
    place = tmp_path / "views" / "things.duckdb"
    with FakeQwen(thing_answer) as qwen:
        source = write_things(tmp_path / "things.jsonl", range(4))
        run_things(source, "s3://quarry/views", qwen, catalog=str(place))  # type: ignore[arg-type]
    with duckdb.connect(str(place), read_only=True) as con:
        from extractors.store.objects import known_to_duckdb

        known_to_duckdb(con, at("s3://quarry/views"))
        assert con.sql("select count(*), sum(price) from Thing").fetchall()[0][0] == 4
        assert con.sql("select rows from runs").fetchall() == [(4,)]


def test_a_killed_run_leaves_its_answers_on_this_machine_and_soon_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SECONDS", 0.05)
    path = at("s3://quarry/killed/journal/c.jsonl")
    journal = segments.journal_at(path, after=3)
    reply = ChatReply("{}", "stop", Usage(1, 10, 2), "qwen-plus", 0.1)
    journal.append("a1", result_entry(reply))
    spooled = files.listed(segments.spool_of(path.parent), "*.jsonl")
    assert Replay(spooled).get("a1") is not None
    journal.close()  # puts what the timer has not put yet
    [segment] = files.listed(path.parent, "*.jsonl")
    replay = Replay([segment])
    assert replay.after == 3 and replay.get("a1") is not None
    journal.discard()
    assert segments.journals_in(path.parent) == []


def test_two_runs_cannot_write_at_once_and_a_dead_ones_lease_is_taken() -> None:
    out = at("s3://quarry/locked")
    first = ObjectLock(out)
    first.take()
    with pytest.raises(OutputBusy, match=f"pid {os.getpid()}"):
        ObjectLock(out).take()
    first.release()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    files.write_whole(
        out / ".lock",
        (b'{"token":"t","pid":%d,"host":"%b"}') % (int(dead.stdout), os.uname().nodename.encode()),
    )
    again = ObjectLock(out)
    again.take()
    again.check()
    again.release()


def test_a_commit_is_refused_once_another_run_has_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    from extractors.store import object_lock

    monkeypatch.setattr(object_lock, "RENEW_SECONDS", 0.05)
    out = at("s3://quarry/stolen")
    mine = ObjectLock(out)
    mine.take()
    files.write_whole(out / ".lock", b'{"token":"theirs"}')
    assert mine._renewing is not None
    mine._renewing.join(timeout=10)
    with pytest.raises(OutputBusy, match="taken over"):
        mine.check()
    mine.release()
    assert (out / ".lock").exists()


def test_the_endpoint_may_be_an_option_of_the_job(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with urllib.request.urlopen(urllib.request.Request(f"{s3}/other", method="PUT"), timeout=30):
        pass
    with FakeQwen(thing_answer) as qwen:
        source = write_things(tmp_path / "things.jsonl", range(2))
        report = run_things(source, "s3://other/x", qwen, s3_endpoint=s3)  # type: ignore[arg-type]
    assert report.rows == 2


def test_batches_are_for_disks(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    with pytest.raises(JobError, match="object store"):
        run_things(source, "s3://quarry/batch", "http://127.0.0.1:9/v1", lane="batch")  # type: ignore[arg-type]
    assert job_for(source, tmp_path, "http://127.0.0.1:9/v1").s3_endpoint is None
