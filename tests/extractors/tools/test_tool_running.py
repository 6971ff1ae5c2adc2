"""Functions that end in odd ways: each costs its look-up and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from extractors.tools.evidence import Results
from extractors.tools.loading import load_tools
from extractors.tools.requests import ToolRequest, ToolResult, Trouble
from extractors.tools.running import ToolRunner
from extractors.tools.words import Found
from schemas.evidence import Evidence, Match
from tests.extractors.tools.test_lookup_phase import Order

HERE = "tests.extractors.tools.vendors"


def ran(function: str, arguments: str = '{"name": "a"}') -> ToolResult:
    box = load_tools([f"{HERE}:{function}"], timeout=5, most_steps=3)
    assert box is not None

    async def once() -> ToolResult:
        runner = ToolRunner(box)
        try:
            return await runner.run(ToolRequest("r", 1, function, arguments, "fake"))
        finally:
            runner.close()

    return asyncio.run(once())


def test_a_function_that_lets_stop_iteration_out_raised_and_is_not_waited_for() -> None:
    result = ran("runs_dry")
    assert (result.trouble, result.message) == (Trouble.RAISED, "StopIteration") and result.latency < 4


def test_an_async_function_whose_own_await_was_cancelled_raised_and_cancels_nobody_else() -> None:
    result = ran("is_cancelled")
    assert result.trouble is Trouble.RAISED and "CancelledError" in result.message


def test_only_functions_whose_time_was_up_keep_others_from_being_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extractors.tools.running.MOST_LEFT", 2)
    box = load_tools([f"{HERE}:naps"], timeout=0.3, most_steps=3)
    assert box is not None

    async def together(seconds: float, count: int) -> list[ToolResult]:
        runner = ToolRunner(box)
        asked = [ToolRequest("r", 1, "naps", f'{{"seconds": {seconds}}}', "fake") for _ in range(count)]
        found = await asyncio.gather(*(runner.run(one) for one in asked))
        return [*found, await runner.run(asked[0])]

    assert all(one.text == "null" for one in asyncio.run(together(0.02, 6)))
    *late, refused = asyncio.run(together(1.0, 3))
    assert {one.message for one in late} == {"no result within 0.3 s"} and "no more are begun" in refused.message


def test_evidence_is_found_in_a_result_with_a_number_that_python_would_not_read() -> None:
    text = ran("very_long_number").text
    assert text is not None and len(text) > 4_300
    results = Results([Found(1, "f", "{}", f'{{"id":"V-0017","digits":{text}}}')])
    order = Order(vendor="Acme", vendor_id="V-0017")
    [found] = results.added(order, [Evidence("vendor_id", Match.UNGROUNDED)])
    assert (found.match, found.tool) == (Match.TOOL, "f#1")


@pytest.mark.parametrize("arguments", ['{"value": NaN}', '{"value": -Infinity}', '{"value": 1e999}'])
def test_what_is_no_finite_number_is_no_argument(arguments: str) -> None:
    assert ran("of_a_number", arguments).trouble is Trouble.ARGUMENTS
