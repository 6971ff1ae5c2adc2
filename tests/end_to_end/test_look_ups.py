"""Look-ups during extraction, over real HTTP in every dialect: asked for, executed, told, validated, kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import BaseModel, Field

from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.pipeline import run
from extractors.planning import estimate
from extractors.report import RunReport
from extractors.store.catalog import current_rows
from schemas.job import ExtractionJob
from tests.fakes.answers import record_of
from tests.fakes.qwen import Asked, FakeQwen, Reply, Rules

HERE = "tests.extractors.tools.vendors"
QUARRY = Path(sys.executable).with_name("quarry")


class Order(BaseModel):
    """What is ordered, from whom."""

    vendor: str
    vendor_id: str | None = Field(default=None, description="The vendor's number, from find_vendor.")
    total: Decimal | None = Field(default=None, max_digits=10, decimal_places=2)


def write_orders(path: Path, *names: str) -> Path:
    path.write_text(
        "".join(json.dumps({"id": name, "text": f"{name} ordered for 19.90 euros."}) + "\n" for name in names)
    )
    return path


def vendor_of(asked: dict[str, Any]) -> str:
    return record_of({"messages": [m for m in asked["messages"] if "=== RECORD" in m["content"]]}).partition(
        " ordered"
    )[0]


def may_look_up(asked: dict[str, Any]) -> bool:
    """Whether functions are offered; where the answer itself is a function's call, it is forced."""
    return bool(asked.get("tools")) and asked.get("tool_choice") == "auto"


def answer(asked: dict[str, Any]) -> Reply:
    """A model that looks the vendor up once, then answers with what it was told."""
    name = vendor_of(asked)
    if may_look_up(asked):
        if any(message["role"] == "tool" for message in asked["messages"]):
            return Reply("DONE")
        tool = asked["tools"][0]["function"]["name"]
        return Reply(None, calls=((tool, json.dumps({"name": name})),))
    found = asked["messages"][-1]["content"].partition("=== LOOK-UPS")[2]
    number = found.partition('"vendor_id":"')[2].partition('"')[0] or None
    return Reply(json.dumps({"vendor": name, "vendor_id": number, "total": 19.9}))


def run_orders(source: Path, out: Path, url: str, *tools: str, **options: Any) -> RunReport:
    job = ExtractionJob.model_validate(
        {
            "source": str(source),
            "schema": "tests.end_to_end.test_look_ups:Order",
            "out": str(out),
            "id": "id",
            "model": "qwen-plus",
            "base_url": url,
            "tools": tools or (f"{HERE}:find_vendor",),
            **options,
        }
    )
    return run(job, settings=Settings())


def calls_of(out: Path, where: str = "true") -> list[dict[str, Any]]:
    with duckdb.connect(str(out / "catalog.duckdb"), read_only=True) as con:
        return con.sql(f"select * from order_calls where {where} order by started_at").to_arrow_table().to_pylist()


def failures_of(out: Path) -> list[tuple[str, str]]:
    with duckdb.connect(str(out / "catalog.duckdb"), read_only=True) as con:
        return con.sql("select reason, message from order_failures order by record_id").fetchall()


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("dialect", ["chat", "responses", "dashscope"])
def test_what_the_model_looks_up_goes_back_to_it_in_every_dialect(tmp_path: Path, dialect: str, stream: str) -> None:
    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(answer, rules=Rules.documented(), piece=5) as qwen:
        root = qwen.native_url if dialect == "dashscope" else qwen.compat_url
        report = run_orders(source, tmp_path / "out", root, dialect=dialect, stream=stream)
        first, second, last = (seen.asked for seen in qwen.requests)
        assert not qwen.errors
    assert (report.rows, report.calls, report.tries) == (1, 3, 3)
    [row] = current_rows(tmp_path / "out").to_pylist()
    assert row["vendor_id"] == "V-0017"
    assert first is not None and second is not None and last is not None
    assert first["tool_choice"] == "auto" and "response_format" not in first
    assert second.results == ['{"vendor_id":"V-0017","name":"Acme GmbH"}']
    # The answer is asked for in the recipe's own mode, without tools, with the results behind the record.
    assert not last.results and last["messages"][-1]["content"].count("V-0017") == 1
    assert not any(message.get("tool_calls") for message in last["messages"])


def test_a_look_up_is_a_row_of_the_calls_and_no_call_of_a_model(tmp_path: Path) -> None:
    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH", "Globex")
    with FakeQwen(answer) as qwen:
        report = run_orders(source, tmp_path / "out", qwen.base_url)
        assert qwen.count == report.calls == report.tries == 6
    rows = calls_of(tmp_path / "out", "tool is not null")
    assert {row["arguments"] for row in rows} == {'{"name":"Acme GmbH"}', '{"name":"Globex"}'}
    one = next(row for row in rows if "Acme" in row["arguments"])
    assert (one["tool"], one["purpose"], one["dialect"], one["status"]) == ("find_vendor", "tool", "tool", "ok")
    assert json.loads(one["raw"]) == {"vendor_id": "V-0017", "name": "Acme GmbH"}
    assert one["latency"] >= 0 and one["cost"] == 0 and one["input_tokens"] == 0 and one["error"] is None
    assert [row["purpose"] for row in calls_of(tmp_path / "out", "record_id = 'Globex'")] == [
        "lookup", "tool", "lookup", "extract",
    ]  # fmt: skip


def test_a_value_of_a_look_up_says_which_one_and_counts_as_evidence(tmp_path: Path) -> None:
    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(answer) as qwen:
        run_orders(source, tmp_path / "out", qwen.base_url, require_evidence=("*",))
        assert qwen.count == 3, "nothing is corrected"
    [row] = current_rows(tmp_path / "out").to_pylist()
    evidence = {one["path"]: one for one in row["_evidence"]}
    number = evidence["vendor_id"]
    assert (number["match"], number["quote"], number["tool"]) == ("tool", "V-0017", "find_vendor#1")
    assert number["start"] is None and number["end"] is None
    assert (evidence["vendor"]["match"], evidence["vendor"]["tool"]) == ("exact", None)


def test_an_invented_value_has_no_evidence_in_a_look_up_either(tmp_path: Path) -> None:
    def invents(asked: dict[str, Any]) -> Reply:
        said = answer(asked)
        return Reply((said.text or "").replace("V-0017", "V-9999"), calls=said.calls)

    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(invents) as qwen:
        run_orders(source, tmp_path / "out", qwen.base_url, require_evidence=("vendor_id",))
    [row] = current_rows(tmp_path / "out").to_pylist()
    assert row["vendor_id"] is None and row["_meta"]["nulled"] == ["vendor_id"]


def test_several_calls_of_one_reply_are_each_answered(tmp_path: Path) -> None:
    def both(asked: dict[str, Any]) -> Reply:
        if may_look_up(asked) and not any(message["role"] == "tool" for message in asked["messages"]):
            return Reply(
                "Looking.", calls=(("find_vendor", '{"name":"Acme GmbH"}'), ("find_vendor", '{"name":"Globex"}'))
            )
        return answer(asked)

    source = write_orders(tmp_path / "orders.jsonl", "Globex")
    for number, dialect in enumerate(("chat", "responses")):
        with FakeQwen(both) as qwen:
            run_orders(source, tmp_path / f"out{number}", qwen.compat_url, dialect=dialect, stream="always")
            assert qwen.count == 3 and not qwen.errors
            assert [seen.asked.results for seen in qwen.requests if seen.asked and seen.asked.results] == [
                ['{"vendor_id":"V-0017","name":"Acme GmbH"}', '{"vendor_id":"V-0042","name":"Globex"}']
            ]
        assert len(calls_of(tmp_path / f"out{number}", "tool is not null")) == 2


def test_a_model_that_never_stops_calling_is_stopped_at_the_cap(tmp_path: Path) -> None:
    def restless(asked: dict[str, Any]) -> Reply:
        if may_look_up(asked):
            said = sum(message["role"] == "tool" for message in asked["messages"])
            return Reply(None, calls=(("find_vendor", json.dumps({"name": f"Name {said}"})),))
        return answer(asked)

    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(restless) as qwen:
        report = run_orders(source, tmp_path / "out", qwen.base_url, max_tool_steps=3)
        assert qwen.count == 4, "three that look up, and the answer"
    assert report.rows == 1 and len(calls_of(tmp_path / "out", "tool is not null")) == 3


def test_a_model_that_calls_the_same_again_is_told_once_and_asked_for_the_answer(tmp_path: Path) -> None:
    def circling(asked: dict[str, Any]) -> Reply:
        return Reply(None, calls=(("find_vendor", '{"name": "Acme GmbH"}'),)) if may_look_up(asked) else answer(asked)

    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(circling) as qwen:
        assert run_orders(source, tmp_path / "out", qwen.base_url).rows == 1
        assert qwen.count == 3
    assert len(calls_of(tmp_path / "out", "tool is not null")) == 1


def test_a_call_that_a_model_wrote_into_its_words_is_one(tmp_path: Path) -> None:
    def written(asked: dict[str, Any]) -> Reply:
        said = answer(asked)
        if said.calls:
            name, arguments = said.calls[0]
            return Reply(f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>')
        return said

    source = write_orders(tmp_path / "orders.jsonl", "Globex")
    with FakeQwen(written) as qwen:
        run_orders(source, tmp_path / "out", qwen.base_url)
    assert current_rows(tmp_path / "out").column("vendor_id").to_pylist() == ["V-0042"]


@pytest.mark.parametrize(
    ("tool", "reason", "said"),
    [
        ("breaks", "unavailable", "KeyError: 'Acme GmbH'"),
        ("leaves", "unavailable", "SystemExit: Acme GmbH"),
        ("sleeps", "timed_out", "no result within 0.1 s"),
        ("sleeps_async", "timed_out", "no result within 0.1 s"),
        ("no_json", "invalid", "no JSON"),
        ("too_long", "invalid", "20,000 at most"),
    ],
)
def test_a_failure_is_told_once_and_then_the_record_fails_by_itself(
    tmp_path: Path, tool: str, reason: str, said: str
) -> None:
    def stubborn(asked: dict[str, Any]) -> Reply:
        name = vendor_of(asked)
        if name == "Globex":
            return Reply("DONE") if may_look_up(asked) else answer(asked)
        told = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        assert all("error" in json.loads(one) for one in told)
        return Reply(None, calls=((tool, json.dumps({"name": name + "!" * len(told)})),))

    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH", "Globex")
    with FakeQwen(stubborn) as qwen:
        report = run_orders(source, tmp_path / "out", qwen.base_url, f"{HERE}:{tool}", tool_timeout=0.1)
        assert not qwen.errors
    assert (report.rows, report.failures_by_reason) == (1, {reason: 1})
    [(_, message)] = failures_of(tmp_path / "out")
    assert message.startswith(f'the look-up {tool}({{"name":"Acme GmbH!"}}) failed again') and "told" in message
    tried = calls_of(tmp_path / "out", "tool is not null")
    assert [row["status"] for row in tried] == ["error", "error"] and said in tried[0]["error"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("find_vendor", '{"name": '), "JSON"),
        (("find_vendor", ""), "Field required"),
        (("find_vendor", '{"name": "x", "more": 1}'), "not permitted"),
        (("remove_vendor", '{"name": "Acme GmbH"}'), "there is no function 'remove_vendor'; there are find_vendor"),
    ],
)
def test_a_call_that_cannot_be_made_is_told_and_may_be_mended(tmp_path: Path, call: tuple[str, str], told: str) -> None:
    def mends(asked: dict[str, Any]) -> Reply:
        results = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        if not may_look_up(asked) or len(results) > 1:
            return answer(asked)
        if not results:
            return Reply(None, calls=(call,))
        assert told in json.loads(results[0])["error"]
        return Reply(None, calls=(("find_vendor", '{"name": "Acme GmbH"}'),))

    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(mends) as qwen:
        run_orders(source, tmp_path / "out", qwen.base_url)
        assert not qwen.errors and qwen.count == 4
    assert current_rows(tmp_path / "out").column("vendor_id").to_pylist() == ["V-0017"]


def test_a_correction_sees_what_was_looked_up_too(tmp_path: Path) -> None:
    def wrong_once(asked: dict[str, Any]) -> Reply:
        said = answer(asked)
        last = asked["messages"][-1]["content"]
        if may_look_up(asked):
            return said
        if "Your last answer was wrong" in last:
            assert last.index("=== END") < last.index("=== LOOK-UPS") < last.index("Your last answer was wrong")
            return Reply('{"total": 19.9}')
        return Reply((said.text or "").replace("19.9", '"many"'))

    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(wrong_once) as qwen:
        assert run_orders(source, tmp_path / "out", qwen.base_url).rows == 1
        assert not qwen.errors and qwen.count == 4


def test_a_read_only_query_is_a_look_up(tmp_path: Path) -> None:
    database = tmp_path / "vendors.duckdb"
    with duckdb.connect(str(database)) as con:
        con.execute("create table vendors as select 'V-0017' as vendor_id, 'Acme GmbH' as name")
    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH", "'; drop table vendors; --")
    tool = f"find_vendor=duckdb:{database}:select vendor_id from vendors where name ilike $name"
    with FakeQwen(answer) as qwen:
        report = run_orders(source, tmp_path / "out", qwen.base_url, tool)
        schema = qwen.requests[0].body["tools"][0]["function"]
    assert report.rows == 2
    assert schema["parameters"]["properties"] == {"name": {"type": "string"}} and "vendor_id" in schema["description"]
    rows = {row["arguments"]: row["raw"] for row in calls_of(tmp_path / "out", "tool is not null")}
    assert rows == {
        '{"name":"Acme GmbH"}': '[{"vendor_id":"V-0017"}]',
        '{"name":"\'; drop table vendors; --"}': "[]",
    }


def test_the_source_and_a_look_up_may_be_tables_of_one_file(tmp_path: Path) -> None:
    database = tmp_path / "shop.duckdb"
    with duckdb.connect(str(database)) as con:
        con.execute("create table vendors as select 'V-0017' as vendor_id, 'Acme GmbH' as name")
        con.execute("create table orders as select 'a' as id, 'Acme GmbH ordered for 19.90 euros.' as text")
    tool = f"find_vendor=duckdb:{database}:select vendor_id from vendors where name = $name"
    with FakeQwen(answer) as qwen:
        report = run_orders(Path("orders"), tmp_path / "out", qwen.base_url, tool, duckdb=str(database))
    assert report.rows == 1


def test_batches_refuse_look_ups_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="look-ups are made in the live lane only"):
        run_orders(tmp_path / "none.jsonl", tmp_path / "out", "http://127.0.0.1:9/v1", lane="batch")


def test_look_ups_are_part_of_the_recipe_where_there_are_any(tmp_path: Path) -> None:
    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with FakeQwen(answer) as qwen:
        with_tool = run_orders(source, tmp_path / "out", qwen.base_url)
        other = run_orders(source, tmp_path / "out", qwen.base_url, f"{HERE}:find_slowly")
        assert calls_of(tmp_path / "out", "tool = 'find_slowly'")[0]["status"] == "ok", "async functions work too"
        again = run_orders(source, tmp_path / "out", qwen.base_url, tool_timeout=3)
    assert with_tool.recipe != other.recipe and again.recipe == with_tool.recipe and again.skipped == 1


def test_a_tool_that_cannot_be_loaded_stops_the_run_at_its_start(tmp_path: Path) -> None:
    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH")
    with pytest.raises(JobError, match="the module has no find_nothing"):
        run_orders(source, tmp_path / "out", "http://127.0.0.1:9/v1", f"{HERE}:find_nothing")


def kept_results(out: Path) -> set[str]:
    """The arguments' names of the look-ups whose results are in a journal."""
    lines = [line for file in out.glob("order/*/journal/*.jsonl") for line in file.read_text().splitlines()]
    entries = [json.loads(line.partition(" ")[2]) for line in lines if line.endswith("}")]
    return {json.loads(one["tool"][0])["vendor_id"][2:] for one in entries if "tool" in one}


def test_kill_9_between_look_ups_and_none_that_was_kept_is_made_twice(tmp_path: Path) -> None:
    """Killed again and again; the function's own file says how often it was called, and when."""
    names = [f"Shop{number:02}" for number in range(24)]
    source = write_orders(tmp_path / "orders.jsonl", *names)
    counted = tmp_path / "counted.txt"
    environment = {**os.environ, "DASHSCOPE_API_KEY": "", "COUNTED": str(counted)}

    def slow(asked: Asked) -> Reply:
        said = answer(asked)
        return Reply(said.text, calls=said.calls, delay=0.05)

    with FakeQwen(slow) as qwen:
        command = [
            str(QUARRY), "run", str(source), "--schema", "tests.end_to_end.test_look_ups:Order", "--out",
            str(tmp_path / "out"), "--id", "id", "--model", "qwen-plus", "--base-url", qwen.base_url, "--chunk-size", "6",
            "--concurrency", "2", "--tool", f"{HERE}:counted", "--json",
        ]  # fmt: skip
        kills, kept = 0, []
        while True:
            before = qwen.count
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=Path.cwd()
            )
            while kills < 2 and process.poll() is None and qwen.count < before + 17:
                time.sleep(0.002)
            if kills < 2 and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                kept.append((kept_results(tmp_path / "out"), len(counted.read_text().split())))
                continue
            assert process.wait(60) == 0
            break
    called = counted.read_text().split()
    assert kills == 2 and set(called) == set(names)
    # As with calls of the model, only those that ran at the moment of a kill are made again.
    assert all(done for done, _ in kept)
    for done, so_far in kept:
        assert not done & set(called[so_far:])
    rows = calls_of(tmp_path / "out", "tool is not null")
    assert sorted(row["record_id"] for row in rows) == names
    assert current_rows(tmp_path / "out").column("vendor_id").to_pylist().count(None) == 0


def test_the_plan_counts_a_look_up_for_each_record(tmp_path: Path) -> None:
    source = write_orders(tmp_path / "orders.jsonl", "Acme GmbH", "Globex")
    told = {"source": str(source), "schema": "tests.end_to_end.test_look_ups:Order", "out": str(tmp_path / "out")}
    plain = ExtractionJob.model_validate({**told, "model": "qwen-plus", "base_url": "http://127.0.0.1:9/v1"})
    looking = plain.model_copy(update={"tools": (f"{HERE}:find_vendor",)})
    without, with_tool = (estimate(job, settings=Settings()) for job in (plain, looking))
    assert with_tool.input_tokens > 2 * without.input_tokens
    assert "a look-up for each record" in "\n".join(with_tool.lines())
