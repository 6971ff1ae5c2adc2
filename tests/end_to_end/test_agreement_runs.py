"""Agreement over whole runs with the simulator: counts that add up, nothing paid twice, and what the plan says of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from extractors.calibration import Calibration
from extractors.endpoint import Settings
from extractors.pipeline import run
from extractors.planning import estimate
from extractors.stages import take_sample
from extractors.store.catalog import query
from flows.cli.app import app
from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import record_of, thing_answer, thing_pack
from tests.fakes.qwen import FakeQwen, Reply

QUARRY = Path(sys.executable).with_name("quarry")
SCHEMA = "what, color?"


def write_items(path: Path, count: int) -> Path:
    path.write_text(
        "".join(json.dumps({"id": f"r{n}", "text": f"item {n}: a red kettle, or blue"}) + "\n" for n in range(count))
    )
    return path


def number_of(asked: Any) -> int:
    return int(record_of(asked).split("item ")[1].split(":")[0])


def wavering(asked: Any) -> str:
    """Of every fourth record it says another colour when it is sampled, and of every fifth it finds one only then."""
    n, sampled = number_of(asked), asked["temperature"] > 0
    if asked["model"] == "qwen-max":
        return json.dumps({"color": "blue"})
    color = ("blue" if sampled else "red") if n % 4 == 0 else ("red" if sampled else None) if n % 5 == 0 else "red"
    return json.dumps({"what": "kettle", "color": color})


def purposes(out: Path, name: str = "extraction") -> list[tuple[Any, ...]]:
    told = query(
        out, f"select purpose, model, count(*), count(distinct request) from {name}_calls group by all order by 1"
    )
    return [tuple(row.values()) for row in told.to_pylist()]


def test_what_a_model_says_otherwise_the_second_time_is_listed_as_doubtful(tmp_path: Path) -> None:
    source = write_items(tmp_path / "items.jsonl", 20)
    with FakeQwen(wavering) as qwen:
        job = job_for(source, tmp_path / "out", qwen, schema=SCHEMA, agreement="always")
        planned = estimate(job, settings=Settings())
        report = run(job, settings=Settings())
        again = run(job, settings=Settings())
        assert (qwen.count, report.rows, report.calls, again.calls) == (40, 20, 40, 0)
        prompts = {json.dumps(seen.body["messages"]) for seen in qwen.requests}
    assert len(prompts) == 20, "the second question is the first one's very words"
    assert purposes(tmp_path / "out") == [("agree", "qwen-plus", 20, 20), ("extract", "qwen-plus", 20, 20)]
    assert planned.as_dict()["asked_twice"] == 20
    assert 0.9 < planned.input_tokens / report.input_tokens < 1.6
    listed = query(tmp_path / "out", "select record_id, path, confidence from extraction_doubtful order by all")
    assert [tuple(row.values()) for row in listed.to_pylist()] == [
        (f"r{n}", "color", 0.3) for n in sorted((0, 4, 5, 8, 10, 12, 15, 16), key=str)
    ]
    sums = query(
        tmp_path / "out",
        "select (select sum(_meta.input_tokens) from extraction)::bigint as rows, "
        "(select sum(input_tokens) from extraction_calls)::bigint as calls",
    )
    assert set(sums.to_pylist()[0].values()) == {report.input_tokens}


def test_just_the_disagreed_fields_go_to_the_final_model(tmp_path: Path) -> None:
    source = write_items(tmp_path / "items.jsonl", 20)
    with FakeQwen(wavering) as qwen:
        told = {"model": "qwen-flash", "final": "qwen-max", "schema": SCHEMA, "route_below": 0.0}
        report = run(job_for(source, tmp_path / "out", qwen, agreement="always", **told), settings=Settings())
        assert qwen.count == 20 + 20 + 8
        plain = run(job_for(source, tmp_path / "plain", qwen, **told), settings=Settings())
        assert qwen.count == 48 + 20 and plain.routing is not None and plain.routing["routed_records"] == 0
    assert report.routing is not None
    assert (report.routing["routed_records"], report.routing["routed_fields"]) == (8, 8)
    assert report.routing["draft_cost"] > 1.5 * plain.routing["draft_cost"], (
        "what the second answers cost is the draft's"
    )
    assert purposes(tmp_path / "out") == [
        ("agree", "qwen-flash", 20, 20),
        ("extract", "qwen-flash", 20, 20),
        ("route", "qwen-max", 8, 8),
    ]
    colors = query(tmp_path / "out", "select color, count(*) from extraction group by all order by all").to_pylist()
    assert [tuple(row.values()) for row in colors] == [("blue", 8), ("red", 12)]


def test_a_killed_run_pays_neither_answer_twice(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(12))
    half = threading.Event()
    seen: list[float] = []

    def slow(body: dict[str, Any]) -> Reply:
        seen.append(body["temperature"])
        if len(seen) == 14:
            half.set()
        # From there on nothing is answered until the run is killed.
        return Reply(thing_answer(body), delay=60 if half.is_set() and not resumed.is_set() else 0)

    resumed = threading.Event()
    with FakeQwen(slow) as qwen:
        command = [
            str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.things:Thing", "--out", str(tmp_path / "out"),
            "--id", "id", "--model", "qwen-plus", "--base-url", qwen.base_url, "--chunk-size", "20", "--concurrency", "1",
            "--agreement", "always", "--json",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert half.wait(60)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed.set()
        report = run_things(source, tmp_path / "out", qwen, chunk_size=20, agreement="always")
        assert (report.rows, qwen.count) == (12, 25), "24 questions, and the one that was in flight once more"
    assert purposes(tmp_path / "out", "thing") == [("agree", "qwen-plus", 12, 12), ("extract", "qwen-plus", 12, 12)]


def test_the_batch_lane_asks_the_second_question_in_a_round_of_its_own(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(20))
    with FakeQwen(thing_answer) as qwen:
        live = run_things(source, tmp_path / "live", qwen, agreement="always")
        asked = qwen.count
        report = run_things(
            source, tmp_path / "batch", qwen, agreement="always", lane="batch", batch_poll=0.01, chunk_size=20
        )
        assert (qwen.count, len(qwen.batches.kept)) == (asked, 2)
    assert report.calls == live.calls == asked == 40
    told = "select record_id, name, price, _confidence from thing order by record_id"
    assert query(tmp_path / "live", told).to_pylist() == query(tmp_path / "batch", told).to_pylist()


def test_the_records_of_a_pack_are_asked_their_second_question_alone(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(8))
    with FakeQwen(thing_pack) as qwen:
        report = run_things(source, tmp_path / "out", qwen, records_per_call=4, agreement="always")
        assert (qwen.count, report.rows, report.calls) == (10, 8, 10)
    told = query(tmp_path / "out", "select purpose, count(*), count(pack) from thing_calls group by all order by 1")
    assert [tuple(row.values()) for row in told.to_pylist()] == [("agree", 8, 0), ("extract", 8, 8)]


def test_a_ceiling_holds_for_the_second_questions_too(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(40))
    with FakeQwen(thing_answer) as qwen:
        options = {"agreement": "always", "max_output_tokens": 64, "concurrency": 4}
        report = run_things(source, tmp_path / "out", qwen, max_tokens=10_000, **options)
        assert report.stopped is not None and report.stopped.startswith("budget") and 0 < report.undone < 40
        spent = query(tmp_path / "out", "select sum(input_tokens + output_tokens)::bigint as n from thing_calls")
        assert spent.to_pylist()[0]["n"] <= 10_000
        assert run_things(source, tmp_path / "out", qwen, **options).undone == 0
        assert qwen.count == 80


def test_the_plan_counts_a_second_question_for_each_record_and_the_sample_measures_it_as_usual(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(60))
    with FakeQwen(thing_answer) as qwen:
        once, twice = (
            estimate(job_for(source, tmp_path / "out", qwen, agreement=how), settings=Settings())
            for how in ("never", "always")
        )
        assert (twice.input_tokens, twice.output_tokens) == (2 * once.input_tokens, 2 * once.output_tokens)
        assert twice.cost == 2 * (once.cost or 0) and qwen.count == 0
        assert "60 are asked a second time" in "\n".join(twice.lines())
        assert "second time" not in "\n".join(once.lines())
        told = take_sample(job_for(source, tmp_path / "out", qwen, agreement="always", sample=20), settings=Settings())
        assert qwen.count == 40
        known = estimate(job_for(source, tmp_path / "out", qwen, agreement="always"), settings=Settings())
    assert told.forecast is not None and told.forecast.further == 0, (
        "a second answer that every text has is no correction"
    )
    assert told.forecast.input_tokens.low > 1.5 * once.input_tokens * 40 / 60
    rows = query(tmp_path / "out", "select sum(output_tokens)::bigint as n from thing_calls").to_pylist()
    assert known.output_tokens == rows[0]["n"] * 2, "what 20 records said in both of their answers, for 40 more"


def test_calibrating_with_agreement_makes_a_map_for_jobs_that_have_it(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text(
        "".join(
            json.dumps({"id": f"r{n}", "text": f"item {n}: a red kettle, or blue", "expected": {"what": "kettle", "color": "red" if n % 4 else "blue"}}) + "\n"
            for n in range(60)
        )
    )  # fmt: skip
    with FakeQwen(wavering) as qwen:
        options = ["--schema", SCHEMA, "--out", str(tmp_path / "out"), "--model", "qwen-plus", "--json", "--agreement",
                   "always", "--base-url", qwen.base_url, "--save", str(tmp_path / "c.json")]  # fmt: skip
        found = CliRunner().invoke(app, ["calibrate", str(golden), *options])
        assert found.exit_code == 0, found.output
        calibration = Calibration.load(tmp_path / "c.json", agreement=True)
        assert calibration.apply(0.3) < 0.1 and calibration.apply(0.95) > 0.9
        source = write_items(tmp_path / "items.jsonl", 4)
        told = {"schema": SCHEMA, "agreement": "always", "calibration": str(tmp_path / "c.json")}
        assert run(job_for(source, tmp_path / "rows", qwen, **told), settings=Settings()).rows == 4
        bare = [
            one for one in options if one not in ("--agreement", "always", "--json", "--save", str(tmp_path / "c.json"))
        ]
        refused = CliRunner().invoke(app, ["run", str(source), *bare, "--calibration", str(tmp_path / "c.json")])
        assert refused.exit_code != 0 and "fitted on scores with agreement" in str(refused.output) + str(
            refused.exception
        )


def test_finding_out_whether_routing_pays_asks_the_draft_twice_and_the_final_once(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    label = {"what": "kettle", "color": "blue"}
    items = [{"id": f"r{n}", "text": f"item {n}: a red kettle, or blue", "expected": label} for n in range(10)]
    golden.write_text("".join(json.dumps(item) + "\n" for item in items))

    def models(asked: Any) -> str:
        return json.dumps(label) if asked["model"] == "qwen-max" else wavering(asked)

    with FakeQwen(models) as qwen:
        options = ["--schema", SCHEMA, "--out", str(tmp_path / "out"), "--model", "qwen-flash", "--final", "qwen-max",
                   "--base-url", qwen.base_url, "--agreement", "always"]  # fmt: skip
        found = CliRunner().invoke(app, ["route", str(golden), *options])
        assert found.exit_code == 0, found.output
        asked = [seen.body["model"] for seen in qwen.requests]
    assert (asked.count("qwen-flash"), asked.count("qwen-max")) == (20, 10)
