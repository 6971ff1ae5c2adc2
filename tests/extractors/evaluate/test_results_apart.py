"""Golden sets of the same file name do not take each other's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extractors.evaluate.comparison import compare
from extractors.evaluate.evaluation import Evaluation, score_recipe
from extractors.evaluate.results import folder_of, write_comparison, write_results
from schemas.job import ExtractionJob
from tests.extractors.evaluate.test_evaluation import SCHEMA, evaluated, label, write_golden
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen


def test_two_golden_sets_of_one_name_are_kept_apart_and_each_has_its_folder_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    with FakeQwen(thing_answer) as qwen:
        for name, count in (("a", 2), ("b", 3), ("a", 2), ("b", 3)):
            (tmp_path / name).mkdir(exist_ok=True)
            monkeypatch.chdir(tmp_path / name)
            write_golden(Path("golden.jsonl"), [label(number) for number in range(count)])
            found = evaluated(Path("golden.jsonl"), qwen, out=str(tmp_path / "out"))
            folders.append(write_results(found, "page"))
            assert json.loads((folders[-1] / "evaluation.json").read_bytes())["records"] == count
    a, b = folders[:2]
    assert folders == [a, b, a, b] and a != b
    assert a.name == f"golden-{found.recipe}" and b.name.startswith("golden-") and b.name.endswith(f"-{found.recipe}")
    monkeypatch.chdir(tmp_path / "a")
    assert folder_of(found) == a, "the same words from another folder are another file"


def test_comparisons_of_what_is_there_already_are_kept_apart_too(tmp_path: Path) -> None:
    def scored(golden: Path, recipe: str) -> Evaluation:
        job = ExtractionJob.model_validate({"source": str(golden), "schema": SCHEMA, "out": str(tmp_path / "out")})
        return score_recipe(golden, job, recipe)

    folders = []
    with FakeQwen(thing_answer) as qwen:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            golden = write_golden(tmp_path / name / "golden.jsonl", [label(number) for number in range(2)])
            recipes = [evaluated(golden, qwen, out=str(tmp_path / "out"), seed=seed).recipe for seed in (1, 2)]
            one, other = (scored(golden, recipe) for recipe in recipes)
            folders.append(write_comparison(compare(one, other).as_dict(), "page", one, other))
    assert folders[0].name == f"golden-{recipes[0]}-against-{recipes[1]}"
    assert folders[0] != folders[1] and folders[1].name.endswith(f"-{recipes[0]}-against-{recipes[1]}")
