"""JSON on its way to and from a service: lone surrogates, half characters, pictures as data URLs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import orjson

from extractors.qwen.requests import Image


def dump(body: Mapping[str, Any]) -> bytes:
    """A request's body. Lone surrogates, which UTF-8 cannot carry, become U+FFFD."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return orjson.dumps(_without_surrogates(body))


def load(body: bytes) -> Any:
    """A reply's JSON, also where a server cut a character in two and escaped one half of its surrogate pair
    (then it is U+FFFD). Raises ``ValueError`` for what is no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if b"\\u" not in body:
            raise
        try:
            return _without_surrogates(json.loads(body.decode("utf-8")))
        except RecursionError as error:
            raise ValueError("nested too deep") from error


def picture_url(image: Image) -> str:
    """The picture's own address, or its bytes as a data URL."""
    if image.url is not None and not image.data:
        return image.url
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(inner) for inner in value]
    return value
