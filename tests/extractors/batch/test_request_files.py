"""Request files hold the service's rules before anything is uploaded."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from extractors.batch.request_files import RequestFiles
from extractors.budget import Amount
from extractors.qwen.batch import BatchRules
from extractors.qwen.requests import AnswerShape, ChatRequest, Message, Mode

SHAPE = AnswerShape("thing", {}, Mode.JSON_OBJECT)


def writer(folder: Path, **rules: Any) -> RequestFiles:
    numbers = count(1)

    def named() -> tuple[str, str]:
        number = next(numbers)
        return f"n{number}", f"t{number}-"

    return RequestFiles(BatchRules(**rules), named=named, path=lambda name: folder / f"{name}.jsonl")


def ask(files: RequestFiles, number: int, *, thinking: bool | None = False, padding: int = 0) -> None:
    body = orjson.dumps({"n": number, "pad": "x" * padding})
    request = ChatRequest("qwen-plus", (Message("user", str(number)),), SHAPE, thinking=thinking)
    files.add(request, body, digest=f"{number:032x}", worst=Amount(Decimal(number), number))


def test_a_file_is_cut_at_the_number_of_requests(tmp_path: Path) -> None:
    files = writer(tmp_path, requests=3)
    for number in range(7):
        ask(files, number)
    files.finish()
    assert [one.lines for one in files.take()] == [3, 3, 1]


def test_a_file_is_cut_before_it_is_too_large(tmp_path: Path) -> None:
    files = writer(tmp_path, file_bytes=1000)
    for number in range(4):
        ask(files, number, padding=300)
    files.finish()
    taken = files.take()
    assert [one.lines for one in taken] == [2, 2]
    assert all(one.path.stat().st_size == one.size <= 1000 for one in taken)


def test_thinking_and_not_thinking_never_share_a_file(tmp_path: Path) -> None:
    files = writer(tmp_path)
    ask(files, 1, thinking=True)
    ask(files, 2, thinking=False)
    ask(files, 3, thinking=True)
    files.finish()
    assert sorted(one.lines for one in files.take()) == [1, 2]


def test_custom_ids_are_unique_and_carry_the_tag(tmp_path: Path) -> None:
    files = writer(tmp_path)
    for number in range(50):
        ask(files, number)
    files.finish()
    (one,) = files.take()
    ids = [orjson.loads(line)["custom_id"] for line in one.path.read_bytes().splitlines()]
    assert len(set(ids)) == 50
    assert ids[7] == f"t1-{7:032x}"
    assert one.digests[7].hex() == f"{7:032x}"


def test_the_worst_case_of_a_file_is_the_sum_of_its_lines(tmp_path: Path) -> None:
    files = writer(tmp_path)
    for number in (5, 9, 2):
        ask(files, number)
    files.finish()
    (one,) = files.take()
    assert one.worst == Amount(Decimal(16), 16)
    assert one.worst_line == Amount(Decimal(9), 9)


def test_a_line_that_fits_nowhere_is_told_beforehand(tmp_path: Path) -> None:
    files = writer(tmp_path, line_bytes=1000)
    assert files.too_long(b"x" * 500) is None
    assert "may have 1,000" in (files.too_long(b"x" * 1000) or "")


def test_a_file_that_is_not_whole_is_not_there(tmp_path: Path) -> None:
    files = writer(tmp_path)
    ask(files, 1)
    assert not (tmp_path / "n1.jsonl").exists()
    files.drop()
    assert not list(tmp_path.iterdir())
