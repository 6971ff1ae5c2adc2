"""The promises, over real files and real HTTP: one outcome each, nothing paid twice, ceilings that hold."""

from __future__ import annotations

import json
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extractors import extract
from extractors.calibration import Calibration
from extractors.endpoint import Settings
from extractors.errors import JobError, KeyRejected, OutputBusy, ServerUnreachable
from extractors.pipeline import Control, run
from extractors.retrying import retry_jobs
from extractors.store.catalog import current_rows, open_failures, query
from extractors.store.journal import Journal
from tests.end_to_end.things import Thing, job_for, run_things, write_things
from tests.fakes.answers import record_of, thing_answer, thing_text
from tests.fakes.qwen import FakeQwen, Fault, Faults, Reply


def names(out: Path) -> list[str]:
    return sorted(current_rows(out).column("name").to_pylist())


def test_every_record_becomes_a_typed_row(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(35))
    with FakeQwen(thing_answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
    assert (report.records, report.rows, report.failures, report.skipped, report.undone) == (35, 35, 0, 0, 0)
    assert report.calls == qwen.count == 35
    table = current_rows(tmp_path / "out")
    assert table.schema.field("price").type == pa.decimal128(10, 2)
    row = next(row for row in table.to_pylist() if row["record_id"] == "r00012")
    assert (row["name"], row["price"]) == ("thing-0000012", Decimal("12.12"))
    quote = next(one for one in row["_evidence"] if one["path"] == "price")
    assert thing_text(12)[quote["start"] : quote["end"]] == quote["quote"] == "12.12"


def test_the_parts_are_read_with_nothing_but_duckdb_or_pandas(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen)
    found = duckdb.sql(f"select name, price from '{tmp_path}/out/thing/*/rows/*.parquet' order by name").fetchall()
    assert found[3] == ("thing-0000003", Decimal("3.03"))
    parts = sorted((tmp_path / "out").glob("thing/*/rows/*.parquet"))
    assert sum(len(pd.read_parquet(part)) for part in parts) == 12
    with duckdb.connect(str(tmp_path / "out" / "catalog.duckdb"), read_only=True) as con:
        assert con.sql("select count(*) from thing").fetchall() == [(12,)]
        assert con.sql("select count(*), sum(input_tokens) > 0 from thing_calls").fetchall() == [(12, True)]


def test_a_second_run_asks_nothing_and_new_records_only_are_asked(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(20))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, tmp_path / "out", qwen)
        again = run_things(source, tmp_path / "out", qwen)
        assert (again.skipped, again.rows, again.calls, qwen.count) == (20, 0, 0, 20)
        write_things(source, range(25))
        more = run_things(source, tmp_path / "out", qwen)
    assert (more.records, more.skipped, more.rows, qwen.count) == (25, 20, 5, 25)
    assert len(names(tmp_path / "out")) == 25


def test_a_changed_record_is_asked_again_and_its_new_row_is_the_current_one(tmp_path: Path) -> None:
    source = tmp_path / "things.jsonl"
    with FakeQwen(thing_answer) as qwen:
        for number in (1, 2, 1):
            source.write_text(json.dumps({"id": "same", "text": thing_text(number)}) + "\n")
            run_things(source, tmp_path / "out", qwen)
            assert names(tmp_path / "out") == [f"thing-{number:07}"]
        assert qwen.count == 2, "the first text was answered before: going back to it costs nothing"


def test_identical_records_are_asked_once_and_each_has_its_row(tmp_path: Path) -> None:
    source = tmp_path / "things.jsonl"
    rows = [{"id": f"r{i}", "text": thing_text(i % 3)} for i in range(30)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FakeQwen(thing_answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
        assert (report.rows, report.merged, report.calls, qwen.count) == (30, 27, 3, 3)
        source.write_text(json.dumps({"id": "new", "text": thing_text(2)}) + "\n")
        later = run_things(source, tmp_path / "out", qwen)
        assert (later.rows, later.merged, later.calls, qwen.count) == (1, 1, 0, 3)
    costs = current_rows(tmp_path / "out").column("_meta").to_pylist()
    assert sum(cost["input_tokens"] > 0 for cost in costs) == 3, "a merged row was not paid for"


def test_a_duplicate_id_is_reported_and_both_records_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "things.jsonl"
    source.write_text("".join(json.dumps({"id": "x", "text": thing_text(i)}) + "\n" for i in (1, 2)))
    with FakeQwen(thing_answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
        again = run_things(source, tmp_path / "out", qwen)
    assert (report.rows, report.duplicate_ids) == (2, 1)
    assert (again.skipped, again.calls) == (2, 0)
    assert names(tmp_path / "out") == ["thing-0000001", "thing-0000002"]


def test_failures_are_in_the_ledger_with_everything_needed(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(6))

    def answer(body: dict[str, Any]) -> str | Fault:
        text = record_of(body)
        if "thing-0000002" in text:
            return "no idea"
        if "thing-0000004" in text:
            return Fault.moderation()
        return thing_answer(body)

    with FakeQwen(answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen)
    assert (report.rows, report.failures) == (4, 2)
    assert report.failures_by_reason == {"not_json": 1, "refused": 1}
    ledger = {row["record_id"]: row for row in open_failures(tmp_path / "out").to_pylist()}
    assert [attempt["raw"] for attempt in ledger["r00002"]["attempts"]] == ["no idea", "no idea"]
    assert ledger["r00002"]["text"] == thing_text(2)
    assert ledger["r00002"]["input_tokens"] > 0
    assert "inappropriate" in ledger["r00004"]["message"]


def test_a_failure_is_not_asked_again_by_a_run_and_is_closed_by_a_later_row(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    with FakeQwen("nothing") as qwen:
        run_things(source, tmp_path / "out", qwen)
        asked = qwen.count
        again = run_things(source, tmp_path / "out", qwen)
        assert (again.skipped, again.skipped_failures, qwen.count) == (3, 3, asked)
        qwen.answer_with(thing_answer)
        [one] = list(retry_jobs(tmp_path / "out", where="record_id <> 'r00001'"))
        report = run(one.job, settings=Settings(), source=one.source, retry=one.selection)
    assert (report.records, report.rows, report.failures) == (2, 2, 0)
    assert open_failures(tmp_path / "out").column("record_id").to_pylist() == ["r00001"]
    assert names(tmp_path / "out") == ["thing-0000000", "thing-0000002"]


def test_what_a_killed_retry_paid_for_outlives_a_run_in_between(tmp_path: Path) -> None:
    from extractors.qwen.requests import ChatReply
    from extractors.retrying import retry_jobs
    from extractors.store.journal import RETRY, result_entry
    from schemas.usage import Usage

    source = write_things(tmp_path / "things.jsonl", range(3))
    out = tmp_path / "out"
    with FakeQwen("nothing") as qwen:
        run_things(source, out, qwen)
        first = query(out, "select request from thing_calls where record_id = 'r00001' and attempt = 1").to_pylist()[0]
        folder = next(out.glob("thing/recipe=*/journal"))
        # What a retry leaves that was killed after its first answer: a line in a journal of its own.
        journal = Journal(folder / f"{RETRY}killed.jsonl", after=1)
        answer = ChatReply('{"name":"thing-0000001","price":1.01}', "stop", Usage(1, 9, 9), "qwen-plus")
        journal.append(first["request"], result_entry(answer))
        journal.close()
        write_things(source, range(4))
        run_things(source, out, qwen)
        asked = qwen.count
        [one] = list(retry_jobs(out, where="record_id = 'r00001'"))
        report = run(one.job, settings=Settings(), source=one.source, retry=one.selection)
        assert (report.rows, report.replayed, qwen.count) == (1, 1, asked)
        write_things(source, range(5))
        run_things(source, out, qwen)
    assert not list(folder.iterdir()), "an answer that was used is not kept"


def test_a_calibration_says_nothing_of_the_model_that_answers_a_retry(tmp_path: Path) -> None:
    made = Calibration("isotonic", ((0.0, 0.25), (1.0, 0.25)), 40, model="qwen-plus", schema="extraction")
    made.save(tmp_path / "c.json")
    source = tmp_path / "records.jsonl"
    source.write_text(json.dumps({"id": "a", "text": "a red pan"}) + "\n")
    answer = {"qwen-plus": "I cannot do this.", "qwen-max": '{"what": "pan"}'}
    with FakeQwen(lambda asked: answer[asked["model"]]) as qwen:
        given = job_for(
            source, tmp_path / "out", qwen, schema="what", model="qwen-plus", calibration=str(tmp_path / "c.json")
        )
        first = run(given, settings=Settings())
        [one] = retry_jobs(tmp_path / "out")
        again = run(one.job, settings=Settings(), source=one.source, retry=one.selection, model="qwen-max")
        with pytest.raises(JobError, match="fitted on the scores of qwen-plus"):
            run(given.model_copy(update={"model": "qwen-max"}), settings=Settings())
    assert (first.failures, again.rows, again.recipe) == (1, 1, first.recipe)
    [row] = query(tmp_path / "out", "select _confidence from extraction").to_pylist()
    assert dict(row["_confidence"]) == {"what": 0.9}


def test_a_retry_with_another_model_writes_into_the_same_recipe(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(["no", "no", "no", "no"]) as qwen:
        first = run_things(source, tmp_path / "out", qwen)
        qwen.answer_with(thing_answer)
        [one] = list(retry_jobs(tmp_path / "out"))
        report = run(one.job, settings=Settings(), source=one.source, retry=one.selection, model="qwen-max")
        assert qwen.requests[-1].body["model"] == "qwen-max"
    assert report.recipe == first.recipe
    rows = current_rows(tmp_path / "out").to_pylist()
    assert {row["_meta"]["model"] for row in rows} == {"qwen-max"}


def test_bad_weather_loses_no_record(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(150))
    mix = {"429": 0.1, "500": 0.05, "reset": 0.03, "html": 0.03, "fenced": 0.05, "truncated": 0.02}
    with FakeQwen(Faults(11, mix=mix, then=thing_answer)) as qwen:
        report = run_things(source, tmp_path / "out", qwen, transport_attempts=8, concurrency=32)
    assert report.rows + report.failures == 150
    assert report.failures == 0, report.failures_by_reason
    assert report.tries > report.calls


def test_a_rejected_key_ends_the_run_and_fails_no_record(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(5))
    with FakeQwen(Fault.status(401, "invalid_api_key", "Incorrect API key provided.")) as qwen:
        with pytest.raises(KeyRejected):
            run_things(source, tmp_path / "out", qwen)
        qwen.answer_with(thing_answer)
        report = run_things(source, tmp_path / "out", qwen)
    assert (report.rows, report.skipped) == (5, 0)


def test_a_server_that_is_gone_ends_the_run_and_fails_no_record(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(5))
    with FakeQwen(thing_answer) as qwen:
        gone = qwen.base_url
    with pytest.raises(ServerUnreachable, match="nothing answers"):
        run_things(source, tmp_path / "out", gone, transport_attempts=2)
    with FakeQwen(thing_answer) as qwen:
        assert run_things(source, tmp_path / "out", qwen).rows == 5


def test_a_token_ceiling_is_never_passed_and_the_next_run_goes_on(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    reply = lambda body: Reply(thing_answer(body), tokens=(400, 100, 0, 0))  # noqa: E731
    with FakeQwen(reply) as qwen:
        report = run_things(source, tmp_path / "out", qwen, max_tokens=12_000, max_output_tokens=256)
        assert 0 < report.rows < 40
        assert report.undone == 40 - report.rows
        assert report.failures == 0
        assert qwen.count * 500 == report.input_tokens + report.output_tokens <= 12_000
        assert report.stopped is not None and report.stopped.startswith("budget")
        rest = run_things(source, tmp_path / "out", qwen, max_output_tokens=256)
        assert (rest.rows, rest.skipped, qwen.count) == (report.undone, report.rows, 40)


def test_a_money_ceiling_is_never_passed(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    reply = lambda body: Reply(thing_answer(body), tokens=(400, 100, 0, 0))  # noqa: E731
    with FakeQwen(reply) as qwen:
        report = run_things(
            source, tmp_path / "out", qwen, model="qwen-max", max_cost="0.02", max_output_tokens=256, mode="json_object"
        )
    assert report.cost is not None
    assert 0 < report.cost <= Decimal("0.02")
    assert report.undone > 0


def test_max_records_asks_that_many_and_leaves_the_rest_undone(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(25))
    with FakeQwen(thing_answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen, max_records=13)
        assert (report.rows, report.undone, qwen.count) == (13, 12, 13)
        rest = run_things(source, tmp_path / "out", qwen)
    assert (rest.rows, rest.skipped) == (12, 13)


def test_a_stop_finishes_what_is_in_flight_and_the_next_run_asks_only_the_rest(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    control = Control()
    seen = threading.Event()

    def answer(body: dict[str, Any]) -> Reply:
        seen.set()
        return Reply(thing_answer(body), delay=0.2)

    with FakeQwen(answer) as qwen:
        threading.Thread(target=lambda: (seen.wait(), control.stop())).start()
        job = job_for(source, tmp_path / "out", qwen, concurrency=8)
        report = run(job, settings=Settings(), control=control)
        assert report.stopped == "interrupted"
        assert 0 < report.rows == qwen.count < 60
        rest = run(job, settings=Settings())
        assert qwen.count == 60
    assert rest.rows == report.undone
    assert len(names(tmp_path / "out")) == 60


def test_two_recipes_lie_side_by_side(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(4))
    with FakeQwen(thing_answer) as qwen:
        one = run_things(source, tmp_path / "out", qwen)
        two = run_things(source, tmp_path / "out", qwen, instructions="Be careful.")
    assert one.recipe != two.recipe
    assert (two.rows, two.skipped) == (4, 0)
    found = query(tmp_path / "out", "select recipe, count(*) as n from thing group by recipe").to_pylist()
    assert {row["recipe"]: row["n"] for row in found} == {one.recipe: 4, two.recipe: 4}


def test_a_second_run_on_a_busy_output_is_refused(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    started = threading.Event()

    def answer(body: dict[str, Any]) -> Reply:
        started.set()
        return Reply(thing_answer(body), delay=1.0)

    with FakeQwen(answer) as qwen:
        thread = threading.Thread(target=run_things, args=(source, tmp_path / "out", qwen))
        thread.start()
        assert started.wait(20)
        with pytest.raises(OutputBusy):
            run_things(source, tmp_path / "out", qwen)
        thread.join()
    assert len(names(tmp_path / "out")) == 3


@pytest.mark.parametrize("concurrency", [1, 40])
def test_the_same_replies_give_the_same_bytes_whatever_the_concurrency(tmp_path: Path, concurrency: int) -> None:
    source = write_things(tmp_path / "things.jsonl", range(30))
    reply = lambda body: Reply(thing_answer(body), delay=0.0 if concurrency == 1 else hash(str(body)) % 7 / 100)  # noqa: E731
    with FakeQwen(reply) as qwen:
        run_things(source, tmp_path / "one", qwen, concurrency=concurrency)
        run_things(source, tmp_path / "two", qwen, concurrency=7)
    parts = {p.name: p.read_bytes() for p in (tmp_path / "one").glob("thing/*/rows/*.parquet")}
    assert parts
    assert parts == {p.name: p.read_bytes() for p in (tmp_path / "two").glob("thing/*/rows/*.parquet")}


def test_a_key_is_nowhere_in_the_output(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(3))
    key = "sk-very-secret-0123456789"
    with FakeQwen([Fault.status(500, message=f"oops {key}"), "no", "no"]) as qwen:
        from pydantic import SecretStr

        job = job_for(source, tmp_path / "out", qwen, concurrency=1)
        run(job, settings=Settings(api_key=SecretStr(key)))
        assert any(key in str(request.headers) for request in qwen.requests), "the key is sent"
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
    for part in (tmp_path / "out").rglob("*.parquet"):
        assert key not in json.dumps(pq.read_table(part).to_pylist(), default=str), part


def test_python_gives_rows_frames_failures_and_the_report(tmp_path: Path) -> None:
    frame = pd.DataFrame({"body": [thing_text(1), thing_text(2), None], "shop": ["a", "b", "c"]})
    with FakeQwen(thing_answer) as qwen:
        found = extract(
            frame,
            Thing,
            tmp_path / "out",
            text="body",
            keep=["shop"],
            base_url=qwen.base_url,
            model="qwen-plus",
            settings=Settings(),
        )
    assert found.report.rows == 2
    assert sorted(found.rows().column("shop").to_pylist()) == ["a", "b"]
    assert found.df().set_index("name").loc["thing-0000002", "price"] == Decimal("2.02")
    assert found.failures().column("reason").to_pylist() == ["bad_input"]
