"""The sample, the forecast, the decision, the rest: over real files and real HTTP, and nothing paid twice."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from extractors import extract
from extractors.endpoint import Settings
from extractors.errors import ApprovalNeeded, JobError
from extractors.forecast import Forecast
from extractors.pipeline import run
from extractors.report import RunReport
from extractors.stages import Decision, run_in_stages, take_sample
from extractors.store.catalog import current_rows, query
from schemas.job import ExtractionJob
from tests.end_to_end.things import Thing, job_for, write_things
from tests.fakes.answers import record_of, thing_answer, thing_text
from tests.fakes.qwen import FakeQwen, Fault, Reply


def staged(job: ExtractionJob, **options: object) -> RunReport:
    return run_in_stages(job, settings=Settings(), **options)  # type: ignore[arg-type]


def test_the_sample_is_kept_and_its_records_are_not_asked_again(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(80))
    told: list[Forecast] = []
    with FakeQwen(thing_answer) as qwen:
        report = staged(job_for(source, tmp_path / "out", qwen, sample=20), told=told.append)
        assert qwen.count == 80
    assert (report.records, report.rows, report.skipped, report.undone, report.calls) == (80, 80, 0, 0, 80)
    assert current_rows(tmp_path / "out").num_rows == 80
    assert (told[0].texts, told[0].sampled, told[0].failed) == (60, 20, 0)
    [first, second] = [json.loads(p.read_text()) for p in sorted((tmp_path / "out/runs").glob("*.json"))]
    assert (first["rows"], first["stopped"], second["skipped"]) == (20, "sample: 20 records asked", 20)
    spent = Decimal(first["cost"])
    rest = float(Decimal(second["cost"]))
    assert told[0].spent == spent
    assert told[0].cost is not None
    assert told[0].cost.low <= rest * 1.001
    assert rest <= told[0].cost.high


def test_the_sample_is_the_same_in_another_folder_and_random_over_the_plan(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(200))
    with FakeQwen(thing_answer) as qwen:
        taken = [take_sample(job_for(source, tmp_path / n, qwen, sample=20), settings=Settings()) for n in "ab"]
    chosen = [[one.fingerprint for one in each.sample.measured] for each in taken if each.sample]
    assert chosen[0] == chosen[1]
    ids = sorted(current_rows(tmp_path / "a").column("record_id").to_pylist())
    assert ids != [f"r{n:05}" for n in range(20)], "not just the first records"


def test_above_the_limit_nothing_but_the_sample_is_asked_until_it_is_approved(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, approve_above="0.000001")
        for _ in range(2):
            with pytest.raises(ApprovalNeeded, match="--approve"):
                staged(job)
            assert qwen.count == 20, "asked once, found the second time"
        with pytest.raises(ApprovalNeeded, match="was not approved"):
            staged(job, decide=lambda _: Decision(go=False))
        assert qwen.count == 20
        report = staged(job, decide=lambda _: Decision(go=True))
        assert qwen.count == 60
    assert (report.rows, report.skipped) == (40, 20)


def test_below_the_limit_nobody_is_asked(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(thing_answer) as qwen:
        report = staged(job_for(source, tmp_path / "out", qwen, approve_above="1000"))
    assert report.rows == 40


def test_a_lowered_ceiling_holds_for_the_sample_and_the_rest_together(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(300))
    decided: list[Decimal] = []

    def lower(found: Forecast) -> Decision:
        assert found.most is not None
        decided.append(found.most / 2)
        return Decision(go=True, ceiling=decided[0])

    with FakeQwen(thing_answer) as qwen:
        report = staged(
            job_for(source, tmp_path / "out", qwen, approve_above=0, max_output_tokens=64, concurrency=4), decide=lower
        )
    assert report.stopped is not None
    assert report.stopped.startswith("budget:")
    assert report.cost is not None
    assert report.cost <= decided[0]
    assert 20 < report.rows < 300


def test_corrections_in_the_sample_are_in_the_forecast(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(100))

    seen: set[str] = set()

    def wrong_at_first(body: dict[str, object]) -> str:
        text = record_of(body)
        if int(text[10:17]) % 3 == 0 and text not in seen:
            seen.add(text)
            return "no"
        return thing_answer(body)

    told: list[Forecast] = []
    with FakeQwen(wrong_at_first) as qwen:
        report = staged(job_for(source, tmp_path / "out", qwen, sample=30), told=told.append)
    assert report.rows == 100
    assert told[0].further > 3
    assert told[0].cost is not None
    assert told[0].spent is not None
    assert report.cost is not None
    rest = float(report.cost - told[0].spent)
    assert told[0].cost.low <= rest <= told[0].cost.high


def test_new_records_are_sampled_anew(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, sample=20)
        staged(job)
        write_things(source, range(120))
        taken = take_sample(job, settings=Settings())
    assert taken.forecast is not None
    assert (taken.forecast.sampled, taken.forecast.texts) == (20, 40)
    assert taken.report is not None
    assert (taken.report.rows, taken.report.skipped) == (20, 60)


def test_a_plan_no_larger_than_a_sample_is_just_run(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(15))
    with FakeQwen(thing_answer) as qwen:
        report = staged(job_for(source, tmp_path / "out", qwen, sample=20))
    assert (report.rows, len(list((tmp_path / "out/runs").glob("*.json")))) == (15, 1)


def test_what_the_final_model_was_asked_in_the_sample_is_in_the_sum(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, sample=10, final="qwen-max", route_below=1.0)
        report = run_in_stages(job, settings=Settings())
    assert report.routing is not None
    assert (report.rows, report.routing["records"]) == (40, 40)
    [told] = query(tmp_path / "out", "select count(*) filter (purpose = 'route') as n from thing_calls").to_pylist()
    assert report.routing["routed_records"] == told["n"]


def test_identical_records_come_with_the_sampled_one(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", [n // 3 for n in range(180)])
    with FakeQwen(thing_answer) as qwen:
        report = staged(job_for(source, tmp_path / "out", qwen, sample=20))
        assert qwen.count == 60
    names = current_rows(tmp_path / "out").column("name").to_pylist()
    assert (report.rows, report.merged) == (180, 120)
    assert sorted(names) == sorted(f"thing-{n // 3:07}" for n in range(180))


def test_max_records_counts_the_sample(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(90))
    with FakeQwen(thing_answer) as qwen:
        report = staged(job_for(source, tmp_path / "out", qwen, sample=20, max_records=50))
        assert qwen.count == 50
    assert (report.rows, report.undone) == (50, 40)


def test_a_sample_that_a_ceiling_stops_is_the_end_of_the_run(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(lambda body: Reply(thing_answer(body), tokens=(4000, 50, 0, 0))) as qwen:
        report = staged(
            job_for(source, tmp_path / "out", qwen, sample=20, max_tokens=30_000, max_output_tokens=64, concurrency=2)
        )
        assert qwen.count < 20
    assert report.stopped is not None
    assert report.stopped.startswith("budget:")
    assert report.undone > 40


def test_tries_that_failed_are_no_further_answers(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    script = [Fault.status(503), Fault.status(503)]

    def answer(body: dict[str, object]) -> str | Fault:
        return script.pop() if script else thing_answer(body)

    with FakeQwen(answer) as qwen:
        taken = take_sample(job_for(source, tmp_path / "out", qwen, sample=20), settings=Settings())
    assert taken.forecast is not None
    assert taken.forecast.further == 0


def test_approval_of_an_unknown_price_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    job = job_for(source, tmp_path / "out", "https://example.invalid/v1", model="nobody-knows", approve_above=1)
    with pytest.raises(JobError, match="the price of nobody-knows is unknown"):
        staged(job)


def test_a_run_without_a_sample_is_the_plain_one(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(30))
    with FakeQwen(thing_answer) as qwen:
        one = staged(job_for(source, tmp_path / "a", qwen))
        two = run(job_for(source, tmp_path / "b", qwen), settings=Settings())
    assert (one.rows, one.calls, one.chunks) == (two.rows, two.calls, two.chunks)


def test_the_sample_of_a_batch_run_is_live_and_the_rest_is_told_at_the_batch_price(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    told: list[Forecast] = []
    with FakeQwen(lambda body: Reply(thing_answer(body), tokens=(1_000, 100, 0, 0))) as qwen:
        job = job_for(source, tmp_path / "out", qwen, lane="batch", sample=20, batch_poll=0.05)
        report = staged(job, told=told.append)
    assert report.rows == 60
    assert told[0].seconds is None
    assert "as long as the batches take" in told[0].lines()[1]
    [first] = [one for p in (tmp_path / "out/runs").glob("*.json") if "sample" in (one := json.loads(p.read_text()))]
    assert told[0].cost is not None
    assert report.cost is not None
    rest = float(report.cost - Decimal(first["cost"]))
    assert told[0].cost.low == pytest.approx(rest, rel=1e-6)
    assert rest == pytest.approx(float(first["cost"]), rel=1e-6), "twice as many texts at half the price"


def test_a_ceiling_holds_for_a_live_sample_and_the_batches_of_the_rest_together(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(thing_answer) as qwen:
        options = {"sample": 20, "batch_poll": 0.05, "max_output_tokens": 16, "concurrency": 2}
        job = job_for(source, tmp_path / "out", qwen, lane="batch", max_cost="0.0028", **options)
        report = run_in_stages(job, settings=Settings())
    [told] = query(tmp_path / "out", "select sum(cost) as spent from thing_calls").to_pylist()
    assert told["spent"] == report.cost <= Decimal("0.0028")
    assert report.stopped is not None and report.stopped.startswith("budget:")
    assert report.undone > 0


def test_the_python_door_hears_the_forecast_and_decides(tmp_path: Path) -> None:
    frame = pa.table({"id": [str(n) for n in range(50)], "text": [thing_text(n) for n in range(50)]})
    told: list[Forecast] = []
    with FakeQwen(thing_answer) as qwen:
        given = {
            "id": "id",
            "model": "qwen-plus",
            "base_url": qwen.base_url,
            "approve_above": "0",
            "settings": Settings(),
        }
        with pytest.raises(ApprovalNeeded):
            extract(frame, Thing, tmp_path / "out", **given)  # type: ignore[arg-type]
        found = extract(
            frame,
            Thing,
            tmp_path / "out",
            told=told.append,
            decide=lambda _: Decision(go=True),
            **given,  # type: ignore[arg-type]
        )
        assert qwen.count == 50
    assert (found.report.rows, found.report.skipped, told[0].texts) == (30, 20, 30)


def test_what_runs_on_this_machine_costs_nothing_and_needs_no_approval(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    told: list[Forecast] = []
    with FakeQwen(thing_answer) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model="some-local-model", approve_above=0)
        report = staged(job, told=told.append)
    assert report.rows == 40
    assert told[0].most == 0
    assert "corrections included): 0 USD" in told[0].lines()[1]
