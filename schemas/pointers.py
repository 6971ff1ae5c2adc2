"""JSON Pointers (RFC 6901) as they are written here: without the leading slash, "" being the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def escape(key: str) -> str:
    """A key as one step of a pointer."""
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def unescape(step: str) -> str:
    """The key that a step means."""
    return step.replace("~1", "/").replace("~0", "~") if "~" in step else step


def split(path: str) -> list[str]:
    """A pointer's keys."""
    return [unescape(step) for step in path.split("/")] if path else []


def below(path: str, key: str) -> str:
    """The pointer of the member ``key`` of what is at ``path``."""
    return f"{path}/{escape(key)}" if path else escape(key)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of plain JSON that hold no others, nulls too, with their pointers, in order."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, below(path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, below(path, str(place)))
    else:
        yield path, value
