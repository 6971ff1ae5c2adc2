"""A tuned model in a recipe: how it is asked, what the final behind it is shown, and what it cannot be used for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from pydantic import BaseModel

from extractors.endpoint import Settings, resolve_endpoint
from extractors.errors import JobError, ModelMissing
from extractors.extraction import Extraction
from extractors.qwen.adapters import adapter_at, write_adapter
from extractors.qwen.local import EmbeddedModel
from extractors.qwen.requests import ChatReply, ChatRequest, Mode, Purpose
from extractors.qwen.weights import KNOWN
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from extractors.tuned import TunedWays, instructions_digest
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage
from tests.fakes.tiny_qwen2 import write_tiny_qwen2


class Offer(BaseModel):
    colour: str | None = None
    size: int | None = None


TEXT = "a grey one, size 7"
RECORD = Record("r", TEXT, content_fingerprint(TEXT))
UNTUNED = ModelPolicy("plain", Mode.GRAMMAR, None, max_input_tokens=2000, max_output_tokens=400)
TUNED = replace(UNTUNED, name="tuned.gguf", tuned=TunedWays(None))


@pytest.fixture
def examples(tmp_path: Path) -> str:
    path = tmp_path / "golden.jsonl"
    rows = [{"text": f"a red one, size {n}", "expected": {"colour": "red", "size": n}} for n in range(5)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def recipe(policy: ModelPolicy, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    return compile_recipe(job, Offer, policy)


def asked(made: Recipe, *answers: dict[str, Any]) -> tuple[Any, list[ChatRequest]]:
    extraction = Extraction(made, RECORD)
    requests = []
    for answer in answers:
        request = extraction.next_request()
        assert isinstance(request, ChatRequest)
        requests.append(request)
        extraction.receive(ChatReply(json.dumps(answer), "stop", Usage(1, 10, 10), model=request.model))
    assert extraction.next_request() is None
    return extraction.outcome, requests


def test_it_is_asked_without_examples_as_it_was_tuned(examples: str) -> None:
    alone, shown = recipe(TUNED), recipe(TUNED, examples=examples)
    assert alone.examples is None and shown.examples is None
    assert alone.id == shown.id
    assert alone.shape.omit_nulls and alone.shape.text_order
    assert alone.document["model"]["tuned"] is True
    plain = recipe(UNTUNED, made_up_examples="never")
    assert not plain.shape.omit_nulls and "tuned" not in plain.document["model"]
    _, (first,) = asked(alone, {"colour": "grey", "size": 7})
    assert [message.role for message in first.messages] == ["system", "user"]


def test_its_own_ways_hold_where_the_job_says_nothing() -> None:
    kept = replace(TUNED, tuned=TunedWays(None, omit_nulls=False, text_order=False))
    assert not recipe(kept).shape.omit_nulls
    ordered = recipe(replace(TUNED, tuned=TunedWays(None, omit_nulls=True, text_order=False)))
    assert ordered.shape.omit_nulls and not ordered.shape.text_order


def test_the_final_behind_it_is_shown_the_examples(examples: str) -> None:
    made = recipe(replace(TUNED, final=UNTUNED), examples=examples, route_below=0.99, confidence="evidence")
    outcome, (first, second) = asked(made, {"colour": "black", "size": 7}, {"colour": "grey", "size": 7})
    assert [message.role for message in first.messages] == ["system", "user"]
    assert [message.role for message in second.messages][:3] == ["system", "user", "assistant"]
    assert (first.model, second.model) == ("tuned.gguf", "plain")
    assert second.messages[-1] == first.messages[-1], "a whole answer is asked for, in the same words"
    assert isinstance(outcome, Extracted) and outcome.value == Offer(colour="grey", size=7)


def test_a_tuned_final_is_asked_for_a_whole_answer_without_examples(examples: str) -> None:
    made = recipe(replace(UNTUNED, final=TUNED), examples=examples, route_below=0.99, confidence="evidence")
    outcome, (first, second) = asked(made, {"colour": "black", "size": 7}, {"colour": "grey", "size": 7})
    assert "assistant" in [message.role for message in first.messages]
    assert [message.role for message in second.messages] == ["system", "user"]
    assert made.document["routing"]["whole_up_to"] > 0
    assert isinstance(outcome, Extracted) and outcome.value.colour == "grey"


def test_what_it_was_not_tuned_to_is_refused() -> None:
    with pytest.raises(JobError, match="one record at a time: leave --records-per-call out"):
        recipe(TUNED, records_per_call=4)
    with pytest.raises(JobError, match="leave --count-lists always out"):
        recipe(replace(UNTUNED, final=TUNED), count_lists="always")
    hosted = replace(UNTUNED, name="hosted", mode=Mode.JSON_SCHEMA)
    with pytest.raises(
        JobError, match=r"in the order of the record, and the mode json_schema .*tune it with --field-order"
    ):
        recipe(replace(TUNED, final=hosted))


def test_a_hosted_final_may_stand_behind_one_that_was_tuned_in_the_schemas_order() -> None:
    """The instructions are the same beside a model whose mode must be told of constraints."""
    ways = TunedWays(None, omit_nulls=False, text_order=False)
    hosted = replace(UNTUNED, name="hosted", mode=Mode.JSON_SCHEMA)
    alone, pair = recipe(replace(TUNED, tuned=ways)), recipe(replace(TUNED, tuned=ways, final=hosted))
    assert alone.prompter.system == pair.prompter.system


def test_what_is_copied_from_an_example_is_only_a_copy_where_it_was_shown(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text(json.dumps({"text": "a red one, size 3", "expected": {"colour": "red", "size": 3}}))
    options: dict[str, Any] = {"examples": str(path), "confidence": "evidence", "route_below": 0.0}
    extraction = Extraction(recipe(replace(TUNED, final=UNTUNED), **options), RECORD)
    shown = Extraction(recipe(UNTUNED, **options), RECORD)
    for one in (extraction, shown):
        request = one.next_request()
        assert isinstance(request, ChatRequest)
        one.receive(ChatReply('{"colour":"red","size":7}', "stop", Usage(1, 10, 10), model=request.model))
    asked_next, corrected = extraction.next_request(), shown.next_request()
    assert isinstance(corrected, ChatRequest) and corrected.purpose is Purpose.CORRECT
    assert isinstance(asked_next, ChatRequest) and asked_next.purpose is Purpose.ROUTE, (
        "it stands nowhere in the record"
    )
    extraction.receive(ChatReply('{"colour":"red","size":7}', "stop", Usage(1, 10, 10), model="plain"))
    assert extraction.next_request() is None


def test_another_schema_or_other_instructions_are_refused() -> None:
    said = instructions_digest(recipe(TUNED).prompter.system.content)
    held = replace(TUNED, tuned=TunedWays(said))
    assert recipe(held).id == recipe(TUNED).id
    with pytest.raises(JobError, match="was tuned for other instructions"):
        recipe(held, instructions="sizes are in inches")
    with pytest.raises(JobError, match=r"tuned\.gguf was tuned for other instructions"):
        recipe(replace(UNTUNED, final=held), omit_nulls=False)


def test_it_is_asked_for_token_probabilities_as_its_base_is_whatever_its_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "qwen-plus.gguf"
    told = {"quarry.base": "local-0.5b", "quarry.base_sha256": KNOWN["local-0.5b"].sha256, "quarry.system_sha256": "x"}
    ways = {"quarry.omit_nulls": True, "quarry.text_order": False, "quarry.learned": ["f"], "quarry.identity": "y"}
    write_adapter(path, {}, alpha=8.0, about={**told, **ways})
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", "model": str(path)})
    endpoint = resolve_endpoint(job, Settings())
    assert endpoint.policy.logprobs and endpoint.profile.embedded
    assert endpoint.policy.tuned == TunedWays("x", omit_nulls=True, text_order=False)
    assert endpoint.policy.weights not in (None, KNOWN["local-0.5b"].sha256)
    plain = resolve_endpoint(job.model_copy(update={"model": "local-0.5b"}), Settings())
    assert endpoint.pricing == plain.pricing and endpoint.profile == plain.profile


def test_an_adapter_of_unknown_making_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    writer = GGUFWriter(path, "qwen2")
    writer.add_string("general.type", "adapter")
    writer.add_string("quarry.base", "local-0.5b")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelMissing, match=r"does not say quarry\.base_sha256, .*quarry tune"):
        EmbeddedModel(str(path))
    assert adapter_at(str(write_tiny_qwen2(tmp_path / "whole.gguf"))) is None
    assert adapter_at(str(tmp_path / "missing.gguf")) is None
    assert adapter_at("hf:a/b:c.gguf") is None
    (tmp_path / "half.gguf").write_bytes(path.read_bytes()[:70])
    assert adapter_at(str(tmp_path / "half.gguf")) is None
    (tmp_path / "start.gguf").write_bytes(b"GGUF")
    assert adapter_at(str(tmp_path / "start.gguf")) is None
    (tmp_path / "text.gguf").write_text("not one")
    assert adapter_at(str(tmp_path / "text.gguf")) is None
