"""Triage: what waits, and that every decision is added and nothing is changed."""

from __future__ import annotations

import gc
import tempfile
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from extractors.endpoint import Settings
from extractors.errors import JobError, OutputBusy, OutputError
from extractors.evaluate.promotion import promote_records
from extractors.review import acts
from extractors.review.queue import Entry, Queue, queues
from extractors.store.catalog import current_rows, open_failures, outputs, query
from extractors.store.lock import Lock
from tests.end_to_end.things import run_things
from tests.extractors.review.things import copied, some_wrong, waiting
from tests.fakes.answers import thing_answer, thing_text
from tests.fakes.qwen import FakeQwen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return waiting(tmp_path_factory.mktemp("made")).parent


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path)


def only(out: Path) -> Queue:
    [queue] = queues(out)
    return queue


def entry(queue: Queue, record_id: str) -> Entry:
    return next(one for one in queue.entries() if one.record_id == record_id)


def target(queue: Queue, record_id: str) -> acts.Target:
    one = entry(queue, record_id)
    return acts.Target(one.kind, one.record_id, one.occurrence, one.sequence)


def row(out: Path, record_id: str) -> dict[str, object]:
    return next(one for one in current_rows(out).to_pylist() if one["record_id"] == record_id)


def test_failures_and_rows_without_evidence_wait(out: Path) -> None:
    found = [(one.kind, one.record_id, one.reason, one.doubtful) for one in only(out).entries()]
    assert found == [
        ("failure", "r00003", "not_json", ()),
        ("failure", "r00007", "not_json", ()),
        ("row", "r00005", "low evidence", ("name",)),
    ]


def test_rows_of_less_confidence_than_the_last_run_asked_for_wait_with_the_reason(out: Path, tmp_path: Path) -> None:
    queue = only(out)
    assert len(queue.entries()) == 3, "0.5 by default"
    with FakeQwen(thing_answer) as qwen:
        run_things(tmp_path / "things.jsonl", out, qwen, keep=("id:sku",), review_below=0.95)
        assert qwen.count == 0
    rows = {one.record_id: one for one in queue.entries() if one.kind == "row"}
    listed = query(out, "select distinct record_id from thing_doubtful order by 1").column("record_id").to_pylist()
    assert list(rows) == listed and len(rows) == 8, "the queue and the view agree"
    sure, wrong = rows["r00000"], rows["r00005"]
    assert (sure.reason, sure.doubtful, dict(sure.unsure)) == ("low confidence", (), {"name": 0.9, "price": 0.9})
    assert sure.message == "confidence below 0.95: name 0.9, price 0.9"
    assert (wrong.reason, wrong.doubtful, dict(wrong.unsure)) == ("low evidence", ("name",), {"price": 0.9})
    assert wrong.message == "no evidence for name; confidence below 0.95: price 0.9"
    acts.decide(queue, acts.Target("row", "r00000", 0, sure.sequence), "confirmed")
    assert "r00000" not in {one.record_id for one in queue.entries()}


def test_a_record_is_shown_with_its_source_its_calls_and_its_evidence(out: Path) -> None:
    told = only(out).record("row", "r00005", 0)
    assert told["text"] == thing_text(5)
    assert told["value"] == {"name": "Wintergarten", "price": "5.05"}
    [price] = [one for one in told["evidence"] if one["path"] == "price"]
    assert told["text"][price["start"] : price["end"]] == "5.05"
    assert told["calls"][0]["raw"] == '{"name":"Wintergarten","price":5.05}'
    failed = only(out).record("failure", "r00003", 0)
    assert (failed["text"], failed["value"]) == (thing_text(3), {"name": None, "price": None})
    assert {one["raw"] for one in failed["attempts"]} == {"I would rather not."}


def test_the_copy_of_a_source_goes_with_the_queue_that_nobody_closed(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    queue = only(out)
    queue.record("row", "r00005", 0)
    assert list(tmp_path.glob("quarry-review-*/source.duckdb"))
    del queue
    gc.collect()
    assert not list(tmp_path.glob("quarry-review-*"))


def test_a_source_that_is_gone_is_told_and_the_rest_is_shown(out: Path) -> None:
    (out.parent / "things.jsonl").unlink()
    queue = only(out)
    told = queue.record("row", "r00005", 0)
    assert told["text"] is None and "cannot be read again" in told["text_missing"]
    assert queue.record("failure", "r00003", 0)["text"] == thing_text(3), "the ledger keeps a failure's text"


def test_accepted_values_are_a_row_that_a_person_made(out: Path) -> None:
    queue = only(out)
    acts.accept(queue, target(queue, "r00003"), {"name": "thing-0000003", "price": "3.03"})
    made = row(out, "r00003")
    assert (made["name"], made["price"], made["sku"]) == ("thing-0000003", Decimal("3.03"), "r00003")
    assert made["_meta"]["model"] == "person" and made["_meta"]["corrected"] == ["name", "price"]
    assert {one["match"] for one in made["_evidence"]} == {"exact"}
    assert open_failures(out).column("record_id").to_pylist() == ["r00007"]
    assert (outputs(out)[0].rows, outputs(out)[0].failures) == (9, 1)
    assert "r00003" not in {one.record_id for one in queue.entries()}
    [kept] = query(out, "select record_id, action, who from thing_reviews").to_pylist()
    assert (kept["record_id"], kept["action"]) == ("r00003", "accepted")


def test_what_a_person_accepted_is_not_asked_again(out: Path, tmp_path: Path) -> None:
    queue = only(out)
    acts.accept(queue, target(queue, "r00003"), {"name": "thing-0000003", "price": None})
    with FakeQwen(thing_answer) as qwen:
        report = run_things(tmp_path / "things.jsonl", out, qwen, keep=("id:sku",))
        assert (report.skipped, qwen.count) == (10, 0)
    assert row(out, "r00003")["price"] is None


def test_a_rows_values_can_be_put_right(out: Path) -> None:
    queue = only(out)
    acts.accept(queue, target(queue, "r00005"), {"name": "thing-0000005", "price": "5.05"})
    made = row(out, "r00005")
    assert (made["name"], made["_meta"]["corrected"]) == ("thing-0000005", ["name"])
    assert current_rows(out).num_rows == 8, "the earlier row is superseded"


def test_values_that_do_not_fit_are_refused_naming_the_field(out: Path) -> None:
    queue = only(out)
    with pytest.raises(acts.InvalidValues) as refused:
        acts.accept(queue, target(queue, "r00003"), {"name": None, "price": "cheap"})
    assert {one["path"] for one in refused.value.problems} == {"name", "price"}
    assert (outputs(out)[0].rows, outputs(out)[0].failures) == (8, 2)


def test_an_ignored_failure_is_closed_until_its_record_fails_again(out: Path, tmp_path: Path) -> None:
    queue = only(out)
    acts.decide(queue, target(queue, "r00003"), "ignored", note="a test record")
    assert open_failures(out).column("record_id").to_pylist() == ["r00007"]
    [held] = outputs(out)
    assert (held.rows, held.failures, held.ignored) == (8, 1, 1)
    [kept] = query(out, "from thing_reviews").to_pylist()
    assert (kept["action"], kept["note"]) == ("ignored", "a test record")
    changed = tmp_path / "things.jsonl"
    changed.write_text(changed.read_text().replace(thing_text(3), thing_text(3) + " Once more."))
    with FakeQwen(some_wrong) as qwen:
        run_things(changed, out, qwen, keep=("id:sku",))
    assert sorted(open_failures(out).column("record_id").to_pylist()) == ["r00003", "r00007"]


def test_a_failure_is_not_ignored_without_a_reason(out: Path) -> None:
    queue = only(out)
    with pytest.raises(JobError, match="with a reason"):
        acts.decide(queue, target(queue, "r00003"), "ignored", note=" ")


def test_an_ignored_failure_can_be_opened_again(out: Path) -> None:
    queue = only(out)
    seen = target(queue, "r00003")
    acts.decide(queue, seen, "ignored", note="no")
    acts.decide(queue, seen, "reopened")
    assert open_failures(out).num_rows == 2
    assert outputs(out)[0].ignored == 0


def test_a_confirmed_row_does_not_wait_any_more(out: Path) -> None:
    queue = only(out)
    acts.decide(queue, target(queue, "r00005"), "confirmed")
    assert [one.kind for one in queue.entries()] == ["failure", "failure"]


def test_a_failure_is_asked_again_by_another_model(out: Path) -> None:
    queue = only(out)
    with FakeQwen(thing_answer) as qwen:
        report = acts.retry(
            queue, target(queue, "r00007"), model="qwen-max", settings=Settings(), changes={"base_url": qwen.base_url}
        )
        assert [one.body["model"] for one in qwen.requests] == ["qwen-max"]
    assert (report.rows, report.failures) == (1, 0)
    assert row(out, "r00007")["_meta"]["model"] == "qwen-max"


def test_a_decision_about_an_outcome_that_is_not_there_any_more_is_refused(out: Path) -> None:
    queue = only(out)
    seen = target(queue, "r00005")
    acts.accept(queue, seen, {"name": "thing-0000005", "price": None})
    with pytest.raises(JobError, match="another outcome by now"):
        acts.accept(queue, seen, {"name": "thing-5", "price": None})
    failed = target(queue, "r00003")
    acts.accept(queue, failed, {"name": "x"})
    with pytest.raises(JobError, match="not among the thing's failures any more"):
        acts.decide(queue, failed, "ignored", note="late")


def test_nothing_is_accepted_while_a_run_writes_there(out: Path) -> None:
    queue = only(out)
    lock = Lock(out)
    lock.take()
    try:
        with pytest.raises(OutputBusy):
            acts.accept(queue, target(queue, "r00003"), {"name": "x"})
    finally:
        lock.release()


def test_a_row_is_promoted_into_a_golden_set_once(out: Path, tmp_path: Path) -> None:
    queue = only(out)
    golden = tmp_path / "golden.jsonl"
    for _ in range(2):
        acts.promote(queue, target(queue, "r00005"), golden)
    [line] = golden.read_bytes().splitlines()
    assert orjson.loads(line) == {
        "id": "r00005", "text": thing_text(5), "expected": {"name": "Wintergarten", "price": "5.05"},
    }  # fmt: skip
    with pytest.raises(JobError, match="only what is right"):
        acts.promote(queue, target(queue, "r00003"), golden)


def test_what_a_promoted_record_accepts_stays_with_it(out: Path, tmp_path: Path) -> None:
    queue = only(out)
    golden = tmp_path / "golden.jsonl"
    values = {"name": "Wintergarten", "price": "5.05"}
    before = {
        "id": "r00005",
        "text": thing_text(5),
        "expected": values,
        "accept": {"name": ["Winter Garden"]},
        "free": ["price"],
    }
    golden.write_bytes(orjson.dumps(before) + b"\n")
    acts.promote(queue, target(queue, "r00005"), golden)
    [line] = golden.read_bytes().splitlines()
    assert orjson.loads(line) == before
    golden.write_bytes(orjson.dumps({"text": "unnamed", "expected": {}}) + b"\n")
    with pytest.raises(JobError, match="line 1 has no `id`"):
        acts.promote(queue, target(queue, "r00005"), golden)
    with pytest.raises(JobError, match="is Parquet by its name"):
        acts.promote(queue, target(queue, "r00005"), tmp_path / "golden.parquet")


def test_of_the_reviewed_rows_those_are_promoted_that_stand_as_they_were_seen(out: Path, tmp_path: Path) -> None:
    queue = only(out)
    acts.accept(queue, target(queue, "r00003"), {"name": "by hand"})
    acts.decide(queue, target(queue, "r00005"), "confirmed")
    source = out.parent / "things.jsonl"
    source.write_text(source.read_text().replace(thing_text(5), thing_text(95)))
    with FakeQwen(thing_answer) as qwen:
        run_things(source, out, qwen)
    assert row(out, "r00005")["name"] == "thing-0000095", "an outcome that nobody has looked at"
    added = promote_records(out, tmp_path / "golden.jsonl", reviewed=True)
    assert [one.record_id for one in added] == ["r00003"]


def test_a_schema_that_has_changed_takes_no_values(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = only(out)
    seen = target(queue, "r00003")
    monkeypatch.setitem(queue.schema, "title", "Something else")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="is not what it was"):
        acts.accept(queue, seen, {"name": "x"})
