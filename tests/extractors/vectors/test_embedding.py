"""Texts to vectors over real HTTP: in order, each once, whatever goes wrong."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from extractors.endpoint import Settings, resolve_endpoint
from extractors.errors import BudgetReached, JobError
from extractors.qwen.requests import CallError, ChatReply, ErrorKind
from extractors.vectors.asking import HelperFailed
from extractors.vectors.models import cut_to
from extractors.vectors.wire import Embedded, embedding_request, rerank_request
from schemas.job import ExtractionJob
from tests.extractors.vectors.helping import SIZE, helped
from tests.fakes.embeddings import vector
from tests.fakes.qwen import FakeQwen, Fault, Rules


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeQwen]:
    with FakeQwen() as service:
        yield service


@pytest.fixture
def qwen(shared: FakeQwen) -> FakeQwen:
    shared.embeddings.texts.clear()
    shared.embeddings.count = 0
    shared.embeddings.trouble = shared.embeddings.spoil = None
    return shared


def as_sent(text: str) -> bytes:
    return np.asarray(vector(text, SIZE), dtype="<f4").tobytes()


def embed(qwen: FakeQwen, out: Path, texts: list[str], **options: Any) -> dict[str, bytes]:
    async def work() -> dict[str, bytes]:
        async with helped(qwen, out, **options) as one:
            return await one.embedder.vectors(texts, one.call)

    return asyncio.run(work())


@settings(max_examples=12, deadline=None)
@given(texts=st.lists(st.text(max_size=12), max_size=40), most_texts=st.integers(1, 25))
def test_any_texts_in_calls_of_any_size_get_their_own_vectors_and_each_is_embedded_once(
    shared: FakeQwen, texts: list[str], most_texts: int
) -> None:
    shared.embeddings.texts.clear()
    with tempfile.TemporaryDirectory() as out:
        found = embed(shared, Path(out), texts, most_texts=most_texts)
        again = embed(shared, Path(out), texts, most_texts=most_texts)
    wanted = {text for text in texts if text.strip()}
    assert found == again == {text: as_sent(text) for text in wanted}
    assert set(shared.embeddings.texts) == wanted
    assert all(count == 1 for count in shared.embeddings.texts.values())


def test_calls_hold_as_many_texts_as_the_model_takes(qwen: FakeQwen, tmp_path: Path) -> None:
    embed(qwen, tmp_path, [f"text {n}" for n in range(25)])
    assert qwen.embeddings.count == 3


def test_a_batch_that_the_service_finds_too_large_is_halved(qwen: FakeQwen, tmp_path: Path) -> None:
    qwen.embeddings.most_texts = 3
    try:
        found = embed(qwen, tmp_path, [f"text {n}" for n in range(10)])
    finally:
        qwen.embeddings.most_texts = 10
    assert len(found) == 10
    assert set(qwen.embeddings.texts.values()) == {1}


def test_records_that_want_the_same_text_at_the_same_time_share_one_call(qwen: FakeQwen, tmp_path: Path) -> None:
    async def work() -> list[dict[str, bytes]]:
        async with helped(qwen, tmp_path) as one:
            return await asyncio.gather(*(one.embedder.vectors(["a", "b", str(n)], one.call) for n in range(5)))

    found = asyncio.run(work())
    assert all({"a", "b"} <= set(one) for one in found)
    assert set(qwen.embeddings.texts.values()) == {1}


def test_a_text_over_the_limit_is_embedded_by_its_beginning(
    qwen: FakeQwen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "kettle " * 20_000
    assert set(embed(qwen, tmp_path, [text, "short"])) == {text, "short"}
    assert "embedded by their beginning" in caplog.text
    sent = max(qwen.embeddings.texts, key=len)
    assert text.startswith(sent)
    assert 1_000 < len(sent) < len(text)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=300), most=st.integers(1, 60))
def test_what_is_cut_is_a_beginning_and_what_surely_fits_is_whole(text: str, most: int) -> None:
    cut = cut_to(text, most)
    assert text.startswith(cut)
    assert cut == text or len(cut) >= 1
    assert len(text.encode()) > most or cut == text


def test_a_text_that_the_provider_refuses_has_no_vector_and_the_others_have_theirs(
    qwen: FakeQwen, tmp_path: Path
) -> None:
    def moderation(body: dict[str, Any]) -> Fault | None:
        return (
            Fault.status(400, "data_inspection_failed", "Input data may contain x.") if "bad" in body["input"] else None
        )

    qwen.embeddings.trouble = moderation
    assert set(embed(qwen, tmp_path, ["good", "bad", "better"])) == {"good", "better"}


def test_a_text_that_cannot_be_embedded_costs_the_record_that_has_it_and_none_that_shares_its_call(
    qwen: FakeQwen, tmp_path: Path
) -> None:
    def odd(body: dict[str, Any]) -> Fault | None:
        return Fault.status(400, "InvalidParameter", "an odd text") if "odd" in body["input"] else None

    async def work() -> list[dict[str, bytes] | BaseException]:
        async with helped(qwen, tmp_path) as one:
            wanted = (["query", "odd", "last"], ["query", "last", "fine"], ["query", "odd"])
            asked = (one.embedder.vectors(texts, one.call) for texts in wanted)
            return await asyncio.gather(*asked, return_exceptions=True)

    qwen.embeddings.trouble = odd
    first, second, third = asyncio.run(work())
    assert isinstance(first, HelperFailed) and isinstance(third, HelperFailed)
    assert second == {text: as_sent(text) for text in ("query", "last", "fine")}
    assert all(count == 1 for count in qwen.embeddings.texts.values())


def test_errors_that_pass_are_tried_again_and_told(qwen: FakeQwen, tmp_path: Path) -> None:
    faults = [Fault.status(503, "ServiceUnavailable", "busy"), Fault.status(429, "limit_requests", "slower")]
    qwen.embeddings.trouble = lambda body: faults.pop() if faults else None

    async def work() -> ChatReply | CallError:
        async with helped(qwen, tmp_path) as one:
            return await one.call(embedding_request("text-embedding-v4", ["a"], dimensions=SIZE))

    reply = asyncio.run(work())
    assert isinstance(reply, Embedded)
    assert [one.kind for one in reply.earlier] == [ErrorKind.RATE_LIMITED, ErrorKind.OVERLOADED]


def _without_the_last(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "data": body["data"][:-1]}


def _of_two_lengths(body: dict[str, Any]) -> dict[str, Any]:
    first, *more = body["data"]
    return {**body, "data": [{**first, "embedding": first["embedding"][:-1]}, *more]}


def _of_another_length(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "data": [{**row, "embedding": row["embedding"][:-1]} for row in body["data"]]}


def _with_a_hole(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "data": [{**row, "embedding": [None, *row["embedding"][1:]]} for row in body["data"]]}


def _too_large_for_float32(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "data": [{**row, "embedding": [1e300, *row["embedding"][1:]]} for row in body["data"]]}


def _all_at_one_index(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "data": [{**row, "index": 0} for row in body["data"]]}


@pytest.mark.parametrize(
    "spoil", [_without_the_last, _of_two_lengths, _with_a_hole, _too_large_for_float32, _all_at_one_index]
)
def test_a_reply_without_a_finite_vector_for_each_text_is_garbled_and_nothing_is_kept(
    qwen: FakeQwen, tmp_path: Path, spoil: Any
) -> None:
    qwen.embeddings.spoil = spoil

    async def work() -> tuple[ErrorKind, int]:
        async with helped(qwen, tmp_path, transport_attempts=1) as one:
            with pytest.raises(HelperFailed) as failed:
                await one.embedder.vectors(["a", "b"], one.call)
            return failed.value.error.kind, len(one.stored)

    assert asyncio.run(work()) == (ErrorKind.GARBLED, 0)


def test_a_model_that_makes_vectors_of_another_length_is_asked_once(qwen: FakeQwen, tmp_path: Path) -> None:
    qwen.embeddings.spoil = _of_another_length
    with pytest.raises(HelperFailed, match="sent vectors of 63 numbers where 64 are wanted") as failed:
        embed(qwen, tmp_path, ["a", "b"])
    assert (failed.value.error.kind, qwen.embeddings.count) == (ErrorKind.MODEL, 1)


def test_vectors_come_in_the_order_of_their_index(qwen: FakeQwen, tmp_path: Path) -> None:
    qwen.embeddings.spoil = lambda body: {**body, "data": body["data"][::-1]}
    assert embed(qwen, tmp_path, ["a", "b", "c"]) == {text: as_sent(text) for text in "abc"}


def test_what_came_before_an_error_is_kept(qwen: FakeQwen, tmp_path: Path) -> None:
    def third(body: dict[str, Any]) -> Fault | None:
        return Fault.status(500, "InternalError", "broken") if "text 20" in body["input"] else None

    qwen.embeddings.trouble = third
    texts = [f"text {n}" for n in range(25)]
    with pytest.raises(HelperFailed, match="broken"):
        embed(qwen, tmp_path, texts, transport_attempts=1)
    qwen.embeddings.trouble = None
    assert len(embed(qwen, tmp_path, texts)) == 25
    assert set(qwen.embeddings.texts.values()) == {1}


def test_usage_is_priced_by_the_table_and_the_worst_case_is_reserved_before(qwen: FakeQwen, tmp_path: Path) -> None:
    async def work(max_cost: str) -> tuple[ChatReply | CallError, Any]:
        async with helped(qwen, tmp_path, max_cost=max_cost) as one:
            reply = await one.call(embedding_request("text-embedding-v4", ["four letters here"], dimensions=SIZE))
            return reply, one.budget

    reply, budget = asyncio.run(work("1"))
    assert reply.usage.input_tokens == 5
    assert reply.usage.cost == Decimal(5) * Decimal("0.07") / 1_000_000
    assert (budget.spent.cost, budget.reserved.cost) == (reply.usage.cost, 0)
    with pytest.raises(BudgetReached, match="--max-cost"):
        asyncio.run(work("0.000001"))


def test_reranking_is_bounded_by_the_query_beside_every_text(qwen: FakeQwen, tmp_path: Path) -> None:
    """A bound that counts the query once would let 200 texts through: 3,400 bytes and not 52,800."""

    async def work(most: int) -> ChatReply | CallError:
        async with helped(qwen, tmp_path, rerank_model="qwen3-rerank", max_tokens=most) as one:
            return await one.call(rerank_request("qwen3-rerank", "q" * 247, ["x"] * 200))

    with pytest.raises(BudgetReached):
        asyncio.run(work(55_000))
    assert isinstance(asyncio.run(work(57_000)), ChatReply)


def test_a_ceiling_on_money_is_refused_where_a_price_is_not_known() -> None:
    job = ExtractionJob.model_validate(
        {
            "source": "x.jsonl", "schema": "name", "out": "out", "model": "qwen-plus", "region": "intl",
            "rerank_model": "qwen3-rerank", "max_cost": 1,
        }
    )  # fmt: skip
    with pytest.raises(JobError, match="the price of qwen3-rerank is unknown"):
        resolve_endpoint(job, Settings())
    bounded = job.model_copy(update={"max_cost": None, "max_tokens": 100})
    assert [one.name for one in resolve_endpoint(bounded, Settings()).helpers.models] == ["qwen3-rerank"]


def test_a_part_that_was_damaged_while_the_run_goes_on_is_embedded_again(qwen: FakeQwen, tmp_path: Path) -> None:
    async def work() -> dict[str, bytes]:
        async with helped(qwen, tmp_path) as one:
            for path in one.stored.folder.glob("part-*.parquet"):
                path.write_bytes(b"PAR1")
            return await one.embedder.vectors(["a", "b"], one.call)

    embed(qwen, tmp_path, ["a", "b"])
    assert asyncio.run(work()) == {"a": as_sent("a"), "b": as_sent("b")}
    assert set(qwen.embeddings.texts.values()) == {2}


def test_a_refused_key_is_not_in_the_error(tmp_path: Path) -> None:
    key = "sk-secretsecretsecret"
    with FakeQwen(rules=Rules(api_key="another")) as qwen:

        async def work() -> CallError:
            async with helped(qwen, tmp_path, settings=Settings(api_key=SecretStr(key))) as one:
                with pytest.raises(HelperFailed) as failed:
                    await one.embedder.vectors(["a"], one.call)
                return failed.value.error

        error = asyncio.run(work())
    assert error.kind is ErrorKind.KEY
    assert key not in repr(error)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"embedding_dimensions": 100}, "makes vectors of 64, 128"),
        ({"embedding_model": "some-model", "embedding_dimensions": None}, "give --embedding-dimensions"),
    ],
)
def test_a_length_that_cannot_be_is_refused_before_the_first_call(
    qwen: FakeQwen, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(JobError, match=told):
        embed(qwen, tmp_path, ["a"], **options)


def test_models_of_fixed_length_are_not_asked_for_one(qwen: FakeQwen, tmp_path: Path) -> None:
    found = embed(
        qwen, tmp_path, [f"t{n}" for n in range(26)], embedding_model="text-embedding-v2", embedding_dimensions=None
    )
    assert {len(one) for one in found.values()} == {4 * 1536}
    assert qwen.embeddings.count == 2
