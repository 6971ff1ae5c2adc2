"""Functions that a model may call, on the wire: offered, asked for by the model, and answered.

Chat and native DashScope have the same shapes, in the body and in ``parameters``; Responses has items of its own
(``responses``). The model is never forced to call (``tool_choice`` auto): forcing is refused while a model
thinks, and it is the model's to say that nothing more is to be looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extractors.qwen.replies import arguments_text
from extractors.qwen.requests import Message, ToolCall, ToolSpec


def offered(tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """The keys that offer the tools; several calls in one reply are welcome, since each reply is paid."""
    return {
        "tools": [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in tools
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
    }


def with_calls(encoded: Sequence[dict[str, Any]], messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The encoded messages with what was called, and which call a message answers."""
    return [{**body, **_keys(message)} for body, message in zip(encoded, messages, strict=True)]


def _keys(message: Message) -> dict[str, Any]:
    if message.tool_calls:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
        return {"tool_calls": calls}
    return {"tool_call_id": message.tool_call_id} if message.role == "tool" else {}


def calls_in(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls of a whole message. Raises ``KeyError``, ``TypeError`` or ``AttributeError`` for another shape."""
    calls = Calls()
    for place, call in enumerate(message.get("tool_calls") or ()):
        calls.add({**call, "index": place})
    return calls.whole


class Calls:
    """The calls of one reply, put together from the pieces of a stream or from whole items."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[object, tuple[list[str], list[str], list[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, piece: Mapping[str, Any]) -> None:
        """A piece of a call in the chat shape: its place, and what it adds to id, name or arguments."""
        place = piece.get("index") or 0
        ids, names, arguments = self._parts.setdefault(place, ([], [], []))
        if piece.get("id") and not ids:
            ids.append(str(piece["id"]))
        function = piece.get("function") or {}
        if function.get("name") and not names:
            names.append(str(function["name"]))
        if (told := function.get("arguments")) not in (None, ""):
            arguments.append(arguments_text(told))

    def take(self, item: Mapping[str, Any]) -> None:
        """A whole call as an item of a response; the same item again changes nothing."""
        name, arguments = str(item["name"]), arguments_text(item.get("arguments"))
        label = str(item.get("call_id") or item.get("id") or len(self._parts))
        self._parts[label] = ([label], [name], [arguments])

    @property
    def whole(self) -> tuple[ToolCall, ...]:
        """The calls in their order. One without an id gets its place as one; no arguments are ``{}``."""
        return tuple(self._each())

    def _each(self) -> Iterator[ToolCall]:
        for number, (ids, names, arguments) in enumerate(self._parts.values()):
            yield ToolCall("".join(ids) or f"call_{number}", "".join(names), "".join(arguments) or "{}")
