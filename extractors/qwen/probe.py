"""Asks a live model what it truly takes, with a few tiny calls, and says what each of them cost.

One question for each capability: a record of one sentence, an answer of two fields, 64 output tokens at most.
A capability counts only when it showed: a mode, when the answer fits the schema; logprobs, when they are there.
"""

from __future__ import annotations

import asyncio
import base64
import re
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
from pydantic import SecretStr

from extractors.qwen.addresses import chat_url
from extractors.qwen.fitting import SEEN_ACCEPTED
from extractors.qwen.modes import compile_shape
from extractors.qwen.prices import Pricing
from extractors.qwen.probe_calls import MESSAGES, Asker, Finding
from extractors.qwen.profiles import Profile, is_loopback
from extractors.qwen.requests import Mode

_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
_THINKING_TOKENS = 64
_ABSURD_OUTPUT = 1_000_000_000
_RANGE = re.compile(r"max_tokens.{0,40}\[\s*1\s*,\s*(\d+)\s*\]")
_KEYWORDS: Mapping[str, tuple[str, Any]] = {
    "minLength": ("city", 1),
    "maxLength": ("city", 40),
    "pattern": ("city", "^[A-Z][a-z]+$"),
    "const": ("city", "Bern"),
    "minimum": ("people", 0),
    "maximum": ("people", 100_000_000),
    "exclusiveMinimum": ("people", -1),
    "multipleOf": ("people", 1),
}
"""Keywords of which nothing is established, each with where and how it is tried."""
_MODES = (Mode.JSON_SCHEMA, Mode.JSON_OBJECT, Mode.TOOLS, Mode.PROMPTED)


@dataclass(frozen=True, slots=True)
class Probed:
    """All findings, and the profile row that they make."""

    model: str
    base_url: str
    findings: tuple[Finding, ...]
    row: Mapping[str, Any]

    @property
    def cost(self) -> Decimal | None:
        """What all calls cost together; None where one of them has no known price."""
        costs = [finding.cost for finding in self.findings]
        return None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))


async def probe(
    model: str,
    base_url: str,
    *,
    api_key: SecretStr,
    profile: Profile,
    pricing: Pricing,
    patience: float = 120.0,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    today: Callable[[], date] = date.today,
) -> Probed:
    """Ask ``model`` at ``base_url``; ``profile`` is what is believed of it so far, ``patience`` the seconds for a call.

    Raises ``KeyRejected``, ``ModelMissing`` and ``ServerUnreachable`` where nothing can be found out."""
    headers = {"Content-Type": "application/json", "User-Agent": "quarry"}
    if secret := api_key.get_secret_value():
        headers["Authorization"] = f"Bearer {secret}"
    async with httpx.AsyncClient(timeout=patience, trust_env=not is_loopback(base_url), headers=headers) as client:
        asker = Asker(client, chat_url(base_url), model, profile, pricing, sleep)
        return await _Probe(asker, model, base_url, profile, today).run()


class _Probe:
    """The order of the questions: each uses what those before it found."""

    def __init__(self, asker: Asker, model: str, base_url: str, profile: Profile, today: Callable[[], date]) -> None:
        self._ask = asker
        self._model = model
        self._base_url = base_url
        self._profile = profile
        self._today = today
        self._row: dict[str, Any] = {}

    async def run(self) -> Probed:
        """Ask everything."""
        off = await self._thinking()
        await self._modes(off)
        await self._other(off)
        plain = self._model.strip().lower().rsplit("/", 1)[-1].removesuffix(".gguf")
        head: dict[str, Any] = {"name": plain}
        if plain != self._profile.name:
            head |= {"base": self._profile.name, "match": [plain]}
        row = {**head, **self._row, "probed": self._today().isoformat()}
        return Probed(self._model, self._base_url, tuple(self._ask.findings), row)

    async def _thinking(self) -> Mapping[str, Any]:
        """Whether it thinks unasked, with the switch off, with the switch on, and unstreamed; gives the keys that keep
        it from thinking."""
        plain = await self._ask("no thinking switch", stream=True)
        self._ask.found(plain, plain.error is None, "thinks" if plain.thought else "does not think")
        off = await self._ask("thinking switched off", self._switch(False), stream=True)
        stopped = off.error is None and not off.thought
        self._ask.found(off, stopped, "does not think" if stopped else "thinks all the same")
        on = await self._ask("thinking switched on", self._switch(True), stream=True)
        thinks = on.error is None and on.thought
        self._ask.found(on, thinks, "thinks" if thinks else "does not think")
        if not (plain.thought or thinks):
            self._row |= {"thinking": "none"}
            return {}
        kind = "on-by-default" if plain.thought else "off-by-default"
        self._row |= {"thinking": kind if stopped else "always"}
        whole = await self._ask("thinking without a stream", self._switch(True))
        self._ask.found(whole, whole.error is None, "answers" if whole.error is None else "")
        self._row |= {"stream_only_thinking": whole.error is not None}
        return self._switch(False) if stopped else {}

    async def _modes(self, off: Mapping[str, Any]) -> None:
        works: list[str] = []
        always = self._row["thinking"] == "always"
        for mode in _MODES:
            heard = await self._ask(f"mode {mode.value}", {**off, **_wire(mode)}, stream=always)
            fits = heard.error is None and heard.fits
            self._ask.found(heard, fits, "answers by the schema" if fits else "answers, but not by the schema")
            if fits:
                works.append(mode.value)
        self._row["modes"] = works or [Mode.PROMPTED.value]
        if Mode.JSON_SCHEMA.value in works:
            self._row["schema_keywords"] = [*SEEN_ACCEPTED, *await self._keywords(off, stream=always)]
        if self._row["thinking"] == "none":
            return
        works = []
        for mode in _MODES:
            heard = await self._ask(f"mode {mode.value}, thinking", {**self._switch(True), **_wire(mode)}, stream=True)
            fits = heard.error is None and heard.fits
            self._ask.found(heard, fits, "answers by the schema" if fits else "answers, but not by the schema")
            if fits:
                works.append(mode.value)
        self._row["thinking_modes"] = works or [Mode.PROMPTED.value]

    async def _keywords(self, off: Mapping[str, Any], *, stream: bool) -> list[str]:
        """The keywords that its strict schemas may hold: all in one call, and where that is refused one by one. That a
        keyword is taken does not say that it is kept to."""
        several = tuple(_KEYWORDS)
        for names in (several, *((name,) for name in several)):
            wire = _wire(Mode.JSON_SCHEMA, _with_keywords(names), keywords=several)
            heard = await self._ask(f"schema with {', '.join(names)}", {**off, **wire}, stream=stream)
            self._ask.found(heard, heard.error is None, "is taken")
            if names == several:
                if heard.error is None:
                    return list(several)
                taken: list[str] = []
            elif heard.error is None:
                taken.append(names[0])
        return taken

    async def _other(self, off: Mapping[str, Any]) -> None:
        always = self._row["thinking"] == "always"
        streamed = await self._ask("streaming", off, stream=True)
        told = streamed.error is None and streamed.usage.total_tokens > 0
        self._ask.found(streamed, told, "usage in the last event" if told else "no usage is told")
        sure = await self._ask("logprobs", {**off, "logprobs": True, "top_logprobs": 1}, stream=always)
        self._ask.found(sure, sure.logprobs, "are there" if sure.logprobs else "are ignored")
        self._row["logprobs"] = sure.logprobs
        seeded = await self._ask("seed", {**off, "seed": 7}, stream=always)
        self._ask.found(seeded, seeded.error is None, "is taken")
        if self._profile.vision:
            seen = await self._ask("an image", off, messages=_with_picture(), stream=always)
            self._ask.found(seen, seen.error is None, "is taken")
            self._row["vision"] = seen.error is None
        most = await self._ask("most output", {**off, "max_tokens": _ABSURD_OUTPUT}, stream=always)
        limit = _RANGE.search(most.said)
        if limit is not None:
            self._row["max_output"] = int(limit[1])
        self._ask.found(
            most, True if limit else None, f"{int(limit[1]):,} tokens" if limit else "not told", expected=True
        )

    def _switch(self, on: bool) -> dict[str, Any]:
        keys: dict[str, Any] = {"enable_thinking": on}
        if self._profile.switch != "enable_thinking":
            return {self._profile.switch: keys}
        return {**keys, "thinking_budget": _THINKING_TOKENS} if on else keys


def _wire(
    mode: Mode, schema: Mapping[str, Any] = _SCHEMA, *, keywords: Sequence[str] = SEEN_ACCEPTED
) -> Mapping[str, Any]:
    return compile_shape("probe", schema, mode, keywords=keywords).wire


def _with_keywords(names: Sequence[str]) -> dict[str, Any]:
    """The schema with these keywords, all of which the right answer fulfils."""
    properties = {name: dict(inner) for name, inner in _SCHEMA["properties"].items()}
    for name in names:
        place, value = _KEYWORDS[name]
        properties[place][name] = value
    return {**_SCHEMA, "properties": properties}


def _with_picture() -> tuple[Mapping[str, Any], ...]:
    """The question with a white square before it."""
    url = "data:image/png;base64," + base64.b64encode(_white_square(32)).decode()
    picture = {"type": "image_url", "image_url": {"url": url}}
    return (MESSAGES[0], {"role": "user", "content": [picture, {"type": "text", "text": MESSAGES[1]["content"]}]})


def _white_square(side: int) -> bytes:
    """A PNG, made by hand: grey scale of one bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\x00" + b"\xff" * (side // 8)) * side
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
