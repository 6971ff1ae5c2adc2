"""One call of a probe, and what is kept of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import orjson

from extractors.errors import KeyRejected, ModelMissing, ServerUnreachable
from extractors.parsing import read_answer
from extractors.qwen.dialects import CHAT
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import Profile
from extractors.qwen.requests import CallError, ErrorKind
from extractors.qwen.sse import SseParser
from schemas.usage import Usage

MESSAGES = (
    {"role": "system", "content": 'Answer with one JSON object and nothing else: {"city": string, "people": integer}.'},
    {"role": "user", "content": "Bern has 134000 inhabitants."},
)
_ANSWER_TOKENS = 64
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


@dataclass(slots=True)
class Heard:
    """A reply, read as far as the probe needs it."""

    status: int
    text: str = ""
    thought: bool = False
    logprobs: bool = False
    usage: Usage = field(default_factory=Usage)
    error: CallError | None = None

    @property
    def fits(self) -> bool:
        """Whether the answer is what the schema asks for."""
        found = read_answer(self.text).json
        if found is None:
            return False
        answer = orjson.loads(found)
        return isinstance(answer.get("city"), str) and isinstance(answer.get("people"), int)

    @property
    def said(self) -> str:
        """The error in words, "" without one."""
        return "" if self.error is None else self.error.message


class Asker:
    """Makes the calls and keeps the findings. ``sleep`` takes the seconds of a wait, for tests.

    The bodies are made by hand and not by the dialect: a probe sends what a run would not."""

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
        messages: tuple[Mapping[str, Any], ...] = MESSAGES,
        stream: bool = False,
    ) -> Heard:
        """Ask with the keys ``more``; ``about`` names the question for ``found``. Raises ``KeyRejected`` and
        ``ModelMissing``, after which no other question has a sense, and ``ServerUnreachable``."""
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

    def found(self, heard: Heard, works: bool | None, note: str, *, expected: bool = False) -> None:
        """Keep what came of the last question. An error says why, unless it was the answer (``expected``)."""
        if heard.error is not None and not (expected and works):
            works, note = (None if heard.error.retryable or expected else False), heard.said[:240]
        usage = heard.usage
        # A refused call costs nothing.
        cost = self._pricing.cost(usage) if heard.error is None or usage.total_tokens else Decimal(0)
        self.findings.append(
            Finding(self._about, works, note, self._calls, usage.input_tokens, usage.output_tokens, cost)
        )

    async def _once(self, body: Mapping[str, Any], *, stream: bool) -> Heard:
        try:
            response = await self._client.post(self._url, content=orjson.dumps(body))
        except httpx.ConnectError as error:
            raise ServerUnreachable(
                f"nothing answers at {self._url} ({type(error).__name__}); mend --base-url"
            ) from error
        except httpx.HTTPError as error:
            failed = CallError(ErrorKind.TIMED_OUT, f"no whole answer ({type(error).__name__})", self._model)
            return Heard(0, error=failed)
        if stream and response.status_code == 200 and "json" not in response.headers.get("content-type", ""):
            return self._streamed(response)
        return self._whole(response)

    def _whole(self, response: httpx.Response) -> Heard:
        result = CHAT.decode(
            response.status_code, response.headers, response.content, model=self._model, pricing=self._pricing
        )
        if isinstance(result, CallError):
            return Heard(response.status_code, usage=result.usage, error=result)
        choice = orjson.loads(response.content)["choices"][0]
        return Heard(
            200,
            result.text,
            bool(result.thinking or result.usage.reasoning_tokens),
            bool(choice.get("logprobs")),
            result.usage,
        )

    def _streamed(self, response: httpx.Response) -> Heard:
        reader = CHAT.reader(model=self._model, pricing=self._pricing)
        heard = Heard(200)
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
