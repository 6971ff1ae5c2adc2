"""The forecast of the rest from a sample: what it counts, and that its interval holds as often as it says."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from extractors.forecast import LEVEL, Forecast, Measured, Pace, forecast
from schemas.usage import Usage


def measured(characters: int, *, further: bool = False, number: int = 0) -> Measured:
    """A text whose first answer costs a tenth of its characters, and whose correction costs as much again."""
    usage = Usage(1, characters // 4, 20, cost=Decimal(characters) / 10)
    return Measured(f"{number:032x}", characters, usage, 2.0, usage if further else Usage(), 2.0 if further else 0.0)


def tell(sample: list[Measured], *, texts: int, characters: int, pace: Pace | None = None) -> Forecast:
    return forecast(sample, texts=texts, characters=characters, pace=pace, currency="USD")


def test_the_lengths_of_the_rest_are_known_and_used() -> None:
    sample = [measured(length) for length in range(100, 300, 10)]
    found = tell(sample, texts=1_000, characters=1_000 * 1_000)
    assert found.cost is not None
    assert found.cost.low == pytest.approx(100_000, rel=0.01)
    assert found.cost.high > 100_000, "no correction was seen, and there may be some: at most a few in a hundred"
    assert found.cost.high < 113_000


def test_corrections_that_were_seen_are_in_the_interval() -> None:
    sample = [measured(100, further=number % 4 == 0) for number in range(20)]
    found = tell(sample, texts=10_000, characters=1_000_000)
    assert found.cost is not None
    assert found.cost.low < 125_000 < found.cost.high
    assert found.further == 5
    assert found.spent == Decimal(250)


def test_the_same_sample_tells_the_same() -> None:
    sample = [measured(length, further=length == 140) for length in range(100, 300, 10)]
    assert tell(sample, texts=50, characters=9_000) == tell(sample, texts=50, characters=9_000)


def test_an_unknown_price_is_not_a_price_of_nothing() -> None:
    usage = Usage(1, 10, 5, cost=None)
    found = tell([Measured("0", 40, usage, 1.0, Usage(), 0.0)] * 5, texts=10, characters=400)
    assert (found.cost, found.most) == (None, None)
    assert "price unknown" in found.lines()[1]
    assert found.input_tokens.middle == pytest.approx(100, rel=0.3)


def test_time_is_shared_by_the_calls_in_flight_and_bounded_by_the_limits() -> None:
    sample = [measured(100) for _ in range(20)]
    free = tell(sample, texts=1_000, characters=100_000, pace=Pace(concurrency=10))
    slow = tell(sample, texts=1_000, characters=100_000, pace=Pace(concurrency=10, rpm=60))
    assert free.seconds is not None
    assert slow.seconds is not None
    assert 195 < free.seconds.low < 205 < free.seconds.high < 240
    assert slow.seconds.low == pytest.approx(1_000, rel=0.01)
    assert tell(sample, texts=1_000, characters=100_000).seconds is None


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.3])
def test_the_interval_holds_about_as_often_as_it_says(share: float) -> None:
    draw = random.Random(f"{share}")
    held = 0
    for _ in range(100):
        texts = [measured(draw.randint(50, 900), further=draw.random() < share) for _ in range(300)]
        sample, rest = texts[:20], texts[20:]
        truth = float(sum((one.first + one.further for one in rest), Usage()).cost or 0)
        found = tell(sample, texts=len(rest), characters=sum(one.characters for one in rest))
        assert found.cost is not None
        held += found.cost.low <= truth <= found.cost.high or (share == 0 and truth <= found.cost.high)
    assert held / 100 >= LEVEL - 0.08
