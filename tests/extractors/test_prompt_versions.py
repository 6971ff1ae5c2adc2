"""Choosing prompts: shipped versions, files of one's own, and what a recipe remembers of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from extractors.errors import JobError
from extractors.prompt_versions import choose_texts
from extractors.prompting import load_texts
from extractors.qwen.requests import Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.job import ExtractionJob
from tests.end_to_end.things import Thing


def recipe(prompt: str | None) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x", "schema": "name", "out": "o", "prompt": prompt})
    policy = ModelPolicy("qwen-plus", Mode.JSON_SCHEMA, None, max_input_tokens=10_000, max_output_tokens=1_000)
    return compile_recipe(job, Thing, policy)


def own(folder: Path, text: str, *, name: str = "extract.short.txt") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_without_a_choice_the_texts_are_the_default_ones() -> None:
    assert choose_texts(None) == load_texts()


def test_a_file_takes_the_place_of_the_text_that_it_is_named_after(tmp_path: Path) -> None:
    chosen = choose_texts(own(tmp_path, "Answer with JSON:\n{{fields}}"))
    assert chosen.extract == "Answer with JSON:\n{{fields}}"
    assert chosen.correct == load_texts().correct
    assert chosen.version == f"{load_texts().version}+extract.short"


def test_several_are_chosen_with_commas(tmp_path: Path) -> None:
    rest = own(tmp_path, "Go on after {{last}}.", name="continue.brief.txt")
    chosen = choose_texts(f"extract.v1, {rest}")
    assert chosen.extract != load_texts().extract and "that carry the same code" in chosen.extract
    assert chosen.rest == "Go on after {{last}}."
    assert choose_texts("extract.v2").extract == load_texts().extract


def test_another_prompt_is_another_recipe_that_remembers_it(tmp_path: Path) -> None:
    one, other = recipe(None), recipe(own(tmp_path, "Answer with JSON:\n{{fields}}"))
    assert one.id != other.id
    assert other.document["prompt"]["version"].endswith("extract.short")
    assert other.document["prompt"]["system"].startswith('Answer with JSON:\n- "name"')


@pytest.mark.parametrize(
    ("choice", "said"), [("v99", "there is no prompt"), ("nowhere/extract.x.txt", "cannot be read")]
)
def test_what_there_is_not_is_refused(choice: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        choose_texts(choice)


def test_a_text_without_a_place_for_the_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"must have \{\{fields\}\}"):
        choose_texts(own(tmp_path, "Answer with JSON."))
    with pytest.raises(JobError, match="no prompt text 'greet'"):
        choose_texts(own(tmp_path, "Hello", name="greet.v1.txt"))
