"""What the service refuses, as documented for the hosted API, with its codes and words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.asked import Asked
from tests.fakes.capabilities import DOCUMENTED, Capability, capability_of, sees
from tests.fakes.faults import Fault
from tests.fakes.pictures import FORMATS, data_of, format_of, size_of
from tests.fakes.told import input_tokens

_INNER = "<400> InternalError.Algo.InvalidParameter: "
_DATA_URL_BYTES = 10_485_760
_MOST_PICTURES = {"base64": 250, "url": 256}


@dataclass(slots=True)
class Rules:
    """What the service refuses with a 400, 401 or 404, as documented for the hosted API."""

    api_key: str | None = None
    """None: any key or none will do."""
    models: tuple[str, ...] | None = None
    """None: every name is known."""
    no_thinking_switch: tuple[str, ...] = ("qwen-max", "qwen2", "qwen3-coder", "qwen-long")
    """Names that start like this have no ``enable_thinking``."""
    max_input_chars: int | None = None
    schema_modes: bool = True
    """False: ``json_schema`` is refused, as by the older models."""
    capabilities: Mapping[str, Capability] = field(default_factory=dict)
    """Patterns of model names and what those can do; a model without a row can do everything."""

    @classmethod
    def documented(cls, **more: Any) -> Rules:
        """Every model does just what the documents say of it."""
        return cls(capabilities=DOCUMENTED, **more)

    def bad_key(self, headers: Mapping[str, str]) -> Fault | None:
        """The 401 that answers another key than ours."""
        if self.api_key is None or headers.get("authorization") == f"Bearer {self.api_key}":
            return None
        return Fault.status(401, "invalid_api_key", "Incorrect API key provided.")

    def refusal(self, asked: Asked, headers: Mapping[str, str]) -> Fault | None:
        """The error that answers a request which breaks a rule, or None."""
        locked = self.bad_key(headers)
        if locked is not None:
            return locked
        bad = _bad_shape(asked)
        if bad:
            return _refused(bad)
        model = asked["model"]
        if self.models is not None and model not in self.models:
            return Fault.status(404, "model_not_found", f"The model `{model}` does not exist.")
        ability = capability_of(model, self.capabilities)
        if asked.native and (ability.vision if ability else sees(model)) != (asked.dialect == "multimodal"):
            return _refused("url error, check url!")
        bad = (
            _bad_pictures(asked, ability)
            or self._bad_size(asked, ability)
            or self._bad_thinking(asked, ability)
            or self._bad_format(asked, ability)
        )
        return _refused(bad) if bad else None

    def _bad_size(self, asked: Asked, ability: Capability | None) -> str | None:
        if self.max_input_chars is not None and len(asked.words) > self.max_input_chars:
            return f"{_INNER}Range of input length should be [1, {self.max_input_chars}]"
        if ability is None:
            return None
        if ability.max_input is not None and input_tokens(asked) > ability.max_input:
            return f"{_INNER}Range of input length should be [1, {ability.max_input}]"
        if asked.get("max_tokens", 1) > ability.max_output:
            return f"{_INNER}Range of max_tokens should be [1, {ability.max_output}]"
        return None

    def _bad_thinking(self, asked: Asked, ability: Capability | None) -> str | None:
        said, model = asked.get("enable_thinking"), asked["model"]
        if "enable_thinking" in asked:
            unknown = ability.thinking == "none" if ability else model.startswith(self.no_thinking_switch)
            if unknown:
                return "InvalidParameter.NotSupportEnableThinking: the model does not support enable_thinking"
            if not isinstance(said, bool):
                return "enable_thinking must be a boolean"
            if not said and (ability.thinking == "always" if ability else "-thinking" in model):
                return "The value of the enable_thinking parameter is restricted to True."
        budget = asked.get("thinking_budget")
        if budget is not None and not (isinstance(budget, int) and budget >= 1):
            return "thinking_budget must be a positive integer"
        thinks = ability.thinks(asked) if ability else said is True
        if ability is not None and not asked.stream:
            if ability.streamed == "always":
                return "This model only support stream mode, please enable the stream parameter to access the model."
            if ability.streamed == "while-thinking" and thinks:
                return "parameter.enable_thinking must be set to false for non-streaming calls"
        if not thinks:
            return None
        if asked.native and asked.stream and not asked.incremental:
            return "incremental_output must be true when enable_thinking is true"
        kind = (asked.get("response_format") or {}).get("type", "text")
        allowed = kind == "json_schema" and ability is not None and ability.schema_while_thinking
        if kind != "text" and asked.dialect != "responses" and not allowed:
            return "Json mode response is not supported when enable_thinking is true"
        if asked.forced_tool:
            return (
                f"{_INNER}The tool_choice parameter does not support being set to required or object in thinking mode"
            )
        return None

    def _bad_format(self, asked: Asked, ability: Capability | None) -> str | None:
        tools = asked.get("tools") or []
        bad = _bad_tools(asked, tools)
        if bad:
            return bad
        if tools and ability is not None and "tools" not in ability.modes:
            return f"{_INNER}The model does not support tools"
        wanted = asked.get("response_format")
        # The Responses API ignores every key that it does not know, `text.format` among them.
        if wanted is None or asked.dialect == "responses":
            return None
        kind = wanted.get("type")
        if kind not in ("text", "json_object", "json_schema"):
            return "'response_format.type' must be one of text, json_object, json_schema"
        if kind != "text" and asked.forced_tool:
            return f"{_INNER}response_format and a named tool_choice exclude each other"
        if kind != "text" and ability is not None and kind not in ability.modes:
            return f"'response_format' of type '{kind}' is not supported by this model"
        if kind == "json_object" and "json" not in asked.words.lower():
            return (
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
            )
        if kind == "json_schema":
            if not self.schema_modes:
                return "'response_format' of type 'json_schema' is not supported by this model"
            inner = wanted.get("json_schema") or {}
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", inner.get("name", "")) or "schema" not in inner:
                return "response_format.json_schema needs a valid `name` and a `schema`"
            if '"uniqueItems"' in json.dumps(inner["schema"]):
                return "keyword uniqueItems, contains, minContains, maxContains is not supported"
        return None


def _refused(words: str) -> Fault:
    return Fault.status(400, "invalid_parameter_error", words)


def _bad_shape(asked: Asked) -> str | None:
    if not isinstance(asked.get("model"), str):
        return "model must be a string"
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages must be a non-empty list"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant", "tool"):
            return "Role must be in [user, assistant]"
        if not isinstance(message.get("content"), str):
            return "input content must be a string"
    if messages[-1]["role"] not in ("user", "tool"):
        return "the last message must be of the user"
    return _bad_turns(messages) or _bad_numbers(asked)


def _bad_turns(messages: list[dict[str, Any]]) -> str | None:
    """Every call that the model made is answered before anything else is said, and nothing else is answered."""
    waiting: set[Any] = set()
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                return f"{_INNER}messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            waiting.discard(message["tool_call_id"])
            continue
        calls = message.get("tool_calls") or ()
        if waiting and not calls:
            return f"{_INNER}an assistant message with 'tool_calls' must be followed by tool messages"
        for call in calls:
            try:
                json.loads(call["function"]["arguments"])
            except ValueError:
                return "<400> InternalError.Algo: Expecting ',' delimiter: line 1 column 1 (char 0)"
            waiting.add(call.get("id"))
    return None


def _bad_numbers(asked: Asked) -> str | None:
    if not 0 <= (asked.get("temperature") or 0) < 2:
        return "'temperature' must be in [0.0, 2.0)"
    if not 0 < asked.get("top_p", 1) <= 1:
        return "'top_p' must be in (0.0, 1.0]"
    if not -2 <= asked.get("presence_penalty", 0) <= 2:
        return "'presence_penalty' must be in [-2.0, 2.0]"
    if "seed" in asked and not (isinstance(asked["seed"], int) and 0 <= asked["seed"] < 2**31):
        return "Range of seed should be [0, 2147483647]"
    if "max_tokens" in asked and not (isinstance(asked["max_tokens"], int) and asked["max_tokens"] >= 1):
        return "Range of max_tokens should be [1, 65536]"
    if len(asked.marks) > 4:
        return "at most 4 cache_control markers are allowed"
    return None


def _bad_tools(asked: Asked, tools: Any) -> str | None:
    choice = asked.get("tool_choice")
    if choice == "required" and not (asked.dialect == "responses" and len(tools) == 1):
        return 'tool_choice is one of the strings that should be ["none", "auto"]'
    names = []
    for tool in tools:
        name = (tool.get("function") or {}).get("name")
        if tool.get("type") != "function" or not isinstance(name, str) or name == "search":
            return "tools[].function.name is not valid"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            return "tools[].function.name must be letters, digits, '_' and '-', 64 at most"
        names.append(name)
    if isinstance(choice, dict) and (choice.get("function") or {}).get("name") not in names:
        return "tool_choice names a function that is not among the tools"
    return None


def _bad_pictures(asked: Asked, ability: Capability | None) -> str | None:
    if not asked.pictures:
        return None
    if not (ability.vision if ability else asked.dialect != "text"):
        return "input content must be a string"
    inline = [one for one in asked.pictures if one.startswith("data:")]
    if len(inline) > _MOST_PICTURES["base64"] or len(asked.pictures) > _MOST_PICTURES["url"]:
        return f"{_INNER}Too many images in one request"
    for url in asked.pictures:
        bad = _bad_data_url(url) if url.startswith("data:") else _bad_address(url)
        if bad:
            return f"{_INNER}{bad}"
    return None


def _bad_address(url: str) -> str | None:
    return None if re.match(r"(https?|oss)://[^/]", url) else "The provided URL does not appear to be valid."


def _bad_data_url(url: str) -> str | None:
    if len(url.partition(",")[2]) > _DATA_URL_BYTES:
        return f"Exceeded limit on max bytes per data-uri item : {_DATA_URL_BYTES}'."
    try:
        data = data_of(url)
    except ValueError:
        return "The image is not valid base64."
    if format_of(data or b"") not in FORMATS:
        return "The image format is illegal and cannot be opened."
    size = size_of(url)
    if size is None:
        return None
    high, wide = size[1], size[0]
    if min(size) <= 10:
        return (
            f"The image length and width do not meet the model restrictions. "
            f"[height:{high} or width:{wide} must be larger than 10]"
        )
    if max(size) > 200 * min(size):
        return f"absolute aspect ratio must be smaller than 200, got {max(size) / min(size):.1f}"
    return None
