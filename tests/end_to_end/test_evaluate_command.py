"""``quarry eval``, ``compare`` and ``golden`` as a person or a CI job uses them, and their pages in a browser."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from extractors.evaluate.golden import read_golden
from extractors.qwen.weights import find
from flows.cli.app import main
from tests.end_to_end.things import Thing
from tests.fakes.answers import record_of, thing_answer, thing_text
from tests.fakes.asked import Body
from tests.fakes.qwen import FakeQwen

SCHEMA = "tests.end_to_end.things:Thing"
EXAMPLES = Path(__file__).parents[2] / "examples"
BROWSER = shutil.which("chromium")
ATTACK = "</pre><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


def quarry(*arguments: str, expect: int = 0) -> Done:
    """The command in this process: starting Python twenty times would take longer than all that is tested."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["quarry", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == expect, out.getvalue() + err.getvalue()
    return Done(out.getvalue(), err.getvalue())


def told(done: Done) -> dict[str, Any]:
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def some_wrong(body: Body) -> str:
    """Even records get a wrong price, unless the prompt asks for care; 5 is never answered, 1 is attacked."""
    text = record_of(body)
    careful = "Be careful" in body["messages"][0]["content"]
    if "thing-0000005" in text:
        return "no"
    answer = json.loads(thing_answer(body))
    if int(answer["name"][-1]) % 2 == 0 and not careful:
        answer["price"] = 999
    if "thing-0000001" in text:
        answer["name"] = ATTACK
    return json.dumps(answer)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str], FakeQwen]]:
    """A golden set of 24 records that has been evaluated: its folder, the options, and the fake that answers."""
    folder = tmp_path_factory.mktemp("golden")
    with (folder / "golden.jsonl").open("w") as file:
        for n in range(24):
            expected = {"name": f"thing-{n:07}", "price": f"{n}.{n:02}"}
            file.write(json.dumps({"id": f"r{n}", "text": f"{thing_text(n)} {ATTACK}", "expected": expected}) + "\n")
    with FakeQwen(some_wrong) as qwen:
        options = [str(folder / "golden.jsonl"), "--schema", SCHEMA, "--out", str(folder / "out"), "--max-attempts", "2",
                   "--base-url", qwen.base_url, "--model", "qwen-plus"]  # fmt: skip
        quarry("eval", *options)
        yield folder, options, qwen


def test_the_exit_code_says_whether_the_figures_are_good_enough(evaluated: tuple[Path, list[str], FakeQwen]) -> None:
    _, options, _ = evaluated
    done = quarry("eval", *options, "--fail-under", "f1=0.7", "--fail-under", "valid=0.9", "--json")
    assert told(done)["below"] == []
    done = quarry("eval", *options, "--fail-under", "f1=0.7", "--fail-under", "f1:price=0.8", expect=1)
    assert "f1:price is" in done.stderr and "below 0.8" in done.stderr
    assert "f1 is" not in done.stderr
    assert "there is no figure 'f2'" in quarry("eval", *options, "--fail-under", "f2=1", expect=2).stderr
    assert "90 % is 0.9" in quarry("eval", *options, "--fail-under", "f1=90", expect=2).stderr


def test_nothing_passes_on_a_set_that_labels_nothing(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps({"id": "a", "text": thing_text(1), "expected": {}}) + "\n")
    check = ["golden", "check", str(golden), "--schema", SCHEMA]
    with FakeQwen(thing_answer) as qwen:
        options = [
            str(golden),
            "--schema",
            SCHEMA,
            "--out",
            str(tmp_path / "o"),
            "--base-url",
            qwen.base_url,
            "--model",
            "qwen-plus",
        ]
        done = quarry("eval", *options, "--fail-under", "whole=0.9", expect=1)
        assert "whole is not defined" in done.stderr and "1 of them without a label" in done.stderr
        assert "no record labels anything" in quarry("eval", *options, "--fail-under", "valid=0.9", expect=1).stderr
    assert "1 of them without a label that is scored (the first is 'a')" in quarry(*check).stderr
    assert told(quarry(*check, "--json"))["unlabelled"] == 1


def test_results_are_parquet_with_wrong_values_beside_the_expected_and_the_source(
    evaluated: tuple[Path, list[str], FakeQwen],
) -> None:
    [folder] = (evaluated[0] / "out" / "evaluations").glob("golden-????????")
    with duckdb.connect() as con:
        wrong = con.sql(
            f"select v.record_id, v.expected, v.got, r.text from '{folder}/values.parquet' v join '{folder}/records.parquet' r "
            "using (record_id, occurrence) where v.verdict = 'wrong' and v.field = 'price' order by record_id limit 1"
        ).fetchall()
        scores = con.sql(f"select field, f1 between f1_low and f1_high from '{folder}/scores.parquet'").fetchall()
    assert wrong == [("r0", '"0.00"', '"999.00"', f"{thing_text(0)} {ATTACK}")]
    assert dict(scores) == {"*": True, "name": True, "price": True}


def test_comparing_two_prompts_finds_the_better_one_and_pays_for_it_once(
    evaluated: tuple[Path, list[str], FakeQwen], tmp_path: Path
) -> None:
    folder, options, qwen = evaluated
    shipped = (Path(__file__).parents[2] / "extractors" / "prompts" / "extract.v1.txt").read_text()
    own = tmp_path / "extract.careful.txt"
    own.write_text(shipped + "\n- Be careful.\n")
    found = told(quarry("compare", *options, "--a", "prompt=v1", "--b", f"prompt={own}", "--json"))
    asked = len(qwen.requests)
    again = told(quarry("compare", *options, "--a", "prompt=v1", "--b", f"prompt={own}", "--json"))
    assert len(qwen.requests) == asked
    assert found["fields"]["price"]["shown"] and found["fields"]["price"]["difference"] > 0.3
    assert not found["fields"]["name"]["shown"]
    assert "A difference is shown in price" in found["verdict"] or "is better" in found["verdict"]
    assert (again["verdict"], again["fields"]) == (found["verdict"], found["fields"])
    recipes = {
        json.loads(path.read_text())["prompt"]["version"] for path in (folder / "out").glob("thing/*/recipe.json")
    }
    assert any("extract.careful" in version for version in recipes), "a recipe remembers its prompt"


def test_costs_have_their_currency_and_a_comparison_says_what_either_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    golden = tmp_path / "golden.jsonl"
    lines = [{"id": f"r{n}", "text": thing_text(n), "expected": {"name": f"thing-{n:07}"}} for n in range(12)]
    golden.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with FakeQwen(thing_answer) as qwen:
        options = [
            str(golden),
            "--schema",
            SCHEMA,
            "--out",
            str(tmp_path / "out"),
            "--base-url",
            qwen.base_url,
            "--model",
            "qwen-plus",
        ]
        first = told(quarry("eval", *options, "--json"))
        scored = quarry("eval", *options)
        # What is there already was paid for by a run that this command knows only from the output.
        sides = ["--a", f"recipe={first['recipe']}", "--b", f"instructions={'Hurry.' * 60}"]
        done = quarry("compare", *options, *sides)
        found = told(quarry("compare", *options, *sides, "--json"))
    currency = first["currency"]
    assert currency and f" {currency} for 1,000 records" in scored.stderr
    assert (found["a"]["currency"], found["a"]["cost"]) == (currency, first["cost"])
    value, low, high = found["ratios"]["tokens"]
    assert 1 < low <= value <= high and found["ratios"]["cost"][0] > 1
    assert f"b takes tokens {value:.2f} of a's ({low:.2f} to {high:.2f}), seconds " in done.stderr
    assert ", cost " in done.stderr and done.stderr.count(f" {currency} for 1,000 records") == 2
    assert done.stderr.count(" input and ") == 2 and done.stderr.count("95 % within") == 2
    assert "wholly right with a only: 0, with b only: 0 (McNemar's exact test: p = 1)" in done.stderr
    page = Path(found["page"]).read_text()
    assert f"takes tokens {value:.2f} of recipe={first['recipe']}" in page
    assert page.count(f" {currency}</td>") == 2


def test_a_ceiling_of_the_command_holds_for_both_sides_together_also_where_one_is_a_job_file(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    lines = [{"id": f"r{n}", "text": thing_text(n), "expected": {"name": f"thing-{n:07}"}} for n in range(12)]
    golden.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    side = tmp_path / "side.toml"
    with FakeQwen(thing_answer) as qwen:
        side.write_text(
            f'source = "{golden}"\nschema = "{SCHEMA}"\nout = "{tmp_path / "out"}"\nmodel = "qwen-plus"\nseed = 2\n'
            f'base_url = "{qwen.base_url}"\nmax_output_tokens = 32\n'
        )
        options = [str(golden), "--job", str(side), "--a", "seed=1", "--b", str(side), "--json", "--concurrency", "1"]
        both = told(quarry("compare", *options, "--out", str(tmp_path / "free")))
        used = [both[one]["input_tokens_a_record"] + both[one]["output_tokens_a_record"] for one in "ab"]
        ceiling = int(12 * used[0] + 11 * used[1])
        found = told(quarry("compare", *options, "--max-tokens", str(ceiling)))
    assert (found["a"]["unasked"], found["b"]["unasked"] > 0) == (0, True)


def test_no_difference_is_claimed_where_none_can_be_shown(evaluated: tuple[Path, list[str], FakeQwen]) -> None:
    _, options, _ = evaluated
    found = told(quarry("compare", *options, "--a", "instructions=", "--b", "instructions=Hurry.", "--json"))
    assert found["verdict"].startswith("No difference can be shown")
    same = quarry("compare", *options, "--a", "seed=1", "--b", "seed=1", expect=2)
    assert "differ in nothing" in same.stderr


def test_rows_failures_and_drafts_go_into_a_golden_set(
    evaluated: tuple[Path, list[str], FakeQwen], tmp_path: Path
) -> None:
    out, golden = str(evaluated[0] / "out"), tmp_path / "new.jsonl"
    recipes = sorted(
        (evaluated[0] / "out" / "evaluations").glob("golden-????????"), key=lambda path: path.stat().st_ctime
    )
    recipe = ["--recipe", recipes[0].name[-8:], "-o", str(golden)]
    quarry("golden", "add", out, "--id", "r3,r7", *recipe)
    assert (
        "give its right values with --expected" in quarry("golden", "add", out, "--id", "r5", *recipe, expect=2).stderr
    )
    quarry("golden", "add", out, "--id", "r5", "--expected", '{"name": "thing-0000005", "price": 5.05}', *recipe)
    labels = read_golden(golden, Thing)
    assert {key: label.expected["price"] for key, label in labels.items()} == {"r3": "3.03", "r7": "7.07", "r5": "5.05"}
    quarry("golden", "add", out, "--id", "r9", "--draft", *recipe)
    assert "is a draft" in quarry("golden", "check", str(golden), "--schema", SCHEMA, expect=2).stderr


def test_the_bundled_labels_are_evaluated_with_the_records_of_their_job(tmp_path: Path) -> None:
    with FakeQwen("no") as qwen:
        found = told(quarry("eval", str(EXAMPLES / "golden" / "tickets.jsonl"), "--job", str(EXAMPLES / "tickets.toml"), "--json",
                            "--out", str(tmp_path / "o"), "--base-url", qwen.base_url, "--model", "qwen-plus"))  # fmt: skip
    assert (found["records"], found["valid"][0], found["f1"][0]) == (11, 0, 0)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_the_pages_run_no_script_of_a_record_and_load_nothing(evaluated: tuple[Path, list[str], FakeQwen]) -> None:
    from playwright.sync_api import sync_playwright

    pages = sorted((evaluated[0] / "out" / "evaluations").glob("*/index.html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for path in pages:
            page.goto(path.as_uri())
            assert page.title() != "taken"
            assert page.locator("script, img").count() == 0
        page.goto(pages[0].as_uri())
        page.locator("summary", has_text="r1 ").first.click()
        shown = page.locator("details[open]").inner_text()
        browser.close()
    assert len(asked) == len(pages) + 1
    assert ATTACK in shown and "thing-0000001" in shown


@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_embedded_model_is_evaluated(tmp_path: Path) -> None:
    if find("local-0.5b") is None:
        pytest.skip("the weights of local-0.5b are not here: quarry model pull local-0.5b")
    golden = tmp_path / "bills.jsonl"
    lines = [
        {"id": "a", "text": "Corner Bakery, total 8.00", "expected": {"total": 8}},
        {"id": "b", "text": "Northwind Books, total 39.90", "expected": {"total": 39.9}},
    ]
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = told(
        quarry(
            "eval",
            str(golden),
            "--schema",
            "total: float?",
            "--model",
            "local-0.5b",
            "--out",
            str(tmp_path / "o"),
            "--json",
        )
    )
    assert (found["records"], found["f1"][0], float(found["cost"])) == (2, 1.0, 0)
    assert found["seconds_p50"] > 0 and found["output_tokens_a_record"] < 30
