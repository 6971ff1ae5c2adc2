"""No test reaches beyond this machine, or sees the keys of the person who runs it."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

import pytest
from hypothesis import settings

# A landing is judged by the same cases each time; `make test-full` looks for new ones.
settings.register_profile("landing", derandomize=True)
settings.load_profile("landing")

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
def _only_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(("DASHSCOPE_", "QWEN_", "OTEL_")) or name == "QUARRY_PROFILES":
            monkeypatch.delenv(name)
    monkeypatch.setenv("QUARRY_HOME", str(tmp_path_factory.mktemp("home", numbered=True)))
    monkeypatch.setattr(socket.socket, "connect", _guarded)
