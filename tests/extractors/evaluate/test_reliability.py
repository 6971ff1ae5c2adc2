"""What a calibration is fitted on: the draft of a pair, asked as it is in front of its final."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extractors.endpoint import Settings, resolve_endpoint
from extractors.evaluate.reliability import draft_alone
from extractors.pipeline import model_of
from extractors.recipe import compile_recipe
from schemas.job import ExtractionJob


def job(**options: Any) -> ExtractionJob:
    return ExtractionJob.model_validate({"source": "x.csv", "schema": "what, color?", "out": "out", **options})


@pytest.mark.parametrize("final", ["qwen-max", "local-1.5b"])
def test_the_draft_of_a_pair_is_asked_alone_as_it_is_in_the_pair(tmp_path: Path, final: str) -> None:
    """An embedded draft alone leaves nulls out after similar examples, in the order of the record; in front of a hosted final
    it does not, and its scores count other tokens."""
    labelled = [{"text": f"a red pan, {n}", "expected": {"what": "pan", "color": "red"}} for n in range(4)]
    (tmp_path / "golden.jsonl").write_text("".join(json.dumps(one) + "\n" for one in labelled))
    given = job(model="local-0.5b", final=final, examples=str(tmp_path / "golden.jsonl"))
    pair = resolve_endpoint(given, Settings(base_url="http://localhost:1/v1"))
    alone = draft_alone(given, pair)
    assert (alone.model, alone.final) == ("local-0.5b", None)
    model = model_of(given)
    one, other = (
        compile_recipe(*args)
        for args in ((given, model, pair.policy), (alone, model, replace(pair.policy, final=None)))
    )
    assert one.shape == other.shape and one.shape.omit_nulls == (final == "local-1.5b")


def test_a_job_without_a_final_is_calibrated_as_it_is() -> None:
    given = job(model="qwen-flash")
    assert draft_alone(given, resolve_endpoint(given, Settings(base_url="http://localhost:1/v1"))) is given
    strong = job(model="qwen-flash", high_accuracy=True)
    alone = draft_alone(strong, resolve_endpoint(strong, Settings(base_url="http://localhost:1/v1")))
    assert (alone.model, alone.high_accuracy) == ("qwen-flash", False)
