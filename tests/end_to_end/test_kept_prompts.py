"""Asking again under a recipe whose prompt file is not what it was."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from extractors.endpoint import Settings
from extractors.errors import JobError
from extractors.pipeline import run
from extractors.report import RunReport
from extractors.retrying import retry_jobs
from extractors.store.catalog import outputs
from tests.end_to_end.things import job_for, run_things, write_things
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen

TEXT = "Answer in a hurry with one JSON object:\n{{fields}}\n{{instructions}}\n"


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "extract.short.txt"
    path.write_text(TEXT)
    return path


def failed(folder: Path, qwen: FakeQwen, prompt: Path) -> RunReport:
    source = write_things(folder / "things.jsonl", range(3))
    return run_things(source, folder / "out", qwen, prompt=str(prompt), max_attempts=1)


def again(out: Path, **options: str) -> RunReport:
    [one] = retry_jobs(out)
    return run(one.job, settings=Settings(), source=one.source, retry=one.selection, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("edited", [None, TEXT + "Be brief."])
@pytest.mark.parametrize("options", [{}, {"model": "qwen-max"}])
def test_a_retry_asks_with_the_text_that_the_recipe_keeps(
    tmp_path: Path, prompt: Path, edited: str | None, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with FakeQwen("nothing") as qwen:
        first = failed(tmp_path, qwen, prompt)
        prompt.unlink() if edited is None else prompt.write_text(edited)
        qwen.answer_with(thing_answer)
        with caplog.at_level(logging.WARNING):
            report = again(tmp_path / "out", **options)
    assert (report.recipe, report.rows, report.failures) == (first.recipe, 3, 0)
    asked = {one.body["messages"][0]["content"] for one in qwen.requests}
    assert len(asked) == 1 and asked.pop().startswith("Answer in a hurry")
    assert f"recipe {first.recipe} is asked with the text that" in caplog.text


def test_what_a_file_says_otherwise_is_another_recipe_for_a_new_run(tmp_path: Path, prompt: Path) -> None:
    with FakeQwen(thing_answer) as qwen:
        failed(tmp_path, qwen, prompt)
        prompt.write_text(TEXT + "Be brief.")
        failed(tmp_path, qwen, prompt)
        prompt.unlink()
        with pytest.raises(JobError, match="cannot be read"):
            failed(tmp_path, qwen, prompt)
    assert len(outputs(tmp_path / "out")) == 2


def test_a_kept_text_that_does_not_make_the_recipe_is_not_taken(tmp_path: Path, prompt: Path) -> None:
    """Here the instructions were changed as well."""
    with FakeQwen("nothing") as qwen:
        first = failed(tmp_path, qwen, prompt)
        prompt.unlink()
        [one] = retry_jobs(tmp_path / "out")
        job = one.job.model_copy(update={"instructions": "Hurry."})
        with pytest.raises(JobError, match="cannot be read"):
            run(job, settings=Settings(), source=one.source, retry=one.selection)
        prompt.write_text(TEXT)
        with pytest.raises(JobError, match=f"failed under recipe {first.recipe}"):
            run(job, settings=Settings(), source=one.source, retry=one.selection)


def test_batches_of_a_recipe_are_collected_with_the_text_that_it_keeps(tmp_path: Path, prompt: Path) -> None:
    with FakeQwen(thing_answer) as qwen:
        first = failed(tmp_path, qwen, prompt)
        prompt.unlink()
        job = job_for(tmp_path / "things.jsonl", tmp_path / "out", qwen, prompt=str(prompt), max_attempts=1)
        assert run(job, settings=Settings(), expect=first.recipe).skipped == 3


def test_the_same_text_in_another_file_is_the_same_recipe(tmp_path: Path, prompt: Path) -> None:
    (tmp_path / "moved").mkdir()
    other = tmp_path / "moved" / "extract.short.txt"
    other.write_text(TEXT)
    with FakeQwen(thing_answer) as qwen:
        assert failed(tmp_path, qwen, prompt).recipe == failed(tmp_path, qwen, other).recipe
