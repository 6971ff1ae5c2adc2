"""``quarry report`` as a person or a script uses it."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.test_cli import quarry, told
from tests.end_to_end.things import run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen


def test_it_writes_the_page_says_what_is_in_it_and_where_it_is(tmp_path: Path) -> None:
    with FakeQwen(thing_answer) as qwen:
        run_things(write_things(tmp_path / "a.jsonl", range(12)), tmp_path / "out", qwen)
        other = run_things(tmp_path / "a.jsonl", tmp_path / "out", qwen, instructions="Be brief.", max_records=5)
    done = quarry("report", str(tmp_path / "out"))
    page = tmp_path / "out" / "report.html"
    assert done.stdout.startswith(f"{page} (")
    assert f"thing recipe={other.recipe} (the latest run's): 5 rows and 0 open failures" in done.stderr
    assert "also in the folder: thing recipe=" in done.stderr
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_the_choice_the_limit_and_the_file_are_options(tmp_path: Path) -> None:
    with FakeQwen(thing_answer) as qwen:
        run = run_things(write_things(tmp_path / "a.jsonl", range(12)), tmp_path / "out", qwen)
    page = tmp_path / "page.html"
    options = [
        "--schema",
        "thing",
        "--recipe",
        run.recipe,
        "--run",
        run.run_id,
        "--limit",
        "4",
        "-o",
        str(page),
        "--json",
    ]
    found = told(quarry("report", str(tmp_path / "out"), *options))
    assert (found["path"], found["run"]) == (str(page), run.run_id)
    assert (found["rows"], found["failures"], found["shown"]) == (12, 0, 4)
    assert found["bytes"] == page.stat().st_size


def test_what_cannot_be_reported_is_one_sentence(tmp_path: Path) -> None:
    done = quarry("report", str(tmp_path), expect=2)
    assert "is not an output folder" in done.stderr
    assert "Traceback" not in done.stderr
