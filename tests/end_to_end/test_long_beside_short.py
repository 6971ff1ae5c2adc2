"""A very long record must not hold up the short ones beside it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from extractors import engine, extract
from tests.fakes.qwen import FakeQwen


def test_the_chunks_of_a_long_record_are_chosen_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(7)
    words = " ".join(f"word{rng.randrange(5000)}" for _ in range(60_000))
    records = [{"id": "long", "text": f"{words} The price is 12.50. {words}"}, {"id": "short", "text": "It is 3.00."}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)))
    begun: list[bool] = []
    plain = engine.begin

    def watched(*args: Any, **named: Any) -> Any:
        try:
            asyncio.get_running_loop()
            begun.append(True)
        except RuntimeError:
            begun.append(False)
        return plain(*args, **named)

    monkeypatch.setattr(engine, "begin", watched)
    started = time.monotonic()
    with FakeQwen(lambda asked: '{"price": "12.50"}' if "12.50" in str(asked) else '{"price": "3.00"}') as qwen:
        found = extract(
            str(tmp_path / "in.jsonl"), "price: str", out=tmp_path / "out", id="id", base_url=qwen.compat_url, model="m",
            context_tokens=2000,
        )  # fmt: skip
    assert time.monotonic() - started < 60
    assert {one["record_id"]: one["price"] for one in found.rows().to_pylist()} == {"long": "12.50", "short": "3.00"}
    assert sorted(begun) == [False, True], "the long one in a thread, the short one where it costs nothing"
