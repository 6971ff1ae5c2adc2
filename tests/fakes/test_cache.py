"""The prompt cache: what was seen before costs less, and usage says so."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.fakes.asked import Asked, read
from tests.fakes.cache import PromptCache
from tests.fakes.qwen import FakeQwen

LONG = "Read the record and give these fields. " * 200


def question(record: str, *, marked: bool = False, system: str = LONG, model: str = "qwen-plus") -> Asked:
    content: Any = system
    if marked:
        content = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "system", "content": content}, {"role": "user", "content": record}]
    return read("chat", {"model": model, "messages": messages}, {})


def test_the_same_beginning_is_found_again() -> None:
    cache = PromptCache()
    assert cache.use(question("first record"), 0) == (0, 0)
    cached, made = cache.use(question("another record"), 1)
    assert made == 0
    assert 0.9 < cached / (len(LONG) // 4) <= 1


def test_another_beginning_or_another_model_is_not() -> None:
    cache = PromptCache()
    cache.use(question("first"), 0)
    assert cache.use(question("first", system="x" + LONG), 1) == (0, 0)
    assert cache.use(question("first", model="qwen-flash"), 1) == (0, 0)


def test_a_short_beginning_does_not_count() -> None:
    cache = PromptCache()
    cache.use(question("first", system="short " * 100), 0)
    assert cache.use(question("first", system="short " * 100), 1) == (0, 0)


def test_calls_made_at_once_all_miss() -> None:
    cache = PromptCache(delay=2.0)
    assert [cache.use(question("a"), at)[0] for at in (0, 1)] == [0, 0]
    assert cache.use(question("a"), 2.5)[0] > 0


def test_a_marked_beginning_is_created_once_and_then_hit() -> None:
    cache = PromptCache()
    whole = len(LONG) // 4
    assert cache.use(question("first", marked=True), 0) == (0, whole)
    assert cache.use(question("second", marked=True), 10) == (whole, 0)


def test_a_marked_beginning_is_forgotten_after_five_minutes_without_a_hit() -> None:
    cache = PromptCache()
    whole = len(LONG) // 4
    cache.use(question("a", marked=True), 0)
    assert cache.use(question("b", marked=True), 299) == (whole, 0)
    assert cache.use(question("c", marked=True), 299 + 299) == (whole, 0)
    assert cache.use(question("d", marked=True), 299 + 299 + 301) == (0, whole)


def test_usage_tells_cached_and_created_tokens() -> None:
    with (
        FakeQwen("{}", cache=True) as service,
        openai.OpenAI(api_key="k", base_url=service.compat_url, max_retries=0) as client,
    ):

        def details(asked: Asked) -> Any:
            got = client.chat.completions.create(model=asked["model"], messages=asked.raw["messages"])
            return got.usage.prompt_tokens_details

        assert details(question("first")).cached_tokens == 0
        assert details(question("second")).cached_tokens > 1000
        marked = details(question("first", marked=True))
        assert (marked.cached_tokens, marked.cache_creation_input_tokens) == (0, len(LONG) // 4)
        again = details(question("second", marked=True))
        assert (again.cached_tokens, again.cache_creation_input_tokens) == (len(LONG) // 4, 0)


@pytest.mark.parametrize("dialect", ["responses", "text", "multimodal"])
def test_a_prefix_is_the_same_in_every_dialect(dialect: Any) -> None:
    cache = PromptCache()
    cache.use(question("first"), 0)
    if dialect == "responses":
        body: dict[str, Any] = {"model": "qwen-plus", "instructions": LONG, "input": "other"}
    else:
        content: Any = [{"text": LONG}] if dialect == "multimodal" else LONG
        messages = [{"role": "system", "content": content}, {"role": "user", "content": "other"}]
        body = {"model": "qwen-plus", "input": {"messages": messages}}
    assert cache.use(read(dialect, body, {}), 1)[0] > 1000


def test_a_session_keeps_its_whole_input_where_the_header_asks_for_it() -> None:
    def turn(*contents: str, header: str = "enable") -> Asked:
        items = [{"role": "user", "content": one} for one in contents]
        return read("responses", {"model": "qwen-plus", "input": items}, {"x-dashscope-session-cache": header})

    cache = PromptCache(implicit_from=10**9)
    assert cache.use(turn(LONG), 0) == (0, len(LONG) // 4)
    assert cache.use(turn(LONG, "and now this"), 1) == (len(LONG) // 4, 3)
    assert cache.use(turn(LONG, header="disable"), 2) == (0, 0)
