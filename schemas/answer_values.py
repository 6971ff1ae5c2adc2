"""A model's values as its JSON answer has them: JSON values under the keys that fill its fields.

Pydantic's own dump has the keys of serialization, which are others where a field is filled by one alias and printed
by another, or by none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, RootModel

from schemas.arrow_types import json_key


def answer_values(model: BaseModel) -> dict[str, Any]:
    """The values of a model; ``model_validate`` takes them back."""
    told: dict[str, Any] = answer_value(model, model.model_dump(mode="json", by_alias=False))
    return told


def answer_value(value: Any, printed: Any) -> Any:
    """``printed``, which is a value's dump under the fields' names, under the keys of the answer, however deep models
    lie in it."""
    if isinstance(value, RootModel):
        return answer_value(value.root, printed)
    if isinstance(value, BaseModel) and isinstance(printed, dict):
        keys = answer_keys(type(value))
        return {
            keys.get(name, name): answer_value(getattr(value, name, None), inner) for name, inner in printed.items()
        }
    if isinstance(value, Mapping) and isinstance(printed, dict) and len(value) == len(printed):
        return {
            key: answer_value(one, inner) for one, (key, inner) in zip(value.values(), printed.items(), strict=True)
        }
    if isinstance(value, list | tuple) and isinstance(printed, list) and len(value) == len(printed):
        return [answer_value(one, inner) for one, inner in zip(value, printed, strict=True)]
    return printed


@lru_cache(maxsize=512)
def answer_keys(model: type[BaseModel]) -> Mapping[str, str]:
    """The key in the answer of each field. Raises ``SchemaMappingError`` for a field that no one key fills."""
    return {name: json_key(name, info, name) for name, info in model.model_fields.items()}
