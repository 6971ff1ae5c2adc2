"""CPU per record with everything on, against a bare loop, against instructor, and in every dialect, in one run.

A loopback server without latency, 64 calls in flight, distinct records of 300 characters. Three ways
to get the same validated objects:

- bare: httpx with the aiohttp transport, the answer validated with pydantic, nothing kept;
- quarry: evidence, journal, Parquet parts, calls, ledger, catalog, all on;
- instructor: its async client over openai's, JSON mode;

and quarry again over Responses, over the native dialect, and streamed in each of the three (four characters an
event, so that a reply has some thirty of them). The events of a reply arrive together, except in the row
"spread", where each comes in a packet of its own, as from a model: that is the most that streaming can cost.

After the first round everything loaded is kept from the garbage collector for all of them (Quarry does that by itself),
so that nobody pays for walking through the libraries of the others. Rounds are interleaved, CPU is the process's own (user + system, all threads), medians are shown.
Bars: quarry <= 2x bare, instructor >= 5x quarry, any dialect <= 1.3x chat, chat streamed <= 2x chat (together; "spread" has no bar).
Run: ``python -m benchmarks.overhead``
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path

import httpx
import pyarrow as pa
from httpx_aiohttp import HttpxAiohttpClient
from pydantic import BaseModel

from benchmarks.loopback import record_text, running
from extractors import extract
from extractors.endpoint import Settings
from extractors.prompting import Prompter, load_texts
from schemas.jsonschema import answer_schema

IN_FLIGHT = 64
DIALECTS = {
    "responses": "never",
    "dashscope": "never",
    "chat streamed": "always",
    "responses streamed": "always",
    "dashscope streamed": "always",
    "chat spread": "always",
}


class Article(BaseModel):
    """What is extracted."""

    name: str
    code: str
    price: Decimal | None
    city: str
    since: date


def cpu() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def bare(url: str, texts: list[str]) -> None:
    """Nothing but the calls and the validation."""
    prompter = Prompter(load_texts(), answer_schema(Article))
    schema = answer_schema(Article)
    waiting = iter(texts)
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with HttpxAiohttpClient(limits=limits, timeout=30) as client:

        async def work() -> None:
            for text in waiting:
                reply = await client.post(
                    f"{url}/chat/completions",
                    json={
                        "model": "fake",
                        "messages": [{"role": m.role, "content": m.content} for m in prompter.extract(text, code="x")],
                        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
                        "max_tokens": 2048,
                        "temperature": 0,
                    },
                )
                Article.model_validate_json(reply.json()["choices"][0]["message"]["content"])

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def quarry(url: str, texts: list[str], *, dialect: str = "chat", stream: str = "never", spread: bool = False) -> None:
    """The whole pipeline."""
    with tempfile.TemporaryDirectory() as out:
        found = extract(
            pa.table({"text": texts}),
            Article,
            Path(out) / "o",
            base_url=url + ("?spread" if spread else ""),
            model="fake",
            concurrency=IN_FLIGHT,
            dialect=dialect,
            stream=stream,
            settings=Settings(),
        )
        assert found.report.rows == len(texts), found.report


async def instructor(url: str, texts: list[str]) -> None:
    """instructor's async client in JSON mode, the mode that it supports most widely."""
    import instructor as library
    import openai

    client = library.from_openai(openai.AsyncOpenAI(base_url=url, api_key="none"), mode=library.Mode.JSON)
    waiting = iter(texts)

    async def work() -> None:
        for text in waiting:
            await client.chat.completions.create(
                model="fake",
                response_model=Article,
                messages=[{"role": "user", "content": f"Extract the article.\n=== RECORD x\n{text}"}],
                max_retries=0,
                temperature=0,
            )

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def main() -> int:
    """Measure, print, and fail when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    ways: dict[str, tuple[Callable[[str, list[str]], None], int]] = {
        "bare": (lambda url, texts: asyncio.run(bare(url, texts)), arguments.records),
        "quarry": (quarry, arguments.records),
        **{
            name: (
                partial(quarry, dialect=name.split()[0], stream=stream, spread=name.endswith("spread")),
                arguments.records,
            )
            for name, stream in DIALECTS.items()
        },
        "instructor": (lambda url, texts: asyncio.run(instructor(url, texts)), arguments.records // 8),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with running() as url:
        for number in range(arguments.rounds + 1):
            if number == 1:
                gc.freeze()
            for name, (way, count) in ways.items():
                texts = [record_text(number * 1_000_000 + i) for i in range(count)]
                before, clock = cpu(), time.perf_counter()
                way(url, texts)
                if number:  # the first round warms up imports and connections
                    seen[name].append(((cpu() - before) / count * 1e3, (time.perf_counter() - clock) / count * 1e3))
    result = {
        name: (statistics.median(c for c, _ in rounds), statistics.median(w for _, w in rounds))
        for name, rounds in seen.items()
    }
    print(f"{arguments.records} records of 300 characters, {IN_FLIGHT} in flight, median of {arguments.rounds} rounds")
    for name, (used, wall) in result.items():
        print(f"{name:>18}: {used:6.3f} ms CPU a record, {wall:6.3f} ms wall, {used / result['bare'][0]:5.2f}x bare")
    ours, theirs = result["quarry"][0] / result["bare"][0], result["instructor"][0] / result["quarry"][0]
    print(f"quarry / bare = {ours:.2f} (bar: <= 2)   instructor / quarry = {theirs:.1f} (bar: >= 5)")
    over_chat = {name: result[name][0] / result["quarry"][0] for name in DIALECTS}
    plain = max(over_chat["responses"], over_chat["dashscope"])
    streamed = over_chat["chat streamed"]
    print("over chat: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in over_chat.items()))
    print(
        f"slowest plain dialect / chat = {plain:.2f} (bar: <= 1.3)   chat streamed / chat = {streamed:.2f} (bar: <= 2)"
    )
    figures = {"quarry_over_bare": ours, "instructor_over_quarry": theirs, "dialect_over_chat": plain}
    print(json.dumps({name: round(value, 3) for name, value in {**figures, "streamed_over_chat": streamed}.items()}))
    return 0 if ours <= 2 and theirs >= 5 and plain <= 1.3 and streamed <= 2 else 1


if __name__ == "__main__":
    sys.exit(main())
