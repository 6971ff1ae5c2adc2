from __future__ import annotations

import pytest

from extractors.errors import JobError
from extractors.qwen.addresses import Route, chat_url, endpoint_url, region_of
from extractors.qwen.dialects import DIALECTS

HOSTED = "https://dashscope-intl.aliyuncs.com"
ENDPOINTS = {
    Route.CHAT: "/compatible-mode/v1/chat/completions",
    Route.RESPONSES: "/compatible-mode/v1/responses",
    Route.TEXT: "/api/v1/services/aigc/text-generation/generation",
    Route.MULTIMODAL: "/api/v1/services/aigc/multimodal-generation/generation",
    Route.EMBEDDINGS: "/compatible-mode/v1/embeddings",
    Route.RERANKS: "/compatible-api/v1/reranks",
}


@pytest.mark.parametrize(
    "given",
    [
        "",
        "/",
        "/compatible-mode",
        "/compatible-mode/v1",
        "/compatible-mode/v1/",
        "/api/v1",
        "/apps/anthropic",
        "/api/v2/apps/protocols/compatible-mode/v1",
        *ENDPOINTS.values(),
    ],
)
@pytest.mark.parametrize("route", Route)
@pytest.mark.parametrize("host", [HOSTED, "https://ws-1.cn-beijing.maas.aliyuncs.com"])
def test_every_form_of_a_hosted_address_leads_to_every_endpoint(host: str, route: Route, given: str) -> None:
    assert endpoint_url(host + given, route) == host + ENDPOINTS[route]


@pytest.mark.parametrize(
    ("given", "route", "url"),
    [
        ("127.0.0.1:8080/v1", Route.CHAT, "http://127.0.0.1:8080/v1/chat/completions"),
        ("127.0.0.1:8080/v1", Route.RESPONSES, "http://127.0.0.1:8080/v1/responses"),
        ("127.0.0.1:8080/v1", Route.TEXT, f"http://127.0.0.1:8080{ENDPOINTS[Route.TEXT]}"),
        ("127.0.0.1:8080", Route.MULTIMODAL, f"http://127.0.0.1:8080{ENDPOINTS[Route.MULTIMODAL]}"),
        ("127.0.0.1:8080/api/v1", Route.TEXT, f"http://127.0.0.1:8080{ENDPOINTS[Route.TEXT]}"),
        ("127.0.0.1:8080/v1/chat/completions", Route.RESPONSES, "http://127.0.0.1:8080/v1/responses"),
        ("127.0.0.1:8080/v1/chat/completions", Route.TEXT, f"http://127.0.0.1:8080{ENDPOINTS[Route.TEXT]}"),
        (f"127.0.0.1:8080{ENDPOINTS[Route.TEXT]}", Route.CHAT, "http://127.0.0.1:8080/v1/chat/completions"),
        ("https://gw.example/qwen/v1", Route.TEXT, f"https://gw.example/qwen{ENDPOINTS[Route.TEXT]}"),
        ("https://gw.example/compatible-mode/v1", Route.TEXT, f"https://gw.example{ENDPOINTS[Route.TEXT]}"),
        # Many gateways have their compatible root there.
        ("https://gw.example/api/v1", Route.CHAT, "https://gw.example/api/v1/chat/completions"),
        ("https://gw.example/v1?tenant=a", Route.RESPONSES, "https://gw.example/v1/responses?tenant=a"),
        ("127.0.0.1:8080/v1/chat/completions", Route.EMBEDDINGS, "http://127.0.0.1:8080/v1/embeddings"),
        ("127.0.0.1:8080/v1", Route.RERANKS, "http://127.0.0.1:8080/v1/reranks"),
        ("https://gw.example/q/compatible-mode/v1", Route.RERANKS, "https://gw.example/q/compatible-api/v1/reranks"),
        # A plan's own host has its compatible root at /v1.
        (
            "https://coding-intl.dashscope.aliyuncs.com/v1",
            Route.CHAT,
            "https://coding-intl.dashscope.aliyuncs.com/v1/chat/completions",
        ),
    ],
)
def test_other_hosts_keep_the_root_that_was_given(given: str, route: Route, url: str) -> None:
    assert endpoint_url(given, route) == url


@pytest.mark.parametrize("route", Route)
def test_an_endpoint_leads_to_itself(route: Route) -> None:
    for base in (HOSTED, "http://localhost:1"):
        once = endpoint_url(base, route)
        assert endpoint_url(once, route) == once


def test_each_dialect_has_an_endpoint_of_its_own() -> None:
    assert len({dialect.url(HOSTED) for dialect in DIALECTS.values()}) == len(DIALECTS)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://h.example/v1", "https://h.example/v1/chat/completions"),
        ("https://h.example/v1/", "https://h.example/v1/chat/completions"),
        ("https://h.example/v1/chat/completions", "https://h.example/v1/chat/completions"),
        ("h.example", "https://h.example/v1/chat/completions"),
        ("https://h.example/openai/v4", "https://h.example/openai/v4/chat/completions"),
        ("localhost:8080", "http://localhost:8080/v1/chat/completions"),
        ("[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
    ],
)
def test_an_address_is_completed(given: str, url: str) -> None:
    assert chat_url(given) == url


@pytest.mark.parametrize("given", ["", "ftp://h", "https://", "https://{WorkspaceId}.h", "http://h:99999", "a b"])
def test_an_address_that_is_none_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(JobError, match="it looks like"):
        chat_url(given)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    for given in ("https://me:hunter2@h.example/v1", "ftp://me:hunter2@h.example/v1"):
        with pytest.raises(JobError) as refused:
            chat_url(given)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "region"),
    [
        ("dashscope.aliyuncs.com", "cn-beijing"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "ap-southeast-1"),
        ("https://dashscope-us.aliyuncs.com:443/api/v1", "us-east-1"),
        ("cn-hongkong.dashscope.aliyuncs.com", "cn-hongkong"),
        ("https://ws-1.eu-central-1.maas.aliyuncs.com/compatible-mode/v1", "eu-central-1"),
        ("127.0.0.1:8080/v1", None),
        ("https://dashscope.aliyuncs.com.evil.example/v1", None),
        ("https://[", None),
    ],
)
def test_a_host_tells_its_region(given: str, region: str | None) -> None:
    assert region_of(given) == region
