"""What a comparison says in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from extractors.evaluate.comparison import Comparison
from extractors.evaluate.routes import Route, Routes
from extractors.evaluate.statistics import Interval, paired

RIGHT, WRONG = (1, 0, 0), (0, 1, 1)
UNUSED: Any = None


def comparison(a: list[tuple[int, int, int]], b: list[tuple[int, int, int]]) -> Comparison:
    f1, _ = paired(*(np.array(one, dtype=np.int64)[:, np.newaxis] for one in (a, b)))
    nothing = Interval(None)
    return Comparison(
        UNUSED, UNUSED, ("A", "B"), len(a), f1, by_field={}, only_a=0, only_b=0, whole_p=1.0, changed=(),
        tokens_ratio=nothing, seconds_ratio=nothing, cost_ratio=nothing,
    )  # fmt: skip


def test_of_one_record_no_interval_is_told_and_any_difference_may_be_hidden() -> None:
    found = comparison([RIGHT], [WRONG])
    assert found.verdict == (
        "No difference can be shown: F1 -1.000 for B against A, too few records for an interval, p = 1, 1 record. "
        "One of any size may be hidden in so few records."
    )


def test_identical_answers_say_how_large_a_difference_may_be_hidden() -> None:
    found = comparison([RIGHT] * 40, [RIGHT] * 40)
    assert "F1 +0.000 for B against A, 95 % interval -0.088 to +0.088, p = 1, 40 records" in found.verdict
    assert found.verdict.endswith("One of up to 0.088 may be hidden in so few records.")


@pytest.mark.parametrize("low", [None, -0.05])
def test_a_way_of_routing_says_what_loss_may_be_hidden(low: float | None) -> None:
    way = Route(0.3, 0.5, Interval(0.9), Interval(0.0, low, None if low is None else 0.05), 0.5)
    verdict = Routes("small", "large", 3, Interval(0.9), "seconds", [way], 0.01).verdict
    assert ("too few records for an interval" in verdict) == (low is None)
    assert f"A loss of {'any size' if low is None else 'up to 0.050'} may be hidden in so few records (3)" in verdict
