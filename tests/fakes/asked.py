"""One question to the fake service, read from the body of any dialect.

An answer function gets an ``Asked``: a chat body whose message contents are plain strings, so that the
same function answers all dialects. What was truly sent is ``raw``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Literal

import orjson

Dialect = Literal["chat", "responses", "text", "multimodal"]
"""``text`` and ``multimodal`` are the two native paths."""

Body = dict[str, Any]

PATHS: dict[str, Dialect] = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/services/aigc/text-generation/generation": "text",
    "/services/aigc/multimodal-generation/generation": "multimodal",
}


class Asked(dict[str, Any]):
    """A question as a chat body: ``model``, ``messages`` with string contents, ``response_format``,
    ``tools``, ``max_tokens``, ``enable_thinking``, ... under their chat names."""

    dialect: Dialect
    raw: Any
    """The body as it arrived."""
    stream: bool
    incremental: bool
    """Native streams: deltas, not the whole text so far."""
    usage_wanted: bool
    """Chat streams: a last chunk with the usage."""
    pictures: tuple[str, ...]
    """The addresses (or ``data:`` URLs) of the images, in order."""
    blocks: tuple[int, ...]
    """Where each content block ends, in characters of ``words``."""
    marks: tuple[int, ...]
    """The blocks that carry ``cache_control``, by their place in ``blocks``."""

    def __init__(self, chat: Mapping[str, Any], *, dialect: Dialect, raw: Any, stream: bool) -> None:
        super().__init__(chat)
        self.dialect, self.raw, self.stream = dialect, raw, stream
        self.incremental = self.usage_wanted = True
        self.pictures, self.blocks, self.marks = (), (), ()

    @property
    def native(self) -> bool:
        return self.dialect in ("text", "multimodal")

    @property
    def images(self) -> int:
        """How many images came with the messages."""
        return len(self.pictures)

    @property
    def words(self) -> str:
        """All message contents, one after the other."""
        return "".join(message["content"] for message in self["messages"])

    @property
    def mode(self) -> str:
        """How structure is asked for: ``json_schema``, ``json_object``, ``tools``, ``grammar``, ``prompted``."""
        kind = (self.get("response_format") or {}).get("type", "text")
        if kind != "text":
            return str(kind)
        return "tools" if self.get("tools") else "grammar" if self.get("grammar") else "prompted"

    @property
    def schema(self) -> Body | None:
        """The JSON Schema that the answer shall have, where the request carries one."""
        if self.mode == "json_schema":
            found = (self["response_format"].get("json_schema") or {}).get("schema")
        else:
            tools = self.get("tools") or [{}]
            found = (tools[0].get("function") or {}).get("parameters")
        return found if isinstance(found, dict) else None

    @property
    def thinking(self) -> bool | None:
        """What the request says about thinking; None: nothing."""
        found = self.get("enable_thinking", (self.get("chat_template_kwargs") or {}).get("enable_thinking"))
        return found if isinstance(found, bool) else None

    @property
    def results(self) -> list[str]:
        """What came of the functions that the model called, in the order of their messages."""
        return [message["content"] for message in self["messages"] if message["role"] == "tool"]

    @property
    def forced_tool(self) -> bool:
        """Whether the request names the tool that must be called."""
        return isinstance(self.get("tool_choice"), dict)


def read(dialect: Dialect, body: Any, headers: Mapping[str, str]) -> Asked:
    """The question in a parsed body. A body of another shape gives what could be read: the rules refuse it."""
    body = body if isinstance(body, dict) else {"model": None, "messages": None}
    if dialect == "chat":
        asked = Asked(body, dialect=dialect, raw=body, stream=body.get("stream") is True)
        asked.usage_wanted = bool((body.get("stream_options") or {}).get("include_usage"))
    elif dialect == "responses":
        asked = Asked(_from_responses(body), dialect=dialect, raw=body, stream=body.get("stream") is True)
    else:
        streamed = headers.get("x-dashscope-sse") == "enable"
        asked = Asked(_from_native(body), dialect=dialect, raw=body, stream=streamed)
        asked.incremental = asked.get("incremental_output") is True
    if isinstance(asked.get("messages"), list):
        _flatten(asked)
        if dialect == "responses" and headers.get("x-dashscope-session-cache") == "enable":
            _mark_all(asked)
    return asked


def _from_native(body: Body) -> Body:
    given = body.get("input")
    given = given if isinstance(given, dict) else {}
    messages = given.get("messages")
    if messages is None and "prompt" in given:
        messages = [*(given.get("history") or ()), {"role": "user", "content": given["prompt"]}]
    parameters = body.get("parameters")
    return {"model": body.get("model"), "messages": messages, **(parameters if isinstance(parameters, dict) else {})}


def _from_responses(body: Body) -> Body:
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if isinstance(items, list):
        items = [_item(item) for item in items if isinstance(item, dict)]
        if body.get("instructions"):
            items.insert(0, {"role": "system", "content": body["instructions"]})
    chat = {key: value for key, value in body.items() if key not in ("input", "instructions", "text", "tools")}
    chat["messages"] = items
    if "max_output_tokens" in body:
        chat["max_tokens"] = body["max_output_tokens"]
    if isinstance(body.get("tools"), list):
        chat["tools"] = [{"type": "function", "function": tool} for tool in body["tools"]]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and "name" in choice:
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    wanted = (body.get("text") or {}).get("format")
    if isinstance(wanted, dict):
        inner = {key: value for key, value in wanted.items() if key != "type"}
        chat["response_format"] = {"type": wanted.get("type"), **({"json_schema": inner} if inner else {})}
    return chat


def _item(item: Body) -> Body:
    if item.get("type") == "function_call_output":
        return {"role": "tool", "content": item.get("output", ""), "tool_call_id": item.get("call_id")}
    if item.get("type") == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments", "")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    role = "system" if item.get("role") == "developer" else item.get("role")
    return {"role": role, "content": item.get("content")}


def _flatten(asked: Asked) -> None:
    """Make the contents strings; what was in the parts beside their text goes to ``pictures`` and ``marks``."""
    plain = all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in asked["messages"])
    if plain:
        return
    pictures: list[str] = []
    blocks: list[int] = []
    marks: list[int] = []
    messages: list[Any] = []
    length = 0
    for message in asked["messages"]:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list):
            messages.append(message)
            length += len(content) if isinstance(content, str) else 0
            blocks.append(length)
            continue
        texts: list[str] = []
        here: list[str] = []
        for part in content:
            part = part if isinstance(part, dict) else {}
            texts.append(part["text"] if isinstance(part.get("text"), str) else "")
            here.extend(_pictures(part))
            length += len(texts[-1])
            if part.get("cache_control"):
                marks.append(len(blocks))
            blocks.append(length)
        flat = {**message, "content": "".join(texts)}
        if here:
            flat["pictures"] = here
        pictures += here
        messages.append(flat)
    asked["messages"] = messages
    asked.pictures, asked.blocks, asked.marks = tuple(pictures), tuple(blocks), tuple(marks)


def _mark_all(asked: Asked) -> None:
    """The session cache of the Responses API: the whole input is kept, as if its last block were marked."""
    ends = accumulate(len(one["content"]) for one in asked["messages"] if isinstance(one.get("content"), str))
    asked.blocks = tuple(ends)
    asked.marks = (len(asked.blocks) - 1,) if asked.blocks else ()


def _pictures(part: Body) -> list[str]:
    found = part.get("image_url", part.get("image"))
    if isinstance(found, dict):
        found = found.get("url")
    return [found] if isinstance(found, str) else []


def key(asked: Mapping[str, Any]) -> bytes:
    """What makes two questions the same one, whatever the dialect."""
    return orjson.dumps(asked["messages"])
