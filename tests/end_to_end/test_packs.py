"""Several records in one call, over real files and real HTTP: each has its own row, and is paid for once."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from extractors.endpoint import Settings
from extractors.errors import OutputError
from extractors.packing import UNSEEN
from extractors.pipeline import run
from extractors.planning import estimate
from extractors.store.catalog import current_rows, open_failures, query
from extractors.store.journal import Journal
from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import records_of, thing_of, thing_pack
from tests.fakes.qwen import FakeQwen, Fault, Reply

QUARRY = Path(sys.executable).with_name("quarry")
SUMS = """select count(*) as rows, sum(input_tokens) as input, sum(output_tokens) as output, sum(cost) as cost,
    count(distinct coalesce(pack, request || try_number)) as calls from thing_calls"""


def rows(out: Path) -> list[tuple[str, Decimal]]:
    return sorted((row["name"], row["price"]) for row in current_rows(out).to_pylist())


def sums(out: Path) -> dict[str, Any]:
    [found] = query(out, SUMS).to_pylist()
    return found


def meta_sums(out: Path) -> tuple[int, int, Decimal]:
    metas = [row["_meta"] for row in current_rows(out).to_pylist()]
    return (
        sum(meta["input_tokens"] for meta in metas),
        sum(meta["output_tokens"] for meta in metas),
        sum((meta["cost"] for meta in metas), Decimal(0)),
    )


def without(*numbers: int) -> Any:
    """An answer function that leaves out these records of a pack, and answers them alone."""

    def answer(body: dict[str, Any]) -> str:
        texts = records_of(body)
        if len(texts) == 1:
            return thing_pack(body)
        gone = tuple(f"thing-{number:07}" for number in numbers)
        told = [f'"{n}":{thing_of(text)}' for n, text in enumerate(texts, 1) if not any(one in text for one in gone)]
        return "{" + ",".join(told) + "}"

    return answer


def test_a_plan_says_where_packs_of_choices_cannot_be_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_things(tmp_path / "things.jsonl", range(6))
    with FakeQwen(thing_pack) as qwen:
        for spec, told in (("name, sold: bool, used: bool", [UNSEEN]), ("name, sold: bool", [])):
            caplog.clear()
            estimate(job_for(source, tmp_path / "out", qwen, schema=spec, records_per_call=4))
            assert caplog.messages == told


def test_a_pack_gives_every_record_its_row_in_fewer_calls(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(22))
    with FakeQwen(thing_pack) as qwen:
        alone = run_things(source, tmp_path / "alone", qwen)
        assert qwen.count == 22
        report = run_things(source, tmp_path / "packed", qwen, records_per_call=4)
        assert qwen.count == 22 + 7, "chunks of 10, 10 and 2: packs of 4, 4, 2, twice, and one of 2"
        again = run_things(source, tmp_path / "packed", qwen, records_per_call=4)
    assert rows(tmp_path / "packed") == rows(tmp_path / "alone")
    assert (report.rows, report.calls, report.tries, report.failures) == (22, 7, 7, 0)
    assert (again.skipped, again.calls) == (22, 0)
    assert report.input_tokens < alone.input_tokens * 0.6
    found = sums(tmp_path / "packed")
    assert (found["rows"], found["calls"], found["input"]) == (22, 7, report.input_tokens)
    assert meta_sums(tmp_path / "packed") == (report.input_tokens, report.output_tokens, report.cost)


def test_a_record_that_was_left_out_is_asked_alone_and_pays_both(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(10))
    with FakeQwen(without(3)) as qwen:
        report = run_things(source, tmp_path / "out", qwen, records_per_call=5)
        assert qwen.count == 3
        paid = [len(records_of(seen.body)) for seen in qwen.requests]
    assert sorted(paid) == [1, 5, 5] and (report.rows, report.calls, report.tries) == (10, 3, 3)
    assert meta_sums(tmp_path / "out")[:2] == (report.input_tokens, report.output_tokens)
    mine = query(
        tmp_path / "out", "select status, pack is null as alone, try_number from thing_calls where record_id = 'r00003' order by 3"
    ).to_pylist()  # fmt: skip
    assert [(one["status"], one["alone"]) for one in mine] == [("unanswered", False), ("ok", True)]
    assert sums(tmp_path / "out")["input"] == report.input_tokens


@pytest.mark.parametrize(
    "bad",
    [
        "I cannot help with that.",
        '{"1": {"name": "thing',
        '{"5": {"name": "x"}}',
        Fault.moderation(),
        Fault.status(400, "invalid_parameter_error", "bad request"),
    ],
    ids=["no JSON", "cut", "unknown", "refused", "400"],
)
def test_a_pack_that_fails_as_a_whole_is_asked_one_by_one(tmp_path: Path, bad: str | Fault) -> None:
    source = write_things(tmp_path / "things.jsonl", range(4))

    def answer(body: dict[str, Any]) -> str | Fault:
        return thing_pack(body) if len(records_of(body)) == 1 else bad

    with FakeQwen(answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen, records_per_call=4)
        assert qwen.count == 5
    assert (report.rows, report.failures, report.tries) == (4, 0, 5)
    assert meta_sums(tmp_path / "out")[:2] == (report.input_tokens, report.output_tokens)
    assert sums(tmp_path / "out")["input"] == report.input_tokens


def test_answers_that_were_swapped_are_asked_again(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1, 5))

    def answer(body: dict[str, Any]) -> str:
        texts = records_of(body)
        turned = [texts[1], texts[0], *texts[2:]] if len(texts) > 1 else texts
        return thing_pack(body) if len(texts) == 1 else (
            "{" + ",".join(f'"{number}":{thing_of(text)}' for number, text in enumerate(turned, start=1)) + "}"
        )  # fmt: skip

    with FakeQwen(answer) as qwen:
        run_things(source, tmp_path / "out", qwen, records_per_call=4)
        assert qwen.count == 3
    found = {row["record_id"]: row["name"] for row in current_rows(tmp_path / "out").to_pylist()}
    assert found == {f"r{n:05}": f"thing-{n:07}" for n in range(1, 5)}


def test_a_wrong_value_in_a_pack_is_corrected_alone(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(4))

    def answer(body: dict[str, Any]) -> str:
        if "Your last answer" in str(body):
            return '{"price":2.02}'
        return thing_pack(body).replace('"price":2.02', '"price":"?"')

    with FakeQwen(answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen, records_per_call=4)
        assert qwen.count == 2 and len(records_of(qwen.requests[1].body)) == 1
    corrected = {row["record_id"]: row["_meta"]["corrected"] for row in current_rows(tmp_path / "out").to_pylist()}
    assert corrected == {"r00000": [], "r00001": [], "r00002": ["price"], "r00003": []}
    assert report.rows == 4


def test_one_record_that_fails_leaves_the_others_of_its_pack_alone(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(4))

    def answer(body: dict[str, Any]) -> str | Fault:
        texts = records_of(body)
        return Fault.moderation() if any("thing-0000002" in text for text in texts) else thing_pack(body)

    with FakeQwen(answer) as qwen:
        report = run_things(source, tmp_path / "out", qwen, records_per_call=4)
        assert (report.rows, report.failures, qwen.count) == (3, 1, 5)
    assert open_failures(tmp_path / "out").column("record_id").to_pylist() == ["r00002"]


def test_an_error_of_ours_costs_the_pack_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*given: object) -> set[str]:
        raise RuntimeError("a bug")

    source = write_things(tmp_path / "things.jsonl", range(4))
    monkeypatch.setattr("extractors.packing._mixed_up", lambda recipe, records, values: breaks() if values else set())
    with FakeQwen(thing_pack) as qwen:
        report = run_things(source, tmp_path / "out", qwen, records_per_call=4)
        assert (report.rows, qwen.count) == (4, 5)
    assert meta_sums(tmp_path / "out")[:2] == (report.input_tokens, report.output_tokens)
    assert sums(tmp_path / "out")["input"] == report.input_tokens


def test_shares_that_cannot_be_kept_end_the_run_and_what_was_done_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Journal.append_all
    packs: list[int] = []

    def full(self: Journal, entries: Any) -> None:
        packs.append(len(entries))
        if len(packs) == 2:
            raise OutputError("the disk is full")
        kept(self, entries)

    source = write_things(tmp_path / "things.jsonl", range(8))
    monkeypatch.setattr(Journal, "append_all", full)
    with FakeQwen(thing_pack) as qwen:
        job = job_for(source, tmp_path / "out", qwen, records_per_call=4, concurrency=1)
        with pytest.raises(OutputError, match="the disk is full"):
            run(job, settings=Settings())
        assert (packs, current_rows(tmp_path / "out").num_rows) == ([4, 4], 4)
        assert run(job, settings=Settings()).rows == 4 and qwen.count == 3


def test_who_packs_in_vain_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(without(*range(0, 40, 2))) as qwen:
        run_things(source, tmp_path / "out", qwen, records_per_call=4)
    [told] = [one.getMessage() for one in caplog.records if "in packs" in one.getMessage()]
    # How many had come back by then depends on the order of the replies.
    counted = re.match(r"(\d+) of the first (\d+) records", told)
    assert counted is not None and int(counted[2]) == 2 * int(counted[1]) >= 20 and "costs more" in told


def test_a_ceiling_holds_the_worst_case_of_all_records_of_a_pack(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(thing_pack) as qwen:
        report = run_things(
            source,
            tmp_path / "out",
            qwen,
            records_per_call=4,
            max_tokens=6_000,
            max_output_tokens=300,
            concurrency=3,
        )
        spent = report.input_tokens + report.output_tokens
        assert report.stopped is not None and report.undone and 0 < spent <= 6_000
        more = run_things(source, tmp_path / "out", qwen, records_per_call=4, max_output_tokens=300)
    assert more.undone == 0 and len(rows(tmp_path / "out")) == 40 and qwen.count == 12


# Kill and replay --------------------------------------------------------------------------------------


def test_shares_of_an_interrupted_run_are_found_and_paid_once(tmp_path: Path) -> None:
    """The run is stopped after its packs came back and before the record that was left out is asked alone."""
    source = write_things(tmp_path / "things.jsonl", range(10))
    job = job_for(source, tmp_path / "out", "", records_per_call=5, transport_attempts=1)

    def dies_alone(body: dict[str, Any]) -> str | Fault:
        return Fault.status(401, "invalid_api_key", "no") if len(records_of(body)) == 1 else without(3)(body)

    with FakeQwen(dies_alone) as qwen:
        with pytest.raises(Exception, match="no"):
            run(job.model_copy(update={"base_url": qwen.base_url}), settings=Settings())
        packs = [seen for seen in qwen.requests if len(records_of(seen.body)) > 1]
        assert len(packs) == 2
    with FakeQwen(thing_pack) as qwen:
        report = run(job.model_copy(update={"base_url": qwen.base_url}), settings=Settings())
        assert qwen.count == 1 and len(records_of(qwen.requests[0].body)) == 1
    assert report.undone == 0 and len(rows(tmp_path / "out")) == 10
    found = sums(tmp_path / "out")
    ok = query(
        tmp_path / "out", "select count(*) as n from thing_calls where status in ('ok', 'unanswered')"
    ).to_pylist()
    assert ok == [{"n": 11}], "ten shares, and one answer alone"
    assert meta_sums(tmp_path / "out") == (found["input"], found["output"], found["cost"])


def answer_with_gaps(body: dict[str, Any]) -> Reply:
    """Of every pack the first record whose number is a multiple of 3 is left out."""
    texts = records_of(body)
    if len(texts) == 1:
        return Reply(thing_pack(body), delay=0.02)
    numbers = [int(re.search(r"thing-(\d+)", text)[1]) for text in texts]  # type: ignore[index]
    return Reply(without(*[number for number in numbers if not number % 3][:1])(body), delay=0.02)


@pytest.mark.timeout(300)
def test_a_killed_run_of_packs_is_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    chance = random.Random(5)
    source = write_things(tmp_path / "things.jsonl", range(60))
    command = [
        str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--id", "id", "--model",
        "qwen-plus", "--chunk-size", "20", "--concurrency", "3", "--records-per-call", "4", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "DASHSCOPE_API_KEY": ""}

    def killed(out: Path, url: str, after: float) -> bool:
        process = subprocess.Popen(
            [*command, "--out", str(out), "--base-url", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        try:
            assert process.wait(after) == 0
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True

    with FakeQwen(answer_with_gaps) as qwen:
        clock = time.perf_counter()
        assert not killed(tmp_path / "calm", qwen.base_url, 60)
        whole = time.perf_counter() - clock
        calm = qwen.count
        qwen.forget()
        kills = sum(killed(tmp_path / "out", qwen.base_url, whole * chance.uniform(0.5, 1.0)) for _ in range(2))
        assert not killed(tmp_path / "out", qwen.base_url, 60)
        assert qwen.count - calm <= kills * 3, f"{qwen.count - calm} calls repeated after {kills} kills"
    assert rows(tmp_path / "out") == rows(tmp_path / "calm")
    for out in (tmp_path / "calm", tmp_path / "out"):
        found = sums(out)
        assert meta_sums(out) == (found["input"], found["output"], found["cost"])
    assert meta_sums(tmp_path / "out") == meta_sums(tmp_path / "calm"), (
        "what packs cost is neither lost nor twice there"
    )
    assert not list((tmp_path / "out").glob("thing/*/journal/*"))
