"""The bar for faults: everything that goes wrong at once, over a whole run, with nothing lost and nothing asked in vain."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import record_of, thing_answer, thing_text
from tests.fakes.qwen import FakeQwen, Fault, Faults, Reply

RATE_LIMITED = {"429": 0.08, "429-retry-after": 0.08, "429-overloaded": 0.04}
BROKEN = {"500": 0.02, "502": 0.01, "503": 0.01, "504": 0.01}
RESET = {"reset": 0.01, "closed": 0.005, "cut": 0.005}
HANGING = {"hang": 0.01}
MALFORMED = {
    "html": 0.01,
    "invalid-utf8": 0.01,
    "fenced": 0.01,
    "wrong-types": 0.005,
    "null-content": 0.005,
    "truncated": 0.01,
}
REFUSED = {"moderation": 0.01}
MIX = {**RATE_LIMITED, **BROKEN, **RESET, **HANGING, **MALFORMED, **REFUSED}


class Watched:
    """The faults, and for each record what was answered to it, in order."""

    def __init__(self, seed: int) -> None:
        self.faults = Faults(seed, mix=MIX, then=thing_answer)
        self.told: dict[str, list[str]] = {}

    def __call__(self, body: Any) -> str | Reply | Fault:
        answer = self.faults(body)
        code = answer.code or answer.kind if isinstance(answer, Fault) else "ok"
        self.told.setdefault(record_of(body), []).append(code)
        return answer

    @property
    def refused(self) -> dict[str, list[str]]:
        return {record: told for record, told in self.told.items() if "data_inspection_failed" in told}


def test_the_mix_is_the_bar_s() -> None:
    shares = [sum(part.values()) for part in (RATE_LIMITED, BROKEN, RESET, HANGING, MALFORMED, REFUSED)]
    assert shares == pytest.approx([0.20, 0.05, 0.02, 0.01, 0.05, 0.01])


@pytest.mark.parametrize(
    ("records", "rpm", "seed"),
    [
        pytest.param(600, 12_000, 1, id="600"),
        pytest.param(5000, 18_000, 31, id="5000", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_every_record_survives_the_mix_or_is_refused_once(
    records: int, rpm: int, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_things(tmp_path / "things.jsonl", range(records))
    watched = Watched(seed)
    began = time.perf_counter()
    with FakeQwen(watched, keep=False) as qwen:
        report = run_things(
            source, tmp_path / "out", qwen, chunk_size=1000, rpm=rpm, timeout=0.5, transport_attempts=10
        )  # fmt: skip
        seconds, asked, busiest, broken = time.perf_counter() - began, qwen.count, qwen.highest_rate(), qwen.errors

    refused = watched.refused
    failed = dict(
        duckdb.sql(f"select reason, count(*) from '{tmp_path}/out/thing/*/failures/*.parquet' group by all").fetchall()
    )
    cured = report.rows / (records - len(refused))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{records} records, {asked} requests in {seconds:.1f} s: {report.rows} rows, failures {failed}, "
            f"{len(refused)} refused; {cured:.2%} of the curable; busiest second {busiest} of {rpm // 60}; "
            f"faults {dict(watched.faults.seen)}\n"
        )
    # Every record is accounted for, once.
    assert broken == []
    assert (report.records, report.rows + report.failures, report.undone) == (records, records, 0)
    ids = duckdb.sql(
        f"select record_id from '{tmp_path}/out/thing/*/rows/*.parquet' union all "
        f"select record_id from '{tmp_path}/out/thing/*/failures/*.parquet'"
    ).fetchall()
    assert sorted(one for (one,) in ids) == [f"r{number:05}" for number in range(records)]
    # What can be cured is cured, and rightly.
    assert cured >= 0.999
    assert failed.get("refused") == len(refused) > 0
    wrong = duckdb.sql(
        f"select count(*) from '{tmp_path}/out/thing/*/rows/*.parquet' "
        "where name <> format('thing-{:07}', cast(record_id[2:] as integer))"
    ).fetchall()
    assert wrong == [(0,)]
    # Nothing is asked after an error that ends a record.
    assert {
        record: told for record, told in refused.items() if told.index("data_inspection_failed") < len(told) - 1
    } == {}
    # Every request is told of in the calls.
    told = duckdb.sql(f"select count(*) from '{tmp_path}/out/thing/*/calls/*.parquet'").fetchall()
    assert told == [(asked,)]
    # The server never saw more in a second than it allows.
    assert busiest <= rpm // 60


def test_two_runs_of_one_process_stay_within_the_account_together(tmp_path: Path) -> None:
    rpm, counts = 3000, {}
    with FakeQwen(thing_answer, keep=False) as qwen:

        def work(name: str, numbers: range) -> None:
            source = write_things(tmp_path / f"{name}.jsonl", numbers)
            counts[name] = run_things(source, tmp_path / name, qwen, rpm=rpm).rows

        runs = [
            threading.Thread(target=work, args=("one", range(60))),
            threading.Thread(target=work, args=("two", range(60, 120))),
        ]
        for one in runs:
            one.start()
        for one in runs:
            one.join()
        busiest, asked = qwen.highest_rate(), qwen.count
    assert counts == {"one": 60, "two": 60}
    assert (asked, busiest <= rpm // 60) == (120, True)


def test_a_bill_that_is_due_ends_the_run_and_costs_no_record(tmp_path: Path) -> None:
    from extractors.errors import KeyRejected

    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(Fault.named("overdue")) as qwen:
        with pytest.raises(KeyRejected, match="settle the account"):
            run_things(source, tmp_path / "out", qwen, concurrency=2)
        assert qwen.count <= 2
        qwen.answer_with(thing_answer)
        again = run_things(source, tmp_path / "out", qwen)
    assert (again.rows, again.failures) == (40, 0)


def test_tries_that_a_ceiling_ended_are_in_the_calls(tmp_path: Path) -> None:
    answers: Counter[str] = Counter()

    def answer(body: Any) -> str | Reply | Fault:
        text = record_of(body)
        answers[text] += 1
        if text == thing_text(1):
            return Fault.status(503)
        return Reply(thing_answer(body), tokens=(4000, 50, 0, 0))

    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen, concurrency=2, max_tokens=5000, max_output_tokens=64)
        asked = qwen.count
    assert (report.rows, report.undone) == (1, 1)
    assert report.stopped is not None
    told = duckdb.sql(
        f"select record_id, status from '{tmp_path}/out/thing/*/calls/*.parquet' order by record_id, try_number"
    ).fetchall()
    assert len(told) == asked
    assert told[0] == ("r00000", "ok")
    assert set(told[1:]) == {("r00001", "overloaded")}


def test_no_job_asks_for_a_limit_of_all_machines_without_prefect(tmp_path: Path) -> None:
    from extractors.errors import JobError

    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(thing_answer) as qwen, pytest.raises(JobError, match="--engine prefect"):
        run_things(source, tmp_path / "out", qwen, rate_limit_name="calls")
    assert job_for(source, tmp_path / "out", "http://x", rate_limit_name="calls").rate_limit_name == "calls"
