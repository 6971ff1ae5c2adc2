"""Choosing prompts: shipped versions, files of one's own, and what a recipe remembers of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from extractors.errors import JobError
from extractors.examples import Example
from extractors.extraction import Extraction
from extractors.prompt_versions import choose_texts
from extractors.prompting import load_texts
from extractors.qwen.requests import ChatRequest, Mode
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from schemas.job import ExtractionJob
from schemas.records import Record
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
    assert chosen.version == "v1+extract.short" and load_texts().version == "v1+extract.v2"


def test_several_are_chosen_with_commas(tmp_path: Path) -> None:
    rest = own(tmp_path, "Go on after {{last}}.", name="continue.brief.txt")
    chosen = choose_texts(f"extract.v1, {rest}")
    assert chosen.extract != load_texts().extract and "that carry the same code" in chosen.extract
    assert chosen.rest == "Go on after {{last}}."
    assert choose_texts("extract.v2").extract == load_texts().extract


@pytest.mark.parametrize("choice", ["v1", "extract.v1"])
def test_the_first_version_asks_as_it_did(choice: str, tmp_path: Path) -> None:
    """Its words promise a code around every record, and an output that was made with it is gone on with."""
    old = recipe(choice)
    assert old.document["prompt"]["version"] == "v1" and old.id != recipe(None).id
    assert "that carry the same code" in old.prompter.system.content
    [_, asked] = old.prompter.extract("plain", code="x")
    first, last = asked.content.split("\n")[0], asked.content.split("\n")[-1]
    assert first.removeprefix("=== RECORD ") == last.removeprefix("=== END ") and len(last) == len("=== END 12345678")
    assert old.prompter.pack(["a", "b"], code="x").content.count("=== END ") == 2
    example = Example("plain", "{}", "0" * 32, frozenset())
    assert "=== END " in example.turns(coded=old.prompter.codes)[0].content
    new = recipe(None).prompter
    assert new.extract("plain", code="x")[1].content == "=== RECORD\nplain\n=== END"
    assert example.turns(coded=new.codes)[0].content == "=== RECORD\nplain\n=== END"
    mine = recipe(own(tmp_path, "A line that carry the same code:\n{{fields}}")).prompter
    assert "=== END " in mine.extract("plain", code="x")[1].content, "as its words have it"


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


def test_the_same_words_about_two_records_or_of_two_recipes_are_two_questions() -> None:
    def question(using: Recipe, fingerprint: str) -> ChatRequest:
        asked = Extraction(using, Record("r", "the same window", fingerprint)).next_request()
        assert isinstance(asked, ChatRequest)
        return asked

    one = question(recipe(None), "a" * 32)
    for other in (question(recipe(None), "b" * 32), question(replace(recipe(None), id="other"), "a" * 32)):
        assert other.messages == one.messages and other.digest() != one.digest()
    assert question(recipe(None), "a" * 32).digest() == one.digest()
    old = question(recipe("v1"), "a" * 32)
    assert old.of == "" and old.digest() == replace(old, of="").digest(), "the code in its words tells, as it did"
