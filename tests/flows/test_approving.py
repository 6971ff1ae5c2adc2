"""What somebody types when asked for approval."""

from __future__ import annotations

from decimal import Decimal

import pytest

from extractors.stages import Decision
from flows.cli.approving import parse_answer


@pytest.mark.parametrize(
    ("typed", "decision"),
    [
        ("y", Decision(go=True)),
        (" YES\n", Decision(go=True)),
        ("n", Decision(go=False)),
        ("", Decision(go=False)),
        ("2.50", Decision(go=True, ceiling=Decimal("2.50"))),
        ("perhaps", None),
        ("-1", None),
        ("nan", None),
    ],
)
def test_an_answer_is_a_decision_or_not_understood(typed: str, decision: Decision | None) -> None:
    assert parse_answer(typed) == decision
