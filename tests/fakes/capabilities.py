"""What models can do, as the documents say: the fake service refuses the rest where it is told to be strict.

A table of its own, not the pipeline's profiles: a mistake there must not hide itself here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tests.fakes.asked import Asked


@dataclass(frozen=True, slots=True)
class Capability:
    """One model, or a line of them. Limits are in tokens."""

    modes: tuple[str, ...] = ("json_schema", "json_object", "tools", "prompted", "grammar")
    thinking: Literal["none", "off-by-default", "on-by-default", "always"] = "off-by-default"
    streamed: Literal["as-you-like", "while-thinking", "always"] = "as-you-like"
    """Whether it answers in streams only."""
    vision: bool = False
    """Takes images, and answers on the native multimodal path only."""
    max_input: int | None = None
    max_output: int = 65_536
    schema_while_thinking: bool = False
    """Whether ``json_schema`` may be asked for while it thinks: the documents disagree."""

    def thinks(self, asked: Asked) -> bool:
        """Whether it would think about this question."""
        if self.thinking in ("none", "always"):
            return self.thinking == "always"
        said = asked.thinking
        return self.thinking == "on-by-default" if said is None else said


_WITH_SCHEMA = ("json_schema", "json_object", "tools", "prompted")
_WITH_JSON = ("json_object", "tools", "prompted")

DOCUMENTED: Mapping[str, Capability] = {
    r"qwen3\.8-max.*": Capability(_WITH_SCHEMA, "on-by-default", max_input=991_808, max_output=131_072),
    r"qwen3\.8-.*flash.*": Capability(_WITH_SCHEMA, "on-by-default", max_input=991_808, max_output=131_072),
    r"qwen3\.7-plus.*": Capability(_WITH_SCHEMA, "on-by-default", vision=True, max_input=991_808),
    r"qwen3\.7-max.*": Capability(_WITH_SCHEMA, "on-by-default", max_input=991_808),
    r"qwen3\.[567]-(plus|flash).*": Capability(_WITH_JSON, "on-by-default", vision=True, max_input=991_808),
    r"qwen3\.[5-8]-.*": Capability(_WITH_JSON, "on-by-default", max_input=991_808),
    r"qwen-(plus|flash).*": Capability(_WITH_JSON, max_input=997_952, max_output=32_768),
    r"qwen-turbo.*": Capability(_WITH_JSON, max_output=16_384),
    r"qwen3-max.*": Capability(_WITH_JSON, max_input=258_048),
    r"qwen-max.*": Capability(_WITH_JSON, "none", max_input=30_720, max_output=8_192),
    r"qwen-long.*": Capability(("json_object", "prompted"), "none", max_output=8_192),
    r"qwen3-coder.*": Capability(_WITH_JSON, "none"),
    r"qwen3-vl-(plus|flash).*": Capability(
        ("json_object", "prompted"), vision=True, max_input=260_096, max_output=32_768
    ),
    r"qwen-vl-ocr.*": Capability(("prompted",), "none", vision=True, max_input=30_000, max_output=8_192),
    r"qwen-vl-(max|plus)": Capability(("json_object", "prompted"), "none", vision=True, max_output=8_192),
    r"qwen-vl-(max|plus)-.*": Capability(("prompted",), "none", vision=True, max_output=8_192),
    r"(qwq|qvq).*": Capability(("prompted",), "always", "always", max_output=32_768),
    r"qwen3.*-thinking.*": Capability(("prompted",), "always", "always", max_output=32_768),
    r"qwen3-.*-instruct.*": Capability(_WITH_JSON, "none", max_output=32_768),
    r"qwen3-[\d.]+b.*": Capability(_WITH_JSON, "on-by-default", "while-thinking", max_output=16_384),
    r"qwen2.*": Capability(_WITH_JSON, "none", max_output=8_192),
}
"""Patterns of model names, the first that fits counts. Sections 4.2, 8.3 and 8.4 of the collected API facts."""

_SEES = re.compile(r"qwen3\.[5-7]-(plus|flash)|qwen.*-(vl|ocr|omni)|qvq")


def sees(model: str) -> bool:
    """Whether a name is that of a multimodal model, which the native text path refuses."""
    return _SEES.match(model) is not None


def capability_of(model: str, table: Mapping[str, Capability]) -> Capability | None:
    """The first row whose pattern is the whole name."""
    return next((row for pattern, row in table.items() if re.fullmatch(pattern, model)), None)
