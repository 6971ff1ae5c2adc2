"""Right values over whole runs with the simulator: what reaches the table whatever the model answers."""

from __future__ import annotations

import html
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from extractors.calibration import Calibration
from extractors.endpoint import Settings
from extractors.errors import ModelMissing
from extractors.pipeline import Silent, run
from extractors.report import Progress, RunReport
from extractors.reporting import write_report
from extractors.store.catalog import query
from extractors.store.plan import PlanCounts
from flows.cli.app import app
from flows.summary import summary_markdown
from tests.end_to_end.things import job_for
from tests.fakes.answers import records_of
from tests.fakes.qwen import FakeQwen, Fault

runner = CliRunner()
WORDS = ["red", "blue", "kettle", "lamp", "Berlin", "12", "4.50", "old", "new", "Müller"]


def write_texts(path: Path, count: int) -> dict[str, str]:
    draw = random.Random(5)
    texts = {f"r{n:03}": f"No {n}: " + " ".join(draw.choices(WORDS, k=8)) for n in range(count)}
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    return texts


def test_no_verbatim_value_outside_of_its_record_reaches_the_table(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.jsonl", 60)
    draw = random.Random(1)

    def liar(asked: Any) -> str:
        keys = asked.schema["properties"]
        return json.dumps({key: " ".join(draw.choices(WORDS, k=draw.choice([1, 1, 2]))) for key in keys})

    with FakeQwen(liar) as qwen:
        job = job_for(tmp_path / "texts.jsonl", tmp_path / "out", qwen)
        job = job.model_copy(update={"schema_spec": "what: verbatim, where: verbatim?", "mode": "json_schema"})
        report = run(job, settings=Settings())
    assert report.rows + report.failures == 60 and report.rows > 5 and report.failures > 5
    assert set(report.failures_by_reason) == {"ungrounded"}
    for row in query(tmp_path / "out", 'select record_id, what, "where" from extraction').to_pylist():
        assert row["what"] in texts[row["record_id"]]
        assert row["where"] is None or row["where"] in texts[row["record_id"]]


def test_the_review_lists_the_values_that_someone_should_look_at(tmp_path: Path) -> None:
    texts = {"a": "a red kettle", "b": "a blue lamp"}
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    with FakeQwen(lambda asked: json.dumps({"what": "kettle", "color": "a red"})) as qwen:
        job = job_for(source, tmp_path / "out", qwen, schema="what, color", review_below=0.8)
        run(job, settings=Settings())
    rows = query(tmp_path / "out", "select record_id, what, _confidence from extraction order by all").to_pylist()
    assert [dict(row["_confidence"]) for row in rows] == [{"what": 0.9, "color": 0.9}, {"what": 0.1, "color": 0.1}]
    listed = query(tmp_path / "out", "select record_id, path, confidence, match from extraction_doubtful").to_pylist()
    assert [tuple(row.values()) for row in listed] == [
        ("b", "color", 0.1, "ungrounded"),
        ("b", "what", 0.1, "ungrounded"),
    ]


def test_a_final_model_is_asked_just_what_the_draft_is_not_sure_of(tmp_path: Path) -> None:
    texts = {f"r{n}": f"item {n}: a {'red' if n % 4 else 'blue'} kettle" for n in range(20)}
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))

    def models(asked: Any) -> str:
        text = asked["messages"][-1]["content"]
        if asked["model"] == "qwen-flash":
            return json.dumps({"what": "kettle", "color": "red"})
        assert asked["model"] == "qwen-max" and "blue" in text
        return json.dumps({"color": "blue"})

    with FakeQwen(models) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model="qwen-flash", final="qwen-max", schema="what, color")
        report = run(job, settings=Settings())
        assert (report.rows, qwen.count) == (20, 25)
        again = run(job, settings=Settings())
        assert (again.skipped, again.recipe, qwen.count) == (20, report.recipe, 25)
    rows = query(tmp_path / "out", "select record_id, color, _meta.model as model from extraction").to_pylist()
    for row in rows:
        assert row["color"] in texts[row["record_id"]]
        assert row["model"] == ("qwen-flash+qwen-max" if row["color"] == "blue" else "qwen-flash")
    told = report.routing
    assert told is not None
    assert (told["records"], told["routed_records"], told["routed_fields"], told["values_kept"]) == (20, 5, 5, 35)
    assert told["final_tokens_saved"] > 0
    purposes = query(
        tmp_path / "out", "select purpose, model, count(*) from extraction_calls group by all order by all"
    )
    assert [tuple(row.values()) for row in purposes.to_pylist()] == [
        ("extract", "qwen-flash", 20),
        ("route", "qwen-max", 5),
    ]


@pytest.mark.parametrize("final", [Fault.status(500), "Sorry, I think that it is blue."])
def test_a_final_model_that_never_answers_is_told_of_wherever_people_read(tmp_path: Path, final: Any) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": f"r{n}", "text": f"item {n}: a blue kettle"}) + "\n" for n in range(3)))
    draft = json.dumps({"what": "kettle", "color": "red"})
    out = tmp_path / "out"
    with FakeQwen(lambda asked: draft if asked["model"] == "qwen-flash" else final) as qwen:
        options = [
            "--schema",
            "what, color",
            "--model",
            "qwen-flash",
            "--final",
            "qwen-max",
            "--base-url",
            qwen.base_url,
        ]
        done = runner.invoke(app, ["run", str(source), *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    said = "qwen-max gave no usable answer for 3 of these 3 records: the draft's values stand there"
    kept = "6 values are the draft's alone: about 3.0 of them are wrong by their own confidence"
    shown = runner.invoke(app, ["show", str(out)]).output
    page = html.unescape(write_report(out).path.read_text())
    [file] = (out / "runs").glob("*.json")
    told = {key: value for key, value in json.loads(file.read_text()).items() if key != "job"}
    artifact = html.unescape(summary_markdown(RunReport.from_dict(told))).replace("\\", "")
    for text in (done.output, shown, page, artifact):
        assert said in text and kept in text, text
    assert "less than asking it for all" not in done.output
    models = query(out, "select distinct _meta.model as model from extraction").to_pylist()
    assert [row["model"] for row in models] == ["qwen-flash"]


def test_a_final_model_that_does_not_exist_ends_the_run_by_its_name_and_costs_no_draft_twice(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": f"r{n}", "text": f"item {n}: a blue kettle"}) + "\n" for n in range(6)))
    finals: list[Any] = [Fault.status(404)]
    draft = json.dumps({"what": "kettle", "color": "red"})
    with FakeQwen(lambda asked: draft if asked["model"] == "qwen-flash" else finals[-1]) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model="qwen-flash", final="qwen-mxa", schema="what, color")
        with pytest.raises(
            ModelMissing, match=r"the final model qwen-mxa: .*HTTP 404.*check --final.*QWEN_FINAL_MODEL"
        ):
            run(job, settings=Settings())
        finals.append('{"color": "blue"}')
        assert run(job, settings=Settings()).rows == 6
        drafts = [one for one in qwen.requests if one.body["model"] == "qwen-flash"]
        assert len(drafts) == 6
    with FakeQwen(lambda asked: Fault.status(404)) as qwen:
        job = job_for(source, tmp_path / "other", qwen, model="qwen-flsh", final="qwen-max", schema="what, color")
        with pytest.raises(ModelMissing, match=r"^the model or the address is unknown .*check --model"):
            run(job, settings=Settings())


class _Watching(Silent):
    def planned(self, counts: PlanCounts, progress: Progress) -> None:
        self.progress = progress


@pytest.mark.parametrize("together", [1, 4])
def test_a_run_that_a_ceiling_stops_says_what_it_paid_for_records_that_it_left(tmp_path: Path, together: int) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text(
        "".join(json.dumps({"id": f"r{n}", "text": f"item {n}: a blue kettle"}) + "\n" for n in range(40))
    )
    draft = {"what": "kettle", "color": "red"}

    def models(asked: Any) -> str:
        if asked["model"] != "qwen-flash":
            return json.dumps({"color": "blue"})
        many = len(records_of(asked))
        # The second of a pack is left out, and asked alone.
        return json.dumps(draft if many == 1 else {str(n): draft for n in range(1, many + 1) if n != 2})

    with FakeQwen(models) as qwen:
        job = job_for(source, tmp_path / "out", qwen, model="qwen-flash", final="qwen-max", schema="what, color",
                      max_cost=Decimal("0.0028"), max_output_tokens=64, concurrency=8, records_per_call=together)  # fmt: skip
        watching = _Watching()
        report = run(job, settings=Settings(), watch=watching)
        assert report.stopped is not None and "budget" in report.stopped and report.undone
        assert report.unfinished_calls and report.cost is not None and report.unfinished_cost
        assert report.cost + report.unfinished_cost == watching.progress.cost
        assert report.calls + report.unfinished_calls <= qwen.count
        told = f"{report.unfinished_calls:,} more calls, {report.unfinished_cost:.6f} USD, were for records that are left undone"
        assert told in runner.invoke(app, ["show", str(tmp_path / "out")]).output
        assert told in summary_markdown(report).replace("\\", "")
        assert told in html.unescape(write_report(tmp_path / "out").path.read_text())
        again = run(job.model_copy(update={"max_cost": None}), settings=Settings())
    assert (again.undone, again.unfinished_calls, again.unfinished_cost) == (0, 0, 0)
    [paid] = query(tmp_path / "out", "select sum(cost) as cost from extraction_calls").to_pylist()
    assert report.cost + (again.cost or 0) == paid["cost"], "what the first run left is counted by the second"
    assert RunReport.from_dict(report.as_dict()).unfinished_cost == report.unfinished_cost


def test_calibrating_on_a_golden_set_makes_shares_of_scores_and_tells_a_threshold(tmp_path: Path) -> None:
    draw = random.Random(2)
    golden, lines = tmp_path / "golden.jsonl", []
    for n in range(120):
        word = draw.choice(["kettle", "lamp"])
        lines.append({"id": f"r{n}", "text": f"number {n}, a {word}", "expected": {"what": word, "color": None}})
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def model(asked: Any) -> str:
        text = asked["messages"][-1]["content"]
        # It copies what is there, and makes up a colour for every third record.
        color = "red" if int(text.split("number ")[1].split(",")[0]) % 3 == 0 else None
        return json.dumps({"what": "kettle" if "kettle" in text else "lamp", "color": color})

    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        "".join(json.dumps({**line, "text": None}) + "\n" for line in lines).replace('"text": null, ', "")
    )
    with FakeQwen(model) as qwen:
        options = ["--schema", "what, color?", "--out", str(tmp_path / "out"), "--model", "qwen-plus", "--json",
                   "--base-url", qwen.base_url, "--save", str(tmp_path / "c.json")]  # fmt: skip
        found = runner.invoke(app, ["calibrate", str(golden), *options])
        asked = qwen.count
        elsewhere = runner.invoke(app, ["calibrate", str(labels), "--records", str(golden), "--id", "id", *options])
        assert (qwen.count, elsewhere.exit_code) == (asked, 0), elsewhere.exception
    assert json.loads(elsewhere.stdout.splitlines()[-1]) == json.loads(found.stdout.splitlines()[-1])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["pairs"] == 160 and told["ece_after"] < 0.02 < told["ece_before"]
    assert told["threshold"] > 0.9, "what is copied is right every time, what is made up never"
    assert {(one["low"], one["right"]) for one in told["bins"]} == {(0.1, 0.0), (0.9, 1.0)}
    calibration = Calibration.load(tmp_path / "c.json")
    assert calibration.apply(0.1) < 0.05 and calibration.apply(0.9) > 0.95


def test_a_set_without_a_wrong_value_says_that_it_tells_little(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    lines = [{"id": f"r{n}", "text": f"number {n}, a lamp", "expected": {"what": "lamp"}} for n in range(100)]
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with FakeQwen(lambda asked: json.dumps({"what": "lamp"})) as qwen:
        options = ["--schema", "what", "--out", str(tmp_path / "out"), "--base-url", qwen.base_url]
        found = runner.invoke(app, ["calibrate", str(golden), *options, "--save", str(tmp_path / "c.json")])
    assert found.exit_code == 0, found.output
    assert "none of the 100 labelled values is wrong" in " ".join(found.output.split())
    below = float(found.stdout.split("--route-below ")[1].split()[0])
    fitted = Calibration.load(tmp_path / "c.json")
    assert fitted.apply(0.6) < below <= fitted.apply(0.9) < 1, "what is less sure than any value of the set is routed"


def test_of_a_pair_the_draft_is_calibrated_so_that_its_mistakes_are_routed(tmp_path: Path) -> None:
    """A map of what came out behind the final would say of the draft's mistakes that they are right."""
    golden, source = tmp_path / "golden.jsonl", tmp_path / "records.jsonl"
    lines = [{"id": f"r{n}", "text": f"number {n}, a copper kettle"} for n in range(240)]
    golden.write_text("".join(json.dumps({**line, "expected": {"what": "copper kettle"}}) + "\n" for line in lines))
    source.write_text("".join(json.dumps({**line, "text": line["text"] + "!"}) + "\n" for line in lines))

    def model(asked: Any) -> str:
        odd = int(asked["messages"][-1]["content"].split("number ")[1].split(",")[0]) % 2
        return json.dumps({"what": "coper ketle" if odd and asked["model"] == "qwen-flash" else "copper kettle"})

    with FakeQwen(model) as qwen:
        pair = ["--schema", "what", "--draft", "qwen-flash", "--final", "qwen-max", "--base-url", qwen.base_url,
                "--out", str(tmp_path / "out")]  # fmt: skip
        save = str(tmp_path / "c.json")
        found = runner.invoke(app, ["calibrate", str(golden), *pair, "--save", save])
        assert found.exit_code == 0, found.output
        assert "calibrated is the draft, qwen-flash: qwen-max" in " ".join(found.output.split())
        assert {request.body["model"] for request in qwen.requests} == {"qwen-flash"}
        below = found.stdout.split("--route-below ")[1].split()[0]
        ran = runner.invoke(app, ["run", str(source), *pair, "--calibration", save, "--route-below", below])
        assert ran.exit_code == 0, ran.output
        routed = runner.invoke(app, ["route", str(golden), *pair, "--calibration", save, "--json"])
        assert routed.exit_code == 0, "the final alone is asked without the draft's calibration"
    assert (Calibration.load(Path(save)).model, Calibration.load(Path(save)).schema) == ("qwen-flash", "extraction")
    rows = query(tmp_path / "out", "select what, _confidence, _meta.model as model from extraction order by all")
    told = [row for row in rows.to_pylist() if row["model"] == "qwen-flash+qwen-max"]
    assert len(told) == 120 and {row["what"] for row in told} == {"copper kettle"}
    assert {dict(row["_confidence"])["what"] for row in told} == {0.9}, "the final's values keep their score"


@pytest.mark.parametrize("dialect", ["chat", "responses", "dashscope"])
def test_examples_travel_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    write_texts(tmp_path / "texts.jsonl", 3)
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps({"text": "No 77: a green pan", "expected": {"what": "pan"}}) + "\n")
    seen: list[str] = []

    def model(asked: Any) -> str:
        seen.append(asked.words)
        return json.dumps({"what": "red"})

    with FakeQwen(model) as qwen:
        job = job_for(
            tmp_path / "texts.jsonl", tmp_path / "out", qwen, schema="what?", examples=str(golden), dialect=dialect
        )
        report = run(job, settings=Settings())
    assert report.rows == 3 and len(seen) >= 3
    assert all("a green pan" in words and '{"what":"pan"}' in words for words in seen)


def test_both_models_share_one_ceiling(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl", 40)

    def model(asked: Any) -> str:
        return json.dumps({key: "nowhere" for key in ("what", "where")})

    with FakeQwen(model) as qwen:
        options = {"model": "qwen-flash", "final": "qwen-max", "schema": "what, where", "max_tokens": 20_000}
        job = job_for(tmp_path / "texts.jsonl", tmp_path / "out", qwen, max_output_tokens=64, concurrency=4, **options)
        report = run(job, settings=Settings())
        assert report.stopped is not None and report.stopped.startswith("budget") and 0 < report.undone < 40
        spent = query(tmp_path / "out", "select sum(input_tokens + output_tokens)::bigint as n from extraction_calls")
        assert spent.to_pylist()[0]["n"] <= 20_000
        more = run(job.model_copy(update={"max_tokens": None}), settings=Settings())
        assert more.undone == 0
        assert qwen.count == 80, "each record one call of each model, whatever came between"
