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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import orjson
from pydantic import SecretStr

from extractors.errors import KeyRejected, ModelMissing, ServerUnreachable
from extractors.parsing import read_answer
from extractors.qwen.addresses import chat_url
from extractors.qwen.dialects import CHAT
from extractors.qwen.modes import compile_shape
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile, is_loopback
from extractors.qwen.requests import CallError, ErrorKind, Mode
from extractors.qwen.sse import SseParser
from schemas.usage import Usage

_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
_MESSAGES = (
    {"role": "system", "content": 'Answer with one JSON object and nothing else: {"city": string, "people": integer}.'},
    {"role": "user", "content": "Bern has 134000 inhabitants."},
)
_ANSWER_TOKENS = 64
_THINKING_TOKENS = 64
_ABSURD_OUTPUT = 1_000_000_000
_RANGE = re.compile(r"max_tokens.{0,40}\[\s*1\s*,\s*(\d+)\s*\]")
_MODES = (Mode.JSON_SCHEMA, Mode.JSON_OBJECT, Mode.TOOLS, Mode.PROMPTED)
_PATIENCE = (2.0, 8.0, 30.0)
"""Seconds before a call that was told to wait is made again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and what came of it. ``works`` is None where it could not be told. ``cost`` is None where the price
    is unknown."""

    about: str
    works: bool | None
    note: str
    calls: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = None


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


@dataclass(slots=True)
class _Heard:
    """A reply, read as far as the probe needs it."""

    status: int
    text: str = ""
    thought: bool = False
    logprobs: bool = False
    usage: Usage = field(default_factory=Usage)
    error: CallError | None = None

    @property
    def fits(self) -> bool:
        found = read_answer(self.text).json
        if found is None:
            return False
        answer = orjson.loads(found)
        return isinstance(answer.get("city"), str) and isinstance(answer.get("people"), int)

    @property
    def said(self) -> str:
        return "" if self.error is None else self.error.message


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
        asker = _Asker(client, chat_url(base_url), model, profile, pricing, sleep)
        return await _Probe(asker, model, base_url, profile, today).run()


class _Probe:
    """The order of the questions: each uses what those before it found."""

    def __init__(self, asker: _Asker, model: str, base_url: str, profile: Profile, today: Callable[[], date]) -> None:
        self._ask = asker
        self._model = model
        self._base_url = base_url
        self._profile = profile
        self._today = today
        self._row: dict[str, Any] = {}

    async def run(self) -> Probed:
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


class _Asker:
    """Makes the calls and keeps the findings."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        model: str,
        profile: Profile,
        pricing: Pricing,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._client, self._url, self._model, self._pricing, self._sleep = client, url, model, pricing, sleep
        self._always = profile.always
        self._about, self._calls = "", 0
        self.findings: list[Finding] = []

    async def __call__(
        self,
        about: str,
        more: Mapping[str, Any] = {},
        *,
        messages: tuple[Mapping[str, Any], ...] = _MESSAGES,
        stream: bool = False,
    ) -> _Heard:
        self._about = about
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(messages),
            "max_tokens": _ANSWER_TOKENS,
            "temperature": 0,
            **self._always,
            **more,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        for self._calls, wait in enumerate((*_PATIENCE, None), start=1):
            heard = await self._once(body, stream=stream)
            if heard.error is None or not heard.error.retryable or wait is None:
                break
            await self._sleep(wait)
        if heard.error is not None and heard.error.kind is ErrorKind.KEY:
            raise KeyRejected(heard.error.message)
        if heard.error is not None and heard.error.kind is ErrorKind.MODEL:
            raise ModelMissing(heard.error.message)
        return heard

    def found(self, heard: _Heard, works: bool | None, note: str, *, expected: bool = False) -> None:
        """Keep what came of the last question. An error says why, unless it was the answer (``expected``)."""
        if heard.error is not None and not (expected and works):
            works, note = (None if heard.error.retryable or expected else False), heard.said[:240]
        usage = heard.usage
        # A refused call costs nothing.
        cost = self._pricing.cost(usage) if heard.error is None or usage.total_tokens else Decimal(0)
        self.findings.append(
            Finding(self._about, works, note, self._calls, usage.input_tokens, usage.output_tokens, cost)
        )

    async def _once(self, body: Mapping[str, Any], *, stream: bool) -> _Heard:
        try:
            response = await self._client.post(self._url, content=orjson.dumps(body))
        except httpx.ConnectError as error:
            raise ServerUnreachable(
                f"nothing answers at {self._url} ({type(error).__name__}); mend --base-url"
            ) from error
        except httpx.HTTPError as error:
            failed = CallError(ErrorKind.TIMED_OUT, f"no whole answer ({type(error).__name__})", self._model)
            return _Heard(0, error=failed)
        if stream and response.status_code == 200 and "json" not in response.headers.get("content-type", ""):
            return self._streamed(response)
        return self._whole(response)

    def _whole(self, response: httpx.Response) -> _Heard:
        result = CHAT.decode(
            response.status_code, response.headers, response.content, model=self._model, pricing=self._pricing
        )
        if isinstance(result, CallError):
            return _Heard(response.status_code, usage=result.usage, error=result)
        choice = orjson.loads(response.content)["choices"][0]
        return _Heard(
            200,
            result.text,
            bool(result.thinking or result.usage.reasoning_tokens),
            bool(choice.get("logprobs")),
            result.usage,
        )

    def _streamed(self, response: httpx.Response) -> _Heard:
        reader = CHAT.reader(model=self._model, pricing=self._pricing)
        heard = _Heard(200)
        parser = SseParser()
        for event in (*parser.feed(response.content), *parser.close()):
            reader.feed(event)
            heard.logprobs = heard.logprobs or b'"logprobs":{' in event.data.replace(b" ", b"")
        result = reader.result()
        heard.usage = result.usage
        if isinstance(result, CallError):
            heard.error = result
        else:
            heard.text = result.text
            heard.thought = bool(result.thinking or result.usage.reasoning_tokens)
        return heard


def _wire(mode: Mode) -> Mapping[str, Any]:
    return compile_shape("probe", _SCHEMA, mode).wire


def _with_picture() -> tuple[Mapping[str, Any], ...]:
    """The question with a white square before it."""
    url = "data:image/png;base64," + base64.b64encode(_white_square(32)).decode()
    picture = {"type": "image_url", "image_url": {"url": url}}
    return (_MESSAGES[0], {"role": "user", "content": [picture, {"type": "text", "text": _MESSAGES[1]["content"]}]})


def _white_square(side: int) -> bytes:
    """A PNG, made by hand: grey scale of one bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\x00" + b"\xff" * (side // 8)) * side
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
