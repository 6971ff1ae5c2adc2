"""Rate limits answer 429s, and the fake measures what it was sent."""

from __future__ import annotations

import time
from array import array

import httpx
import pytest

from tests.fakes.asked import Asked
from tests.fakes.limits import Limits
from tests.fakes.qwen import FakeQwen
from tests.fakes.traffic import Traffic, most_within


def question(words: str = "hi", model: str = "qwen-plus") -> Asked:
    chat = {"model": model, "messages": [{"role": "user", "content": words}]}
    return Asked(chat, dialect="chat", raw=chat, stream=False)


def codes(limits: Limits, times: list[float], *, words: str = "hi") -> list[str]:
    found = [limits.refusal(question(words), at, 1) for at in times]
    return [one.code if one else "ok" for one in found]


def test_requests_per_minute() -> None:
    limits = Limits(rpm=3, per_second=False)
    assert codes(limits, [0, 1, 2, 3, 59, 60.5]) == ["ok", "ok", "ok", "limit_requests", "limit_requests", "ok"]
    assert limits.refused == 2


def test_a_second_holds_a_sixtieth_of_the_minute() -> None:
    assert codes(Limits(rpm=120), [0, 0.1, 0.2, 1.05]) == ["ok", "ok", "limit_burst_rate", "ok"]


def test_tokens_per_minute() -> None:
    limits = Limits(tpm=300, per_second=False)
    assert codes(limits, [0, 1, 2, 61], words="x" * 400) == ["ok", "ok", "insufficient_quota", "ok"]


def test_requests_in_flight() -> None:
    assert Limits(in_flight=2).refusal(question(), 0, 2) is None
    assert Limits(in_flight=2).refusal(question(), 0, 3) is not None


def test_each_model_has_its_own_limit() -> None:
    limits = Limits(rpm=1)
    assert limits.refusal(question(), 0, 1) is None
    assert limits.refusal(question(model="qwen-flash"), 0, 1) is None
    assert limits.refusal(question(), 0, 1) is not None


def test_a_limit_is_a_429_over_http_and_says_how_long_to_wait() -> None:
    with FakeQwen("{}", limits=Limits(rpm=60, retry_after=1.5)) as service:
        got = [httpx.post(f"{service.base_url}/chat/completions", json=dict(question()), verify=False) for _ in "ab"]
    assert [one.status_code for one in got] == [200, 429]
    assert got[1].headers["retry-after"] == "1.5"


def test_arrivals_are_counted_in_windows_and_at_their_busiest() -> None:
    traffic = Traffic(arrivals=array("d", [10.0, 10.9, 11.0, 11.1, 14.2]))
    assert traffic.rates(1.0) == [2, 2, 0, 0, 1]
    assert traffic.highest_rate(1.0) == 3
    assert most_within(array("d"), 1.0) == 0


def test_the_measured_rate_is_that_of_the_requests() -> None:
    with FakeQwen("{}") as service, httpx.Client(verify=False) as client:
        for _ in range(5):
            client.post(f"{service.base_url}/chat/completions", json=dict(question()))
        assert service.highest_rate(1.0) == 5
        time.sleep(0.3)
        client.post(f"{service.base_url}/chat/completions", json=dict(question()))
        assert service.highest_rate(0.2) <= 5
        assert sum(service.rates(0.1)) == 6
        assert service.rates(0.1)[-1] == 1
        service.forget()
        assert service.rates() == []


@pytest.mark.parametrize("per_second", [True, False])
def test_a_request_above_the_token_limit_is_answered_when_it_comes_alone(per_second: bool) -> None:
    assert codes(Limits(tpm=10, per_second=per_second), [0], words="x" * 4000) == ["ok"]
