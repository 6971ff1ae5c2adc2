"""The journal: what was written comes back, whatever the kill or the disk did to its end."""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.errors import OutputError
from extractors.qwen.requests import CallError, ChatReply, ErrorKind, Mode
from extractors.store import files
from extractors.store.journal import RETRY, Journal, Replay, entry_result, result_entry
from schemas.usage import Usage

TEXTS = st.text(st.characters(), max_size=30)  # lone surrogates and NULs among them
FLOATS = st.floats(0, 1e12, allow_nan=False)
COUNTS = st.integers(0, 2**40)
USAGES = st.builds(
    Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.none() | st.decimals(0, 10**6, allow_nan=False, places=10)
)
SINGLE = st.builds(
    CallError,
    kind=st.sampled_from(ErrorKind),
    message=TEXTS,
    model=TEXTS,
    http_status=st.none() | st.integers(100, 599),
    code=st.none() | TEXTS,
    retry_after=st.none() | FLOATS,
    body=TEXTS,
    latency=FLOATS,
    usage=USAGES,
    started_at=FLOATS,
    mode=st.none() | st.sampled_from(Mode),
    pack=st.none() | TEXTS,
)
EARLIER = st.lists(SINGLE, max_size=2).map(tuple)
ERRORS = st.builds(lambda one, earlier: CallError(**{**_fields(one), "earlier": earlier}), SINGLE, EARLIER)
REPLIES = st.builds(
    ChatReply,
    text=TEXTS,
    finish_reason=TEXTS,
    usage=USAGES,
    model=TEXTS,
    latency=FLOATS,
    thinking=TEXTS,
    started_at=FLOATS,
    earlier=EARLIER,
    mode=st.none() | st.sampled_from(Mode),
    pack=st.none() | TEXTS,
)


def _fields(one: CallError) -> dict[str, object]:
    return {name: getattr(one, name) for name in CallError.__slots__}


def reply(text: str = "{}") -> ChatReply:
    return ChatReply(text, "stop", Usage(1, 10, 2, cost=Decimal("0.10")), "qwen-plus", 0.25)


@given(st.lists(ERRORS | REPLIES, min_size=1, max_size=5))
def test_every_result_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, results: list[object]) -> None:
    path = tmp_path_factory.mktemp("journal") / "c.jsonl"
    journal = Journal(path)
    for number, result in enumerate(results):
        journal.append(f"{number:032x}", result_entry(result))  # type: ignore[arg-type]
    journal.close()
    replay = Replay([path])
    found = [entry_result(replay.get(f"{number:032x}") or {}) for number in range(len(results))]
    assert found == results
    for one, other in zip(found, results, strict=True):
        assert str(one.usage.cost) == str(other.usage.cost)  # type: ignore[attr-defined]


def test_the_entries_of_a_pack_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    append = files.Log.append
    monkeypatch.setattr(files.Log, "append", lambda log, data: (writes.append(data), append(log, data))[1])
    journal = Journal(tmp_path / "c.jsonl", after=7)
    journal.append_all([(f"q{number}", result_entry(reply(str(number)))) for number in range(4)])
    journal.close()
    assert [data.count(b"\n") for data in writes] == [1, 4], "the opening line, and all of the pack"
    assert len(Replay([tmp_path / "c.jsonl"])) == 4


def filled(path: Path, count: int = 3) -> bytes:
    journal = Journal(path, after=7)
    for number in range(count):
        journal.append(f"q{number}", result_entry(reply(f"answer {number}")))
    journal.close()
    return path.read_bytes()


def test_a_journal_torn_anywhere_gives_its_whole_lines_and_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.jsonl"
    data = filled(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = data[: length + 1].count(b"\n")  # a line that lacks just its end is whole
        assert len(Replay([path])) == max(0, whole - 1)
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_run_goes_on_with_a_torn_journal_and_loses_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    data = filled(path)
    for cut in range(1, len(data)):
        path.write_bytes(data[:-cut])
        journal = Journal(path)
        journal.append("new", result_entry(reply("after the kill")))
        journal.close()
        before = data[:-cut].count(b"\n")
        assert len(Replay([path])) == max(0, before - 1) + 1
        assert entry_result(Replay([path]).get("new") or {}) == reply("after the kill")


def test_a_damaged_line_in_the_middle_is_named_and_the_others_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.jsonl"
    data = bytearray(filled(path))
    data[data.index(b"answer 1")] ^= 1
    path.write_bytes(data)
    replay = Replay([path])
    assert replay.get("q1") is None
    assert replay.get("q0") and replay.get("q2")
    assert f"{path}, line 3 is damaged" in caplog.text


def test_the_last_answer_to_a_question_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "c.jsonl")
    journal.append("q", result_entry(CallError(ErrorKind.OVERLOADED, "busy", "m")))
    journal.append("q", result_entry(reply("at last")))
    journal.close()
    assert entry_result(Replay([tmp_path / "c.jsonl"]).get("q") or {}) == reply("at last")


def test_a_chunk_without_calls_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "c.jsonl")
    journal.close()
    journal.discard()
    assert not list(tmp_path.iterdir())


def test_discard_deletes_the_journals_that_were_read(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        filled(tmp_path / name)
    replay = Replay(sorted(tmp_path.iterdir()))
    assert len(replay) == 3
    replay.discard()
    assert not list(tmp_path.iterdir())


def test_a_retrys_journal_stays_until_its_answers_are_used(tmp_path: Path) -> None:
    for name in ("a.jsonl", f"{RETRY}b.jsonl"):
        filled(tmp_path / name)
    replay = Replay(sorted(tmp_path.iterdir()))
    replay.discard()
    assert [path.name for path in tmp_path.iterdir()] == [f"{RETRY}b.jsonl"]
    replay = Replay(sorted(tmp_path.iterdir()))
    replay.forget(list(replay._entries))
    replay.discard()
    assert not list(tmp_path.iterdir())


def test_a_replay_begins_after_the_oldest_of_its_journals(tmp_path: Path) -> None:
    filled(tmp_path / "a.jsonl")
    journal = Journal(tmp_path / "b.jsonl", after=3)
    journal.append("q", result_entry(reply()))
    journal.close()
    assert Replay(sorted(tmp_path.iterdir())).after == 3
    assert Replay([]).after == 0


def test_a_journal_on_a_full_disk_says_so() -> None:
    with pytest.raises(OutputError, match="no space to write /dev/full"):
        Journal(Path("/dev/full")).append("q", result_entry(reply()))


def test_zero_and_unknown_costs_stay_apart() -> None:
    for cost in (None, Decimal(0), Decimal("0E-10")):
        one = ChatReply("", "stop", Usage(cost=cost), "m")
        assert str(entry_result(result_entry(one)).usage.cost) == str(cost)
    assert math.isclose(entry_result(result_entry(reply())).latency, 0.25)


def test_a_journal_that_is_gone_since_it_was_listed_holds_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "kept.jsonl", after=4)
    journal.append("a", result_entry(CallError(ErrorKind.CONNECTION, "no", "m")))
    journal.close()
    replay = Replay([tmp_path / "gone.jsonl", tmp_path / "kept.jsonl"])
    assert (replay.after, len(replay)) == (4, 1)
    replay.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_is_being_written_is_read_on_from_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.jsonl"
    data = filled(path)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        replay = Replay([path])
        replay.forget(["q0"])
        path.write_bytes(data)
        replay.add([path])
        replay.add([path])
        first = data.index(b"\n", data.index(b"\n") + 1)  # the end of q0's line
        kept = ["q0", "q1", "q2"] if cut <= first else ["q1", "q2"]
        assert [one for one in ("q0", "q1", "q2") if replay.get(one)] == kept
    path.write_bytes(data + b"xx\n")
    replay.add([path])
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == [
        f"{path}, line 5 is damaged: that call is asked again"
    ]
    replay.discard()
    assert list(tmp_path.iterdir()) == []
