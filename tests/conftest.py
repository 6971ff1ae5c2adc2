"""No test reaches beyond this machine, or sees the keys of the person who runs it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

_CONNECT = socket.socket.connect


def _guarded(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0]).split("%")[0]
        try:
            here = ipaddress.ip_address(host).is_loopback
        except ValueError:
            here = host == "localhost"
        if not here:
            raise OSError(f"a test tried to reach {host}")
    _CONNECT(self, address)


@pytest.fixture(autouse=True)
def _only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "DASHSCOPE_API_KEY",
        "QWEN_BASE_URL_COMPAT",
        "QWEN_BASE_URL_DASHSCOPE",
        "QWEN_DEFAULT_MODEL",
        "QUARRY_PROFILES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket.socket, "connect", _guarded)
