"""From what a user gives as an address to a dialect's endpoint, and from a host to its region.

A bare host, a compatible root, a native root, a workspace's host, ``127.0.0.1:8080/v1`` or any dialect's endpoint
itself: each leads to the endpoint of the dialect that is used. Hosts and paths as the provider documents them.
"""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from extractors.errors import JobError
from extractors.qwen.profiles import is_loopback


class Route(StrEnum):
    """What stands below an API's root."""

    CHAT = "/chat/completions"
    RESPONSES = "/responses"
    TEXT = "/services/aigc/text-generation/generation"
    MULTIMODAL = "/services/aigc/multimodal-generation/generation"
    EMBEDDINGS = "/embeddings"
    RERANKS = "/reranks"

    @property
    def native(self) -> bool:
        """Whether it belongs to DashScope's own API, not to the compatible one."""
        return self in (Route.TEXT, Route.MULTIMODAL)


_COMPATIBLE = "/compatible-mode/v1"
_RERANKING = "/compatible-api/v1"
"""Where the hosted service has ``RERANKS``, and nothing else."""
_NATIVE = "/api/v1"
_ROOTS = frozenset(
    {
        "",
        "/api",
        "/compatible-mode",
        _COMPATIBLE,
        _RERANKING,
        _NATIVE,
        "/apps/anthropic",
        "/api/v2/apps/protocols/compatible-mode/v1",
    }
)
"""Roots that a hosted host answers at: each stands for all of them."""

_REGIONS = {
    "dashscope.aliyuncs.com": "cn-beijing",
    "batch.dashscope.aliyuncs.com": "cn-beijing",
    "dashscope-intl.aliyuncs.com": "ap-southeast-1",
    "coding-intl.dashscope.aliyuncs.com": "ap-southeast-1",
    "dashscope-us.aliyuncs.com": "us-east-1",
    "cn-hongkong.dashscope.aliyuncs.com": "cn-hongkong",
}
_WORKSPACE_HOST = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.([a-z]{2}-[a-z]+(?:-\d+)?)\.maas\.aliyuncs\.com")


def endpoint_url(base_url: str, route: Route) -> str:
    """The endpoint's address from what a user gives. Raises ``JobError``.

    >>> endpoint_url("dashscope-intl.aliyuncs.com/api/v1", Route.RESPONSES)
    'https://dashscope-intl.aliyuncs.com/compatible-mode/v1/responses'
    >>> endpoint_url("https://dashscope.aliyuncs.com/compatible-mode/v1", Route.TEXT)
    'https://dashscope.aliyuncs.com/api/v1/services/aigc/text-generation/generation'
    >>> endpoint_url("127.0.0.1:8080/v1", Route.MULTIMODAL)
    'http://127.0.0.1:8080/api/v1/services/aigc/multimodal-generation/generation'
    """
    given = base_url.strip()
    if "//" not in given:
        given = ("http://" if is_loopback(given) else "https://") + given
    try:
        parts = urlsplit(given)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or "{" in given or any(c.isspace() for c in given):
        raise JobError(
            f"{_without_secrets(base_url)!r} is no address of an API; it looks like "
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1 or http://127.0.0.1:8080/v1"
        )
    if "@" in parts.netloc:
        raise JobError("an address with a name or password in it is refused; the key goes into DASHSCOPE_API_KEY")
    path = parts.path.rstrip("/")
    named = next((known for known in Route if path.endswith(known)), None)
    root = path.removesuffix(named) if named else path
    if root.endswith(_RERANKING):
        root = root.removesuffix(_RERANKING) + _COMPATIBLE
    hosted = (parts.hostname or "").endswith(".aliyuncs.com")
    if named is None or named.native is not route.native:
        root = _native_root(root, hosted=hosted) if route.native else _compatible_root(root, named, hosted=hosted)
    if route is Route.RERANKS and root.endswith(_COMPATIBLE):
        root = root.removesuffix(_COMPATIBLE) + _RERANKING
    return urlunsplit((parts.scheme, parts.netloc, root + route, parts.query, ""))


def chat_url(base_url: str) -> str:
    """The chat endpoint's address.

    >>> chat_url("dashscope-intl.aliyuncs.com")
    'https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions'
    >>> chat_url("127.0.0.1:8080/v1/")
    'http://127.0.0.1:8080/v1/chat/completions'
    """
    return endpoint_url(base_url, Route.CHAT)


def region_of(base_url: str) -> str | None:
    """The region that a hosted address belongs to; None for other hosts, and for hosts that are not documented.

    >>> region_of("https://dashscope-intl.aliyuncs.com/compatible-mode/v1")
    'ap-southeast-1'
    >>> region_of("ws1.cn-beijing.maas.aliyuncs.com")
    'cn-beijing'
    """
    given = base_url.strip()
    try:
        host = urlsplit(given if "//" in given else f"//{given}").hostname or ""
    except ValueError:
        return None
    workspace = _WORKSPACE_HOST.fullmatch(host)
    return workspace[1] if workspace else _REGIONS.get(host)


def _compatible_root(root: str, named: Route | None, *, hosted: bool) -> str:
    if hosted and root in _ROOTS:
        return _COMPATIBLE
    if named is not None:
        # A native endpoint elsewhere: its API's compatible side is beside it.
        return root.removesuffix(_NATIVE) + "/v1"
    # Elsewhere `/api/v1` is many a gateway's compatible root.
    return root or "/v1"


def _native_root(root: str, *, hosted: bool) -> str:
    if hosted and (root in _ROOTS or root == "/v1"):
        return _NATIVE
    if root.endswith(_NATIVE):
        return root
    for compatible in (_COMPATIBLE, "/compatible-mode", "/v1"):
        if root.endswith(compatible):
            return root.removesuffix(compatible) + _NATIVE
    return root or _NATIVE


def _without_secrets(url: str) -> str:
    """An address for a message: what stands before an ``@`` may be a password."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('//')[0] + '//' if '//' in head else ''}...@{tail}" if at else url
