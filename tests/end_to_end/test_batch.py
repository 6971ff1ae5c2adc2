"""The batch lane over a fake service: the same rows as live, whatever comes back, and nothing asked twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from extractors.batch.errands import collect_batches
from extractors.endpoint import Settings
from extractors.errors import BatchRefused, JobError
from extractors.report import RunReport
from extractors.store.catalog import current_rows, open_failures
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import record_of, thing_answer
from tests.fakes.qwen import FakeQwen


def answer(body: dict[str, Any]) -> str:
    """Every third record needs a correction."""
    number = int(record_of(body)[10:17])
    if number % 3 == 0 and "Your last answer" not in str(body):
        return thing_answer(body).replace('"price":', '"price":"?","was":')
    return thing_answer(body)


@pytest.fixture
def qwen() -> Iterator[FakeQwen]:
    with FakeQwen(answer) as service:
        yield service


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_things(tmp_path / "things.jsonl", range(30))


def run_batch(source: Path, out: Path, qwen: FakeQwen, **options: Any) -> RunReport:
    return run_things(source, out, qwen, **{"lane": "batch", "batch_poll": 0.01, **options})


def table(out: Path) -> list[dict[str, Any]]:
    rows = current_rows(out).drop_columns(["run_id", "committed_at"])
    return sorted(({**row, "_meta": None} for row in rows.to_pylist()), key=lambda row: row["record_id"])


def test_a_batch_run_makes_the_rows_of_a_live_one(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    live = run_things(source, tmp_path / "live", qwen)
    asked = qwen.count
    report = run_batch(source, tmp_path / "batch", qwen)
    assert (report.rows, report.failures, report.undone, report.stopped) == (30, 0, 0, None)
    assert report.calls == live.calls == asked == 40
    assert table(tmp_path / "batch") == table(tmp_path / "live")
    assert qwen.count == asked, "nothing went live"
    assert len(qwen.batches.kept) == 2, "the corrections are a round of their own"


def test_it_costs_half_and_says_what_that_saves(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    live = run_things(source, tmp_path / "live", qwen)
    report = run_batch(source, tmp_path / "batch", qwen)
    assert live.cost and report.cost == live.cost / 2 == report.saved
    assert live.saved is None


def test_files_are_cut_and_go_as_several_batches(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    report = run_batch(source, tmp_path / "out", qwen, batch_requests=7)
    assert report.rows == 30
    assert max(len(batch.lines) for batch in qwen.batches.kept.values()) == 7
    assert max(qwen.batches.asked.values()) == 1


@pytest.mark.parametrize("fault", ["failed_in_output", "in_error_file", "missing", "throttled"])
def test_what_fails_is_asked_again_and_only_that(qwen: FakeQwen, source: Path, tmp_path: Path, fault: Any) -> None:
    qwen.batches.line_faults = {fault: 0.3}
    report = run_batch(source, tmp_path / "out", qwen, transport_attempts=20)
    ids = [line["custom_id"].rpartition("-")[2] for batch in qwen.batches.kept.values() for line in batch.lines]
    assert report.rows == 30
    assert report.tries - report.calls == len(ids) - len(set(ids)) > 0


@pytest.mark.parametrize("fault", ["duplicate", "foreign"])
def test_lines_too_many_change_nothing(qwen: FakeQwen, source: Path, tmp_path: Path, fault: Any) -> None:
    qwen.batches.line_faults = {fault: 0.5}
    report = run_batch(source, tmp_path / "out", qwen)
    assert (report.rows, report.calls) == (30, 40)
    assert max(qwen.batches.asked.values()) == 1


def test_a_batch_that_expires_is_asked_for_the_rest(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    qwen.batches.faults = ["expire"]
    report = run_batch(source, tmp_path / "out", qwen)
    assert (report.rows, report.calls) == (30, 40)
    assert max(qwen.batches.asked.values()) == 1, "what was run is not run again"


def test_a_cancelled_batch_keeps_what_is_done_and_ends_the_run(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    qwen.batches.faults = ["cancel"]
    first = run_batch(source, tmp_path / "out", qwen)
    assert "was cancelled" in (first.stopped or "")
    assert first.rows + first.undone == 30
    second = run_batch(source, tmp_path / "out", qwen)
    assert second.undone == 0
    assert len(table(tmp_path / "out")) == 30
    assert max(qwen.batches.asked.values()) == 1


def test_a_batch_that_is_refused_as_a_whole_ends_the_run_with_everything_undone(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    qwen.batches.faults = ["invalid"]
    with pytest.raises(BatchRefused, match="The request is not valid"):
        run_batch(source, tmp_path / "out", qwen)
    assert run_batch(source, tmp_path / "out", qwen).rows == 30


def test_a_line_that_makes_a_batch_invalid_fails_by_itself(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    qwen.batches.faults = ["invalid_line"]
    report = run_batch(source, tmp_path / "out", qwen)
    assert (report.rows, report.failures) == (29, 1)
    (entry,) = open_failures(tmp_path / "out", name="thing").to_pylist()
    assert (entry["record_id"], entry["reason"]) == ("r00000", "rejected")


@pytest.mark.parametrize("fault", ["lose_reply", "fail_create"])
def test_a_creation_without_an_answer_makes_one_batch(qwen: FakeQwen, source: Path, tmp_path: Path, fault: Any) -> None:
    qwen.batches.faults = [fault]
    report = run_batch(source, tmp_path / "out", qwen)
    assert report.rows == 30
    assert len(qwen.batches.kept) == 2
    assert max(qwen.batches.asked.values()) == 1


def test_a_run_that_does_not_wait_is_collected_by_the_same_command(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    reports = [run_batch(source, tmp_path / "out", qwen, batch_wait=False)]
    assert reports[0].stopped == "waiting: 1 batch is under way"
    assert reports[0].undone == 30
    while reports[-1].stopped is not None:
        reports.append(run_batch(source, tmp_path / "out", qwen, batch_wait=False))
    assert sum(report.rows for report in reports) == 30
    assert max(qwen.batches.asked.values()) == 1
    assert len(qwen.batches.kept) == 2


def test_runs_that_go_on_from_each_other_share_one_ceiling(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    options = {"batch_wait": False, "max_tokens": 6_000, "max_output_tokens": 16}
    with FakeQwen(thing_answer) as qwen:
        reports = [run_batch(source, tmp_path / "out", qwen, **options)]
        while (reports[-1].stopped or "").startswith("waiting:"):
            reports.append(run_batch(source, tmp_path / "out", qwen, **options))
        assert reports[-1].stopped is not None and reports[-1].stopped.startswith("budget:")
        assert 3_000 < sum(one.input_tokens + one.output_tokens for one in reports) <= 6_000
        again = run_batch(source, tmp_path / "out", qwen, **{**options, "batch_wait": True})
    assert again.rows > 0, "a run that went on from none has a ceiling of its own"


def test_batches_of_a_schema_that_has_changed_are_not_taken_for_a_new_run(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    schema = tmp_path / "thing.json"
    name = {"title": "thing", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    schema.write_text(json.dumps(name))
    run_batch(source, tmp_path / "out", qwen, schema=str(schema), batch_wait=False)
    schema.write_text(json.dumps({**name, "properties": {**name["properties"], "price": {"type": "number"}}}))  # type: ignore[dict-item]
    with pytest.raises(JobError, match="have changed since"):
        collect_batches(tmp_path / "out", settings=lambda job: Settings())
    assert len(qwen.batches.kept) == 1, "nothing else was submitted"
    schema.write_text(json.dumps(name))
    [report] = collect_batches(tmp_path / "out", settings=lambda job: Settings())
    assert report.rows == 30


def test_the_mixed_lane_asks_the_last_few_live(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    report = run_batch(source, tmp_path / "out", qwen, lane="mixed", live_tail=12)
    assert (report.rows, report.calls) == (30, 40)
    assert len(qwen.batches.kept) == 1
    assert qwen.count == 10, "the corrections, and nothing that the batch had answered"


def test_the_mixed_lane_leaves_an_old_batch(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    qwen.batches.polls = 1000
    report = run_batch(source, tmp_path / "out", qwen, lane="mixed", live_tail=1, live_after=1e-9)
    assert report.rows == 30
    assert sum(qwen.batches.asked.values()) + qwen.count >= 40
    assert max(qwen.batches.asked.values()) == 1


def test_a_ceiling_holds_before_anything_is_uploaded(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    free = run_batch(source, tmp_path / "free", qwen)
    assert free.cost is not None
    ceiling = free.cost / 3
    report = run_batch(source, tmp_path / "out", qwen, max_cost=ceiling, max_output_tokens=64)
    assert "budget: --max-cost" in (report.stopped or "")
    assert report.cost is not None and Decimal(0) < report.cost <= ceiling
    assert report.undone > 0


def test_a_record_that_fits_into_no_line_fails_by_itself(
    qwen: FakeQwen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extractors.qwen.batch import BatchRules

    monkeypatch.setattr("extractors.batch.lane.BatchRules", lambda requests: BatchRules(requests, line_bytes=6_000))
    source = tmp_path / "things.jsonl"
    write_things(source, range(3))
    source.write_text(source.read_text() + '{"id": "long", "text": "' + "word " * 2000 + '"}\n')
    report = run_batch(source, tmp_path / "out", qwen, long_text="whole")
    assert (report.rows, report.failures_by_reason) == (3, {"too_long": 1})


def test_the_files_are_gone_when_all_is_committed_and_the_entries_stay(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    run_batch(source, tmp_path / "out", qwen)
    folder = next((tmp_path / "out").glob("thing/recipe=*/batches"))
    assert {path.suffix for path in folder.iterdir() if path.name != "job"} == {".json"}
    assert not qwen.files.kept, "nor do they fill the account"


def test_a_model_that_has_no_batches_is_refused_before_anything_is_sent(
    qwen: FakeQwen, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="not taken by the Batch API"):
        run_batch(source, tmp_path / "out", qwen, model="qwen3-8b")


def command(*words: str) -> Any:
    """What `quarry batch ... --json` prints."""
    import orjson
    from typer.testing import CliRunner

    from flows.cli.app import app

    result = CliRunner().invoke(app, ["batch", *words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def test_the_commands_list_show_and_collect(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(source, out, qwen, batch_wait=False)
    (one,) = command("list", str(out))["batches"]
    assert (one["state"], one["requests"]) == ("running", 30)
    assert command("show", str(out), one["batch"][-4:])["batch_id"] == one["batch_id"]
    rows = 0
    while told := command("collect", str(out))["runs"]:
        rows += sum(run["rows"] for run in told)
    assert rows == 30
    assert [batch["state"] for batch in command("list", str(out))["batches"]] == ["settled", "settled"]
    assert max(qwen.batches.asked.values()) == 1


def test_the_command_cancels_and_what_was_done_is_kept(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    qwen.batches.polls = 100
    run_batch(source, out, qwen, batch_wait=False)
    (cancelled,) = command("cancel", str(out))["cancelled"]
    assert cancelled["status"] == "cancelling"
    told = command("collect", str(out))["runs"][0]
    assert told["rows"] == 10, "of the 15 that were done 5 need a correction"
    qwen.batches.polls = 2
    assert run_batch(source, out, qwen).undone == 0
    assert max(qwen.batches.asked.values()) == 1


def test_a_live_run_does_not_ask_what_a_batch_answers(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(source, out, qwen, batch_wait=False)
    with pytest.raises(JobError, match="--lane mixed"):
        run_things(source, out, qwen)
    assert qwen.count == 0
    report = run_batch(source, out, qwen)
    assert report.rows == 30
    assert run_things(source, out, qwen).skipped == 30


def test_the_plan_tells_the_price_of_a_batch(qwen: FakeQwen, source: Path, tmp_path: Path) -> None:
    from extractors.endpoint import Settings
    from extractors.planning import estimate
    from tests.end_to_end.things import job_for

    live = estimate(job_for(source, tmp_path / "out", qwen), settings=Settings())
    batch = estimate(job_for(source, tmp_path / "out", qwen, lane="batch"), settings=Settings())
    assert live.cost and batch.cost == live.cost / 2


def test_the_free_trial_uses_the_test_model_and_leaves_nothing(qwen: FakeQwen) -> None:
    qwen.answer_with("This is a test result.")
    told = command("try", "--base-url", qwen.base_url, "--poll", "0.01")
    assert told["status"] == "completed"
    assert "This is a test result." in told["output"]
    (batch,) = qwen.batches.kept.values()
    assert (batch.endpoint, batch.lines[0]["body"]["model"]) == ("/v1/chat/ds-test", "batch-test-model")
    assert not qwen.files.kept


def test_a_trial_that_does_not_work_says_why(qwen: FakeQwen) -> None:
    from extractors.batch.dry_run import try_batches
    from extractors.endpoint import Settings

    qwen.batches.faults = ["invalid"]
    with pytest.raises(BatchRefused, match="The request is not valid"):
        try_batches(Settings(), address=qwen.base_url, poll=0.01)
