"""What an evaluation command cannot do is said before the first call."""

from __future__ import annotations

from pathlib import Path

import pytest

from extractors.errors import UserError
from tests.end_to_end.test_evaluating_stopped import invoked, options
from tests.extractors.evaluate.test_evaluation import label, write_golden
from tests.fakes.answers import thing_answer
from tests.fakes.qwen import FakeQwen


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["compare", "--a", "seed=1", "--b", "model='q"], "model='q"),
        (["compare", "--a", "seed=1", "--b", "modle=qwen-max"], "modle=qwen-max"),
        (["compare", "--a", "seed=1", "--b", "concurrency=0"], "concurrency"),
        (["compare", "--a", "seed=1", "--b", "prompt=no/such.txt"], "no/such.txt"),
        (["compare", "--a", "seed=1", "--b", "recipe=00000000"], "is not an output folder"),
        (["compare", "--a", "seed=1", "--b", "seed=1"], "differ in nothing"),
        (["compare", "--a", "seed=1", "--b", "schema=other"], "no field in common"),
        (["eval", "--fail-under", "f2=0.9"], "there is no figure 'f2'"),
        (["eval", "--fail-under", "f1:prize=0.9"], "there is no field 'prize'"),
        (["eval", "--fail-under", "whole:price=0.9"], "there is no figure 'whole:price'"),
        (["route", "--final", "qwen-plus"], "both qwen-plus"),
        (["route", "--final", "text-embedding-v4"], "makes embeddings"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked(command: list[str], said: str, tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", [{**label(number), "expected": {}} for number in range(3)])
    with FakeQwen(thing_answer) as qwen:
        found = invoked(command[0], *options(golden, qwen), "--model", "qwen-plus", *command[1:])
        assert qwen.count == 0
    assert isinstance(found.exception, UserError), found.exception
    assert said in str(found.exception)
