"""Two models' answers put together: against what a run with both of them really brings."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from extractors.errors import JobError
from extractors.evaluate.evaluation import Evaluation
from extractors.evaluate.replay import _exemplified
from extractors.evaluate.routes import Route, Routes, routes
from extractors.evaluate.routes_page import routes_page
from extractors.evaluate.statistics import Interval
from extractors.store import layout
from flows.cli.app import app
from tests.end_to_end.things import Thing
from tests.extractors.evaluate.test_evaluation import SCHEMA, evaluated, faulty, label, write_golden
from tests.fakes.answers import thing_answer
from tests.fakes.asked import Body
from tests.fakes.qwen import FakeQwen

BROWSER = shutil.which("chromium")
DRAFT, FINAL = "qwen-flash", "qwen-max"


def by_model(body: Body) -> str:
    """The draft is wrong about record 1, invents a name for 2 and does not answer 3; the final is right."""
    return thing_answer(body) if body["model"] == FINAL else faulty(body)


def both(folder: Path, qwen: FakeQwen, *, records: int = 8, **options: Any) -> tuple[Evaluation, Evaluation]:
    golden = write_golden(folder / "golden.jsonl", [label(number) for number in range(records)])
    draft, final = (evaluated(golden, qwen, model=model, **options) for model in (DRAFT, FINAL))
    return draft, final


def test_what_is_put_together_is_what_a_routed_run_brings(tmp_path: Path) -> None:
    with FakeQwen(by_model) as qwen:
        draft, final = both(tmp_path, qwen)
        found = routes(draft, final, Thing)
        live = evaluated(tmp_path / "golden.jsonl", qwen, model=DRAFT, final=FINAL, route_below=0.5)
    [half] = [one for one in found.routes if one.below == 0.5]
    assert half.f1 == live.micro.f1
    assert half.f1.value is not None and draft.micro.f1.value is not None
    assert half.f1.value > draft.micro.f1.value and found.final_f1.value == 1
    assert live.report is not None and live.report.routing is not None
    assert half.routed == live.report.routing["routed_records"] / 8 == 3 / 8


def uncertain(body: Body) -> str:
    """Of every nine records: the draft is right about three, the final about all but three, and each in its own way."""
    right = json.loads(thing_answer(body))
    number, final = int(right["name"].removeprefix("thing-")) % 9, body["model"] == FINAL
    if final:
        wrong = {0: {"price": 987654.5}, 1: {"price": 987654.5}, 2: {"name": "Wintergarten"}}
    else:
        wrong = {
            1: {"price": 123456.5},
            2: {"price": 123456.5, "name": "Nowhere"},
            3: {"name": "Nowhere"},
            4: {"price": "cheap"},
            5: {"price": "cheap", "name": "Nowhere"},
        }
    if number == 6 and not final:
        return "I would rather not."
    return json.dumps({**right, **wrong.get(number, {})})


@pytest.mark.parametrize("policy", ["null", "drop", "fail"])
@pytest.mark.parametrize("shown", [False, True])
def test_what_had_to_be_dropped_or_failed_is_put_together_as_a_routed_run_does(
    policy: str, shown: bool, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"require_evidence": ["price"], "evidence_policy": policy}
    if shown:
        example = {"text": "The lamp costs 3.50", "expected": {"name": "lamp", "price": 3.5}}
        options["examples"] = str(write_golden(tmp_path / "shown.jsonl", [example]))
    with FakeQwen(uncertain) as qwen:
        draft, final = both(tmp_path, qwen, records=18, **options)
        found = routes(draft, final, Thing)
        for below in (0.5, 0.95):
            live = evaluated(tmp_path / "golden.jsonl", qwen, model=DRAFT, final=FINAL, route_below=below, **options)
            [replayed] = [one for one in found.routes if one.below == below]
            assert live.report is not None and live.report.routing is not None
            assert replayed.routed == live.report.routing["routed_records"] / 18
            assert replayed.f1 == live.micro.f1


def test_what_it_takes_is_the_draft_for_all_and_the_final_for_some(tmp_path: Path) -> None:
    with FakeQwen(by_model) as qwen:
        draft, final = both(tmp_path, qwen)
        asked = len(qwen.requests)
        found = routes(draft, final, Thing)
        assert len(qwen.requests) == asked, "nobody was asked"
    alone, *others = found.routes
    assert (alone.below, alone.routed, found.unit) == (None, 0, "money")
    assert alone.f1 == draft.micro.f1 and draft.cost and final.cost
    assert alone.cost == pytest.approx(float(draft.cost / final.cost))
    routed = {one.given.record_id for one in draft.records} & {"r1", "r2", "r3"}
    price = sum(float(one.given.cost or 0) for one in final.records if one.given.record_id in routed)
    assert others[4].cost == pytest.approx((float(draft.cost) + price) / float(final.cost))
    assert [one.routed for one in others] == sorted(one.routed for one in others)


def test_two_models_are_needed_and_records_in_common(tmp_path: Path) -> None:
    with FakeQwen(by_model) as qwen:
        draft, _ = both(tmp_path, qwen, records=3)
        elsewhere = tmp_path / "other"
        elsewhere.mkdir()
        golden = write_golden(elsewhere / "golden.jsonl", [label(50)])
        other = evaluated(golden, qwen, model=FINAL)
    with pytest.raises(JobError, match="give two models"):
        routes(draft, draft, Thing)
    with pytest.raises(JobError, match="no labelled record in common"):
        routes(draft, other, Thing)
    unread = replace(draft, recipe="another", records=[replace(one, text="") for one in draft.records])
    with pytest.raises(JobError, match="pictures without text"):
        routes(unread, draft, Thing)


def route(below: float | None, loss: float, cost: float | None, routed: float = 0.5) -> Route:
    return Route(below, routed, Interval(0.9 - loss, 0.8, 0.95), Interval(-loss, -loss - 0.02, 0.02 - loss), cost)


def told(*found: Route, unit: Any = "seconds", max_loss: float = 0.01) -> Routes:
    return Routes("small", "large", 60, Interval(0.9, 0.8, 0.95), unit, found, max_loss)


def test_the_cheapest_way_that_loses_little_is_best_and_its_bound_is_told() -> None:
    found = told(route(None, 0.2, 0.1), route(0.3, 0.009, 0.4), route(0.5, 0.002, 0.5), route(0.8, 0.0, 0.8))
    assert found.best is found.routes[1]
    assert "--route-below 0.3: F1 0.891, -0.009 against large alone (95 % interval -0.029 to +0.011)" in found.verdict
    assert "at 40% of its seconds; 50% of the records routed" in found.verdict
    assert "A loss of up to 0.029 may be hidden in so few records (60)" in found.verdict
    assert found.as_dict()["best"] == {"route_below": 0.3}


def test_a_draft_that_is_good_enough_needs_no_final() -> None:
    found = told(route(None, 0.0, 0.1, 0.0), route(0.3, 0.0, 0.4))
    assert found.verdict.startswith("small alone: F1 0.900")


def test_where_the_final_alone_takes_less_it_says_so() -> None:
    found = told(route(None, 0.2, 0.5), route(0.3, 0.1, 0.9), route(0.5, 0.0, 1.2), route(0.8, 0.0, 1.4))
    assert found.best is None
    assert "Routing does not pay here: --route-below 0.5" in found.verdict and "120% of its seconds" in found.verdict
    assert told(route(0.8, 0.2, 0.9)).verdict.startswith("No threshold comes within 0.01")


def test_without_anything_labelled_or_anything_right_nothing_is_advised(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [{**label(number), "expected": {}} for number in range(4)])
    with FakeQwen("no") as qwen:
        unlabelled = routes(*(evaluated(golden, qwen, model=model) for model in (DRAFT, FINAL)), Thing)
        failed = routes(*both(tmp_path, qwen, records=4), Thing)
    assert unlabelled.final_f1.value is None and unlabelled.verdict.startswith(
        "F1 is not defined: no value is labelled"
    )
    assert failed.final_f1.value == 0 and failed.verdict.startswith(f"Neither {DRAFT} nor {FINAL} has a value right")
    for found in (unlabelled, failed):
        assert found.best is None and found.as_dict()["best"] is None
        assert "4 labelled records" in found.verdict and found.verdict.split()[0] in routes_page(found)


def test_without_prices_or_times_the_fewest_routed_are_best() -> None:
    found = told(route(0.3, 0.0, None, 0.4), route(0.8, 0.0, None, 0.7), unit=None)
    assert found.best is found.routes[0] and "% of its" not in found.verdict


def test_thresholds_between_which_nothing_changes_are_one() -> None:
    found = told(route(None, 0.1, 0.4, 0.0), route(0.1, 0.1, 0.4, 0.0), route(0.2, 0.0, 0.5), route(0.9, 0.0, 0.5))
    assert [name for name, _ in found.distinct] == ["draft alone", "0.1", "0.2 to 0.9"]


def test_the_page_has_names_escaped_and_says_what_cannot_be_drawn() -> None:
    named = replace(told(route(None, 0.1, 0.4)), draft="<script>", final="</svg>")
    assert "<script>" not in routes_page(named) and routes_page(named).count("</svg>") == 1
    nothing = Interval(None)
    empty = replace(told(Route(None, 0.0, nothing, nothing, None), unit=None), final_f1=nothing)
    assert "There is no value to score" in routes_page(empty)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_the_plot_shows_what_each_way_brings_and_takes(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    found = told(route(None, 0.2, 0.4), route(0.3, 0.009, 0.6), route(0.5, 0.002, 0.8), route(0.8, -0.01, 1.2))
    (tmp_path / "page.html").write_text(routes_page(found), "utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        dots = [one.bounding_box() for one in page.locator("circle").all()]
        best = page.locator("circle.best").bounding_box()
        band = page.locator("rect.band").bounding_box()
        final = page.locator("line.final").nth(1).bounding_box()
        title = page.locator("circle.best title").text_content()
        browser.close()
    assert refused == [] and best is not None and band is not None and final is not None
    across = [one["x"] + one["width"] / 2 for one in dots if one]
    down = [one["y"] + one["height"] / 2 for one in dots if one]
    assert across == sorted(across) and down == sorted(down, reverse=True)
    assert [at < final["x"] for at in across] == [True, True, True, False]
    assert [band["y"] < at < band["y"] + band["height"] for at in down] == [False, True, True, False]
    assert best["x"] + best["width"] / 2 == pytest.approx(across[1], abs=1)
    assert title is not None and title.startswith("0.3: F1 0.891, -0.009")


def test_the_command_measures_both_and_says_what_to_do(tmp_path: Path) -> None:
    runner = CliRunner()
    golden = write_golden(tmp_path / "golden.jsonl", [label(number) for number in range(6)])
    options = ["--schema", SCHEMA, "--out", str(tmp_path / "out"), "--model", DRAFT]
    with FakeQwen(by_model) as qwen:
        options += ["--base-url", qwen.base_url, "--max-loss", "0.05"]
        found = runner.invoke(app, ["route", str(golden), *options, "--final", FINAL])
        assert found.exit_code == 0, found.output
        paid = len(qwen.requests)
        again = runner.invoke(app, ["route", str(golden), *options, "--final", FINAL, "--json"])
        assert again.exit_code == 0 and len(qwen.requests) == paid, "nothing is paid for twice"
        single = runner.invoke(app, ["route", str(golden), *options])
    assert "draft alone" in found.output and "final alone" in found.output and "<- best" in found.output
    written = json.loads(again.output.strip().splitlines()[-1])
    page = Path(written.pop("page"))
    assert page.parent.parent == tmp_path / "out" / "evaluations" and "-before-" in page.parent.name
    drawn = {(one["route_below"] is None, one["routed"], one["cost"]) for one in written["routes"]}
    assert page.read_text("utf-8").count('class="dot') == len(drawn) == 3
    assert json.loads((page.parent / "routes.json").read_bytes()) == written
    lines = pq.read_table(page.parent / "routes.parquet").to_pylist()
    assert [(one["route_below"], round(one["f1"], 4), round(one["difference_low"], 4)) for one in lines] == [
        (one["route_below"], one["f1"]["value"], one["difference"]["low"]) for one in written["routes"]
    ]
    wrong = [path / "index.html" for path in page.parent.parent.iterdir() if path != page.parent]
    assert len(wrong) == 2 and all("Records with a wrong value" in path.read_text("utf-8") for path in wrong)
    assert f"against {FINAL} alone" in found.output
    assert '"best":{"route_below":' in again.output.replace(" ", "")
    assert single.exit_code != 0 and "--final" in str(single.exception or single.output)


@pytest.mark.parametrize(
    ("draft", "final", "expected"),
    [
        ({"examples": {}}, {"examples": {}}, True),
        ({"examples": {"made_up": True}}, {}, True),
        ({}, {"examples": {"made_up": True}}, False),
        ({"model": {"tuned": True}}, {"examples": {}}, True),
        ({"model": {"tuned": True}}, {}, False),
        ({}, {"model": {"tuned": True}}, True),
    ],
)
def test_the_final_knows_whole_answers_as_the_pair_has_it(
    tmp_path: Path, draft: dict[str, Any], final: dict[str, Any], expected: bool
) -> None:
    """A pair's examples are those that its draft would have, and a tuned draft leaves them to the final."""
    evaluations = []
    for name, document in (("draft", draft), ("final", final)):
        folder = layout.recipe_folder(tmp_path, name=name, recipe_id="0" * 64)
        folder.mkdir(parents=True)
        (folder / "recipe.json").write_text(json.dumps({"model": {}, **document}))
        evaluations.append(SimpleNamespace(out=str(tmp_path), name=name, recipe="0" * 64))
    assert _exemplified(*evaluations) is expected  # type: ignore[arg-type]
