"""What the fake service says, before a dialect gives it a shape."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fakes.asked import Asked
from tests.fakes.pictures import size_of


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer with details. ``tokens`` is (input, output, cached, reasoning); None: made from the lengths.

    ``delay`` is in seconds before the answer, ``pace`` in seconds between the events of a stream."""

    text: str | None
    finish_reason: str = "stop"
    thinking: str | None = None
    tokens: tuple[int, int, int, int] | None = None
    usage: bool = True
    delay: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    model: str | None = None
    pace: float = 0.0
    calls: tuple[tuple[str, str], ...] = ()
    """Functions that the model calls, with their arguments as it writes them; ``text`` is then beside them."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A reply's usage. ``cached`` and ``created`` (written to the explicit cache) are part of ``input``;
    ``reasoning`` is part of ``output``."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0
    created: int = 0
    images: int = 0
    explicit: bool = False

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Told:
    """One whole answer. ``tool`` is the function that is called with ``text`` as its arguments."""

    text: str | None
    finish: str = "stop"
    thinking: str | None = None
    tokens: Tokens | None = None
    model: str = "fake"
    tool: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    """The functions that are called where the model may choose: ``text`` is what it says besides."""
    choices: bool = True
    """False: the list of choices is empty, as a broken gateway sends it."""


def tell(asked: Asked, reply: Reply, *, cached: int = 0, created: int = 0) -> Told:
    """The answer to a question: a call of the first tool where tools were given, unless the model may choose: then the
    calls that the reply names, or its words."""
    tools = asked.get("tools") if asked.get("tool_choice") not in ("none", "auto") and not reply.calls else None
    tool = tools[0]["function"]["name"] if tools and reply.text is not None else None
    finish = "tool_calls" if (tool or reply.calls) and reply.finish_reason == "stop" else reply.finish_reason
    tokens = usage_of(asked, reply, cached=cached, created=created) if reply.usage else None
    model = reply.model or asked.get("model") or "fake"
    return Told(reply.text, finish, reply.thinking, tokens, model, tool, reply.calls)


def usage_of(asked: Asked, reply: Reply, *, cached: int = 0, created: int = 0) -> Tokens:
    """The tokens of an exchange: as the reply gives them, or four characters each."""
    if reply.tokens is not None:
        fresh, made, hit, thought = reply.tokens
        return Tokens(fresh, made, hit, thought)
    thought = len(reply.thinking or "") // 4
    pictures = picture_tokens(asked)
    return Tokens(
        input=input_tokens(asked),
        output=len(reply.text or "") // 4 + 1 + thought,
        cached=cached,
        reasoning=thought,
        created=created,
        images=pictures,
        explicit=bool(asked.marks),
    )


def input_tokens(asked: Asked) -> int:
    """Four characters are a token; every request has 8 more."""
    messages = asked.get("messages") or ()
    words = sum(len(one["content"]) for one in messages if isinstance(one.get("content"), str))
    return words // 4 + 8 + picture_tokens(asked)


def picture_tokens(asked: Asked) -> int:
    """About h*w/(32*32) + 2 for each image, as documented; 1,026 (a megapixel) where its size is not known."""
    total = 0
    for picture in asked.pictures:
        size = size_of(picture)
        total += 1026 if size is None else max(4, math.ceil(size[0] * size[1] / 1024) + 2)
    return total


def pieces(text: str, size: int) -> Iterator[str]:
    """The text in pieces of ``size`` characters, as a stream brings it."""
    for at in range(0, len(text), size):
        yield text[at : at + size]
