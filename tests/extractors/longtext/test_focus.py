"""The chunks that a look shows: never none, or the question is paid for nothing."""

from __future__ import annotations

import pytest

from extractors.longtext.focus import Focus

TEXT = "\n\n".join(f"Paragraph {number} about the tags and colours of thing {number}." for number in range(400))
SCHEMA = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}},
        "attrs": {"type": "object", "additionalProperties": {"type": "string"}},
        "name": {"type": "string"},
    },
}


@pytest.mark.parametrize("path", ["tags/0", "attrs/color", "tags", "name", "unknown"])
def test_a_look_for_any_path_shows_chunks(path: str) -> None:
    focus = Focus(SCHEMA, TEXT, budget=500)
    focus.first()

    shown = focus.another([path])

    assert shown is not None and shown.chunks
    assert focus.about([path], []).chunks


def test_a_look_for_an_item_is_one_for_its_list() -> None:
    item, whole = Focus(SCHEMA, TEXT, budget=500), Focus(SCHEMA, TEXT, budget=500)

    assert item.about(["tags/0"], []) == whole.about(["tags"], [])
