"""What the fake service refuses, with the hosted API's words."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import httpx
import pytest

from tests.fakes.qwen import FakeQwen, Rules

JSON = {"response_format": {"type": "json_object"}}
SCHEMA = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "strict": True, "schema": {"type": "object", "properties": {}}},
    }
}
TOOL = {"tools": [{"type": "function", "function": {"name": "give", "parameters": {}}}]}
NAMED = {**TOOL, "tool_choice": {"type": "function", "function": {"name": "give"}}}


def png(wide: int, high: int) -> str:
    """A ``data:`` URL of a picture that has this size."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0))
    return _data_url(b"\x89PNG\r\n\x1a\n" + head + part(b"IEND", b""))


def _data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def ask(model: str, *, pictures: tuple[str, ...] = (), rules: Rules | None = None, **more: Any) -> httpx.Response:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    content: Any = [*parts, {"type": "text", "text": "give JSON"}] if pictures else "give JSON"
    body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
    with FakeQwen("{}", rules=rules or Rules.documented()) as service:
        return httpx.post(f"{service.compat_url}/chat/completions", json=body, timeout=5, verify=False)


def refusal(model: str, **more: Any) -> str:
    """The words of a 400; empty for an answer."""
    got = ask(model, **more)
    assert got.status_code in (200, 400), got.text
    return "" if got.status_code == 200 else str(got.json()["error"]["message"])


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        ("qwen3.7-plus", {**SCHEMA, "enable_thinking": False}, ""),
        ("qwen-plus", SCHEMA, "'response_format' of type 'json_schema' is not supported"),
        ("qwen-plus", JSON, ""),
        ("qwen-vl-ocr", JSON, "'json_object' is not supported"),
        ("qwen3-vl-plus", TOOL, "does not support tools"),
        ("qwen-plus", NAMED, ""),
        ("qwen-plus", {**NAMED, **JSON}, "exclude each other"),
        ("qwen-plus", {**TOOL, "tool_choice": "required"}, '["none", "auto"]'),
        ("qwen-plus", {**TOOL, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "not among the tools"),
        ("qwen-plus", {"tools": [{"type": "function", "function": {"name": "search"}}]}, "name is not valid"),
        ("qwen3.7-plus", JSON, "not supported when enable_thinking is true"),
        ("qwen3.7-plus", NAMED, "required or object in thinking mode"),
        ("qwen-plus", {**NAMED, "enable_thinking": True}, "required or object in thinking mode"),
        ("qwen-plus", {**JSON, "enable_thinking": True}, "not supported when enable_thinking is true"),
        ("qwen-max", {"enable_thinking": False}, "NotSupportEnableThinking"),
        ("qwq-plus", {"stream": True, "enable_thinking": False}, "restricted to True"),
        ("qwq-plus", {}, "only support stream mode"),
        ("qwen3-32b", {}, "must be set to false for non-streaming calls"),
        ("qwen3-32b", {"enable_thinking": False}, ""),
        ("qwen3-32b", {"stream": True}, ""),
        ("qwen-plus", {"max_tokens": 40_000}, "Range of max_tokens should be [1, 32768]"),
        ("qwen3.8-max", {"max_tokens": 100_000}, ""),
        ("qwen-plus", {"presence_penalty": 3}, "presence_penalty"),
        ("qwen-plus", {"top_p": 0}, "top_p"),
        ("qwen-plus", {"response_format": {"type": "yaml"}}, "response_format.type"),
        ("some-other-model", {**SCHEMA, "enable_thinking": False}, ""),
    ],
)
def test_a_model_does_what_the_documents_say_and_no_more(model: str, keys: dict[str, Any], words: str) -> None:
    found = refusal(model, **keys)
    assert bool(found) == bool(words)
    assert words in found


def test_a_text_that_is_too_long_is_refused_with_the_limit() -> None:
    body = [{"role": "user", "content": "word " * 30_000}]
    assert "Range of input length should be [1, 30720]" in refusal("qwen-max", messages=body)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (png(40, 30), ""),
        (png(10, 300), "must be larger than 10"),
        (png(11, 2300), "aspect ratio must be smaller than 200"),
        (_data_url(b"%PDF-1.7 and so on"), "image format is illegal"),
        ("data:image/png;base64,@@@", "not valid base64"),
        (_data_url(b"\xff\xd8\xff" + b"x" * 8_000_000, "image/jpeg"), "10485760"),
        ("https://shop.example/a.png", ""),
        ("file:///etc/passwd", "does not appear to be valid"),
    ],
    ids=["good", "small", "long", "pdf", "broken", "large", "address", "file"],
)
def test_pictures_are_checked(picture: str, words: str) -> None:
    found = refusal("qwen3-vl-plus", pictures=(picture,))
    assert bool(found) == bool(words)
    assert words in found


def test_a_text_model_takes_no_pictures_and_nobody_takes_too_many() -> None:
    assert "must be a string" in refusal("qwen-plus", pictures=(png(40, 30),))
    assert "Too many images" in refusal("qwen3-vl-plus", pictures=(png(40, 30),) * 251)


def test_pictures_cost_tokens_by_their_size() -> None:
    small = ask("qwen3-vl-plus", pictures=(png(320, 320),)).json()["usage"]["prompt_tokens_details"]["image_tokens"]
    large = ask("qwen3-vl-plus", pictures=(png(640, 640),)).json()["usage"]["prompt_tokens_details"]["image_tokens"]
    assert (small, large) == (102, 402)


@pytest.mark.parametrize(
    ("parameters", "stream", "words"),
    [
        ({"enable_thinking": True}, True, "incremental_output must be true"),
        ({"enable_thinking": True, "incremental_output": True}, True, ""),
        ({"response_format": {"type": "json_object"}}, False, "must contain the word 'json'"),
    ],
)
def test_native_requests_keep_their_own_rules(parameters: dict[str, Any], stream: bool, words: str) -> None:
    body = {"model": "qwen-plus", "input": {"messages": [{"role": "user", "content": "hi"}]}, "parameters": parameters}
    with FakeQwen("{}", rules=Rules.documented()) as service:
        got = httpx.post(
            f"{service.native_url}/services/aigc/text-generation/generation",
            json=body,
            headers={"X-DashScope-SSE": "enable"} if stream else {},
            verify=False,
        )
    assert got.status_code == (400 if words else 200)
    if words:
        assert got.json()["code"] == "InvalidParameter"
        assert words in got.json()["message"]


def test_responses_ignore_the_format_that_they_do_not_know() -> None:
    body = {"model": "qwen-plus", "input": "hi", "text": {"format": {"type": "json_object"}}}
    with FakeQwen("{}", rules=Rules.documented()) as service:
        assert httpx.post(f"{service.compat_url}/responses", json=body, verify=False).status_code == 200
