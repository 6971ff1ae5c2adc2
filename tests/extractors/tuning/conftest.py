"""What is compiled once is not compiled again by each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def compiled_once() -> Iterator[None]:
    """JAX keeps what it compiled in a folder, read when JAX is loaded, by child processes too."""
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(zip(names, (folder, "0"), strict=True))
        yield
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
