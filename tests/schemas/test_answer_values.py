"""Values under the keys of the answer: what the model was asked for is what is told."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, Field, RootModel

from schemas.answer_values import answer_values


class Part(BaseModel):
    size: int = Field(validation_alias="Size", serialization_alias="printed")


class Parts(RootModel[list[Part]]):
    pass


class Whole(BaseModel):
    name: str = Field(validation_alias=AliasChoices("Name", "title"))
    parts: list[Part] = Field(alias="Parts")
    by_name: dict[str, Part]
    more: Parts
    one: Part | None = None


def test_values_of_any_depth_are_under_the_keys_that_fill_them() -> None:
    told: dict[str, Any] = {
        "Name": "a",
        "Parts": [{"Size": 1}, {"Size": 2}],
        "by_name": {"x": {"Size": 3}},
        "more": [{"Size": 4}],
        "one": {"Size": 5},
    }
    assert answer_values(Whole.model_validate(told)) == told
