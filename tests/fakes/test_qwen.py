"""The fake service keeps its own promises."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.fakes.qwen import FAULTS, FakeQwen, Fault, Faults, Reply, Rules


def body(text: str = "give me json", **more: object) -> dict[str, object]:
    return {"model": "qwen-plus", "messages": [{"role": "user", "content": text}], **more}


def post(service: FakeQwen, sent: dict[str, object]) -> httpx.Response:
    return httpx.post(f"{service.base_url}/chat/completions", json=sent, timeout=5)


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (body("give me", response_format={"type": "json_object"}), "must contain the word 'json'"),
        (body(enable_thinking=True, response_format={"type": "json_object"}), "Json mode response"),
        (body(tool_choice="required"), "tool_choice"),
        (body(temperature=2), "temperature"),
        (body(max_tokens=0), "max_tokens"),
        ({**body(enable_thinking=False), "model": "qwen-max"}, "NotSupportEnableThinking"),
        ({"model": "qwen-plus", "messages": []}, "messages"),
    ],
)
def test_a_broken_rule_is_a_400_like_the_service_s_own(sent: dict[str, object], word: str) -> None:
    with FakeQwen() as service:
        got = post(service, sent)
        assert (got.status_code, word in got.json()["error"]["message"]) == (400, True)
        service.answer_with(Reply("{}"))
        assert post(service, body()).status_code == 200


def test_a_forced_tool_gets_its_answer_as_arguments() -> None:
    tools = [{"type": "function", "function": {"name": "give", "parameters": {}}}]
    with FakeQwen('{"a":1}') as service:
        message = post(service, body(tools=tools)).json()["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "give", "arguments": '{"a":1}'}


def test_a_script_is_played_in_order_and_its_last_entry_for_ever() -> None:
    with FakeQwen([Fault.status(503), "1", "2"]) as service:
        got = [post(service, body()) for _ in range(4)]
    assert [one.status_code for one in got] == [503, 200, 200, 200]
    assert [one.json()["choices"][0]["message"]["content"] for one in got[1:]] == ["1", "2", "2"]
    assert service.count == 4


def test_a_seed_gives_the_same_faults_whatever_the_order() -> None:
    def draw(order: list[int]) -> dict[int, object]:
        faults = Faults(5, mix={"429": 0.3, "fenced": 0.3}, then=lambda one: "{}")
        return {number: faults(body(str(number))) for number in order}

    ahead, back = draw(list(range(50))), draw(list(reversed(range(50))))
    assert ahead == back
    assert len({str(one) for one in ahead.values()}) == 3


def test_the_shares_of_a_mix_are_about_kept() -> None:
    faults = Faults(1, mix={"429": 0.2, "reset": 0.1}, then=lambda one: "{}")
    for number in range(2000):
        faults(body(str(number)))
    assert faults.seen.total() == 2000
    assert 330 < faults.seen["429"] < 470
    assert 150 < faults.seen["reset"] < 250


def test_every_named_fault_can_be_made() -> None:
    assert Counter(type(Fault.named(name)) for name in FAULTS) == {Fault: len(FAULTS)}
    with pytest.raises(ValueError, match="unknown faults"):
        Faults(1, mix={"earthquake": 1}, then=lambda one: "{}")


def test_a_key_is_checked_where_one_is_set() -> None:
    with FakeQwen(rules=Rules(api_key="k")) as service:
        assert post(service, body()).status_code == 401


def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    port = tmp_path / "port"
    command = [sys.executable, "-m", "tests.fakes.qwen", "--port-file", str(port), "--answer", '{"a":1}']
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        try:
            deadline = time.monotonic() + 20
            while not port.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            root = f"http://127.0.0.1:{port.read_text()}"
            got = httpx.post(f"{root}/v1/chat/completions", json=body())
            assert got.json()["choices"][0]["message"]["content"] == '{"a":1}'
            stats = httpx.get(f"{root}/stats").json()
            assert (stats["count"], stats["most_in_flight"]) == (1, 1)
        finally:
            process.terminate()
