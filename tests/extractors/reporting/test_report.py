"""The report of real outputs: what it counts, which records it holds, where their texts come from."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from extractors import extract
from extractors.endpoint import Settings
from extractors.errors import JobError, OutputError
from extractors.reporting import write_report
from extractors.reporting.reasons import ADVICE
from extractors.store.catalog import query
from schemas.outcomes import Reason
from tests.end_to_end.examples import ROOT, run_examples
from tests.extractors.reporting.opened import Opened
from tests.extractors.reporting.orders import SOURCES, Order, run_orders, usual_orders, write_orders
from tests.fakes.qwen import FakeQwen, Fault

NOW = datetime(2026, 5, 3, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return usual_orders(tmp_path_factory.mktemp("orders"))


@pytest.fixture(scope="module")
def report(out: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(write_report(out, tmp_path_factory.mktemp("page") / "page.html", now=NOW).path)


def test_the_counts_add_up_and_are_the_runs_own(out: Path, report: Opened) -> None:
    [run] = query(out, "select * from runs").to_pylist()
    assert (
        f"{run['records']} records = {run['rows']} rows + {run['failures']} failures + 0 already done + 0 undone"
        in report.text
    )
    assert sum(report.index["columns"]["row"]) == run["rows"] == 6
    assert len(report.records) == run["records"] == 9
    assert sum(report.index["sizes"]) == 9


def test_the_cost_is_the_sum_of_the_calls_and_of_what_the_records_show(out: Path, report: Opened) -> None:
    [told] = query(out, "select sum(cost) as cost, count(*) as calls from order_calls").to_pylist()
    assert told["cost"] > 0
    assert f"{told['calls']} answered calls" in report.text
    paid = [Decimal(record["cost"]) for record in report.records.values()]
    priced = [
        Decimal(call[12]) for record in report.records.values() if not record["merged"] for call in record["calls"]
    ]
    assert sum(paid) == sum(priced) == told["cost"]


def test_every_row_shows_its_evidence_in_the_text_that_was_asked(report: Opened) -> None:
    for name in SOURCES:
        record = report.records[name]
        [[start, text]] = record["text"]
        assert (start, text) == (0, SOURCES[name][0])
        found = [(quote, begin, end) for _, _, quote, begin, end, _ in record["evidence"] if begin is not None]
        assert found
        assert all(text[begin:end] == quote for quote, begin, end in found), name


def test_a_failed_record_shows_its_answers_its_problems_and_its_text(report: Opened) -> None:
    record = report.records["spoilt"]
    assert record["reason"] == "invalid"
    assert record["replies"][0][3] == json.dumps(
        {"customer": 17, "total": "a lot", "lines": [{"item": "x", "quantity": "many"}]}
    )
    assert {problem[0] for problem in record["problems"]} == {"customer", "total", "lines/0/quantity"}
    assert record["text"] == [[0, "Order without a name."]]


def test_an_identical_record_shows_the_call_that_answered_it_and_costs_nothing(report: Opened) -> None:
    plain, twin = report.records["plain"], report.records["twin"]
    assert {plain["merged"], twin["merged"]} == {True, False}
    merged = plain if plain["merged"] else twin
    assert Decimal(merged["cost"]) == 0
    assert plain["calls"] == twin["calls"] != []


def test_values_keep_every_digit_and_their_keys_are_those_of_the_evidence(report: Opened) -> None:
    record = report.records["plain"]
    names = [name for name, *_ in report.index["fields"]]
    values = dict(zip(names, record["values"], strict=True))
    assert values["big"] == ["n", "9007199254740993"]
    assert values["total"] == ["n", "25.00"]
    assert values["placed"] == ["d", "2026-05-03"]
    assert values["lines"] == ["l", [["o", [["item", "kettles"], ["quantity", ["n", "2"]], ["price", ["n", "12.50"]]]]]]
    assert ["note", "the/note", "text", False] in report.index["fields"]
    assert "the~1note" in {path for path, *_ in record["evidence"]}


def test_fields_say_how_often_they_are_filled_and_found(report: Opened) -> None:
    fields = report.section("fields")
    for said in (
        r"customer text .*? 100 % filled .*? 100 % in the source .*? Ada Lovelace 2 33 %",
        r"total number 67 % filled 2 empty .*? 75 % in the source 1 not found .*? values: 7.25 to 99.99, mean 39.31",
        r"paid yes or no 33 % filled 4 empty Most frequent values of paid true 2 100 %",
        r"channel choice 100 % filled Most frequent values of channel web 4 67 % shop 2 33 %",
        r"lines\[\]\.quantity number 100 % of 3 filled .*? 1: 1 2: 2",
        r"note text 67 % filled 2 empty .*? 100 % in the source",
    ):
        assert re.search(said, fields), f"{said} in {fields}"


def test_failures_say_what_to_do_next_with_a_command_and_examples(out: Path, report: Opened) -> None:
    failures = report.section("failures")
    assert "3 open failures" in failures
    for reason in ("bad_input", "invalid", "refused"):
        assert f"{reason} 1 record " in failures
    assert f"quarry retry {out} --where \"reason = 'invalid'\" --model NAME" in failures
    assert "spoilt the same error came back after a correction" in failures


def test_low_evidence_is_an_invented_value_and_never_a_choice(report: Opened) -> None:
    columns = report.index["columns"]
    low = {name for name, flags in zip(columns["id"], columns["flags"], strict=True) if flags & 1}
    assert low == {"invented", "plain", "twin"}  # 99.99 and carpet; the number too big to stand in the text
    assert "Low evidence 3 rows, 50 %" in report.text


def test_the_page_loads_nothing_and_its_policy_allows_only_its_own_script(report: Opened) -> None:
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:|//)", report.source)
    assert "url(" not in report.source and "@import" not in report.source
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', report.source)
    assert policy is not None
    assert "default-src &#x27;none&#x27;" in policy[1]
    for kind in ("script", "style"):
        content = re.search(rf"<{kind}>(.*?)</{kind}>", report.source, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{kind}-src &#x27;sha256-{digest}&#x27;" in policy[1]
    assert " style=" not in report.source
    assert "unsafe" not in policy[1]


def test_the_same_output_gives_the_same_bytes(out: Path, tmp_path: Path) -> None:
    pages = [write_report(out, tmp_path / f"{number}.html", now=NOW).path.read_bytes() for number in range(2)]
    assert pages[0] == pages[1]


def test_of_more_records_than_the_limit_a_sample_is_shown_and_all_failures_are_kept(out: Path, tmp_path: Path) -> None:
    written = write_report(out, tmp_path / "page.html", limit=4)
    page = Opened(written.path)
    assert (written.sample.rows, written.sample.failures) == (1, 3)
    assert "This page holds a sample: 1 of 6 rows and all 3 open failures." in page.text
    assert {"spoilt", "prose", "blank"} < set(page.records)
    assert "Over 6 rows." in page.text, "figures are over everything"
    again = Opened(write_report(out, tmp_path / "again.html", limit=4).path)
    assert set(again.records) == set(page.records)


def test_a_limit_below_one_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--limit 0"):
        write_report(out, tmp_path / "page.html", limit=0)


def test_a_source_that_is_gone_is_named_and_evidence_is_shown_by_its_quotes(tmp_path: Path) -> None:
    out = usual_orders(tmp_path)
    (tmp_path / "orders.jsonl").unlink()
    page = Opened(write_report(out).path)
    assert page.records["plain"]["text"] is None
    assert page.records["plain"]["evidence"][0][:3] == ["customer", "exact", "Ada Lovelace"]
    assert "orders.jsonl" in page.index["why"][0] and "cannot be read again" in page.index["why"][0]
    assert page.records["spoilt"]["text"] == [[0, "Order without a name."]], "the ledger keeps a failure's text"


def test_a_record_that_has_changed_since_shows_no_text_and_the_others_do(tmp_path: Path) -> None:
    out = usual_orders(tmp_path)
    texts = {name: text for name, (text, _) in SOURCES.items()} | {"astral": "Something else by now."}
    write_orders(tmp_path / "orders.jsonl", texts)
    page = Opened(write_report(out).path)
    assert page.records["astral"]["text"] is None
    assert page.records["plain"]["text"] is not None
    assert "no longer in it as they were" in page.index["why"][0]


def test_texts_stay_out_where_they_are_not_wanted(out: Path, tmp_path: Path) -> None:
    page = Opened(write_report(out, tmp_path / "page.html", texts=False).path)
    assert all(record["text"] is None for record in page.records.values())
    assert "--no-text" in page.index["why"][0]


def test_a_ledger_without_texts_is_filled_from_the_source(tmp_path: Path) -> None:
    out = usual_orders(tmp_path, ledger_text="hash")
    page = Opened(write_report(out).path)
    assert page.records["spoilt"]["text"] == [[0, "Order without a name."]]


def test_a_data_frame_of_this_process_is_the_source_of_its_report(tmp_path: Path) -> None:
    text, answer = SOURCES["plain"]
    with FakeQwen(json.dumps(answer)) as qwen:
        found = extract(
            pa.table({"text": [text]}), Order, tmp_path / "out", settings=Settings(), model="m", base_url=qwen.base_url
        )
    [record] = Opened(found.write_report()).records.values()
    assert record["text"] == [[0, text]]
    later = Opened(write_report(tmp_path / "out").path)
    assert "data frame in memory, which is gone" in later.index["why"][0]


def test_a_record_that_is_a_picture_names_it(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64), "white").save(tmp_path / "pictures" / "till.png")
    run_orders(tmp_path / "pictures", tmp_path / "out", {}, id=None, keep=[], model="qwen3-vl-plus")
    [record] = Opened(write_report(tmp_path / "out").path).records.values()
    assert "till.png" in record["picture"]


def test_a_long_text_keeps_its_beginning_and_what_is_around_the_evidence(tmp_path: Path) -> None:
    text = "Hello. " * 12_000 + "Signed: Barbara Liskov. " + "Bye. " * 9_000
    run_orders(
        write_orders(tmp_path / "a.jsonl", {"long": text}), tmp_path / "out", {text: {"customer": "Barbara Liskov"}}
    )
    [record] = Opened(write_report(tmp_path / "out").path).records.values()
    assert record["length"] == len(text)
    assert [start for start, _ in record["text"]] == [0, text.index("Barbara") - 400]
    assert sum(len(piece) for _, piece in record["text"]) < 25_000
    assert all(text[start : start + len(piece)] == piece for start, piece in record["text"])


def test_by_default_the_latest_run_decides_and_the_page_names_the_others(tmp_path: Path) -> None:
    source = write_orders(tmp_path / "a.jsonl", {"a": "Ada orders."})
    first = run_orders(source, tmp_path / "out", {"Ada orders.": {"customer": "Ada"}})
    second = run_orders(source, tmp_path / "out", {"Ada orders.": {"customer": "Ada"}}, instructions="Be brief.")
    assert first.recipe != second.recipe
    written = write_report(tmp_path / "out")
    assert (written.scope.recipe, written.scope.why) == (second.recipe, "the latest run's")
    page = Opened(written.path)
    assert f"quarry report {tmp_path / 'out'} --schema order --recipe {first.recipe}" in page.text
    assert write_report(tmp_path / "out", recipe=first.recipe).scope.recipe == first.recipe


def test_one_run_is_shown_by_itself(tmp_path: Path) -> None:
    texts = {"a": "Ada orders.", "b": "Bob orders."}
    answers = {"Ada orders.": "no", "Bob orders.": {"customer": "Bob"}}
    first = run_orders(write_orders(tmp_path / "a.jsonl", texts), tmp_path / "out", answers)
    texts["c"] = "Cy orders."
    second = run_orders(write_orders(tmp_path / "a.jsonl", texts), tmp_path / "out", {"Cy orders.": {"customer": "Cy"}})
    everything = Opened(write_report(tmp_path / "out").path)
    assert set(everything.records) == {"a", "b", "c"}
    assert "2 runs of this recipe" in everything.text
    assert "3 records = 1 rows + 0 failures + 2 already done + 0 undone" in everything.text
    alone = Opened(write_report(tmp_path / "out", run=first.run_id).path)
    assert set(alone.records) == {"a", "b"}
    assert "2 records = 1 rows + 1 failures + 0 already done + 0 undone" in alone.text
    assert set(Opened(write_report(tmp_path / "out", run=second.run_id).path).records) == {"c"}


def test_a_run_that_was_killed_is_listed_with_what_it_committed(tmp_path: Path) -> None:
    texts = {"a": "Ada orders."}
    killed = run_orders(
        write_orders(tmp_path / "a.jsonl", texts), tmp_path / "out", {"Ada orders.": {"customer": "Ada"}}
    )
    texts["b"] = "Bob orders."
    run_orders(write_orders(tmp_path / "a.jsonl", texts), tmp_path / "out", {"Bob orders.": {"customer": "Bob"}})
    (tmp_path / "out" / "runs" / f"{killed.run_id}.json").unlink()
    page = Opened(write_report(tmp_path / "out").path)
    assert f"{killed.run_id} left no report: it was killed, or it is still going on 1" in page.text
    assert set(page.records) == {"a", "b"}


def test_a_folder_of_killed_runs_alone_can_be_reported(tmp_path: Path) -> None:
    run = run_orders(
        write_orders(tmp_path / "a.jsonl", {"a": "Ada orders."}), tmp_path / "out", {"Ada orders.": {"customer": "Ada"}}
    )
    (tmp_path / "out" / "runs" / f"{run.run_id}.json").unlink()
    page = Opened(write_report(tmp_path / "out").path)
    assert "No run has written its report yet" in page.text
    assert page.index["why"] == ["No run has left its job in the folder, so the source is not known."]


def test_tries_that_failed_on_the_way_are_counted_by_kind(tmp_path: Path) -> None:
    run_orders(
        write_orders(tmp_path / "a.jsonl", {"a": "Ada orders."}),
        tmp_path / "out",
        {"Ada orders.": [Fault.status(503), '{"customer": "Ada"}']},
    )
    page = Opened(write_report(tmp_path / "out").path)
    assert "Tries that failed on the way 1 of 2 tries" in page.text
    assert "(HTTP 503) 1" in page.text
    assert [call[4] == "ok" for call in page.records["a"]["calls"]] == [False, True]


def test_answers_of_the_batch_lane_are_priced_and_have_no_latency(tmp_path: Path) -> None:
    source = write_orders(tmp_path / "a.jsonl", {"a": "Ada orders.", "b": "Bob orders."})
    answers = {"Ada orders.": {"customer": "Ada"}, "Bob orders.": {"customer": "Bob"}}
    run_orders(source, tmp_path / "out", answers, lane="batch", batch_poll=0.05)
    page = Opened(write_report(tmp_path / "out").path)
    assert "Latency – no call was answered live" in page.text
    assert "Calls over time" not in page.text
    assert Decimal(page.records["a"]["cost"]) > 0


def test_a_run_without_records_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "a.json").write_text("[]")
    run_orders(tmp_path / "a.json", tmp_path / "out", {}, id=None, keep=[], text="text")
    page = Opened(write_report(tmp_path / "out").path)
    assert "0 records = 0 rows + 0 failures" in page.text
    assert page.records == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"schema": "invoice"}, "holds no invoice; it holds order recipe="),
        ({"recipe": "ffffffff"}, "holds no recipe=ffffffff"),
        ({"run": "20200101"}, "no report of a run '20200101'; the latest are 20"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(out: Path, given: dict[str, str], words: str) -> None:
    with pytest.raises(OutputError, match=re.escape(words)):
        write_report(out, **given)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_written_is_named(out: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*nowhere.*check the folder"):
        write_report(out, tmp_path / "nowhere" / "page.html")


@pytest.mark.slow
def test_every_bundled_example_has_its_page_with_all_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the example jobs name their sources from there
    for told in run_examples(tmp_path / "out"):
        page = Opened(write_report(tmp_path / "out", tmp_path / "page.html", schema=told.name).path)
        assert f"{told.records} records = {told.rows} rows + {told.failures} failures" in page.text
        assert page.index["why"] == []
        for record in page.records.values():
            [[_, text]] = record["text"]
            assert all(text[e[3] : e[4]] == e[2] for e in record.get("evidence", []) if e[3] is not None)


def test_every_reason_of_the_failure_guide_has_its_advice() -> None:
    assert set(ADVICE) == set(Reason)
    guide = (Path(__file__).parents[3] / "docs" / "failures.md").read_text()
    assert all(f"| `{reason.value}` |" in guide for reason in ADVICE)
