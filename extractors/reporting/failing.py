"""The open failures by reason: how many, examples, and which fields fail most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extractors.reporting.desk import Desk

_EXAMPLES = 3
_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Example:
    """A failed record and the start of its message."""

    record_id: str
    occurrence: int
    message: str


@dataclass(frozen=True, slots=True)
class Group:
    """The failures of one reason; ``problems`` are the (field, error, count) that come up most."""

    reason: str
    count: int
    examples: Sequence[Example]
    problems: Sequence[tuple[str, str, int]]


def groups(desk: Desk) -> list[Group]:
    """One for each reason, the most frequent first."""
    found = []
    reasons = desk.ask("select reason, count(*) as n from desk.failures group by reason order by n desc, reason")
    examples = desk.ask(
        f"select reason, record_id, occurrence, message[:{_MESSAGE}] as message from desk.failures "
        f"qualify row_number() over (partition by reason order by record_id, occurrence) <= {_EXAMPLES} "
        "order by record_id, occurrence"
    )
    problems = desk.ask(
        "select * from (select reason, path, error, count(*) as n from (select reason, regexp_replace(p.path, '/[0-9]+\\b', '/*', 'g') "
        "as path, p.error as error from (select reason, unnest(problems) as p from desk.failures)) group by all) "
        "qualify row_number() over (partition by reason order by n desc, path, error) <= 5 order by n desc, path, error"
    )
    for row in reasons:
        found.append(
            Group(
                reason=row["reason"],
                count=row["n"],
                examples=[
                    Example(one["record_id"], one["occurrence"], one["message"])
                    for one in examples
                    if one["reason"] == row["reason"]
                ],
                problems=[(one["path"], one["error"], one["n"]) for one in problems if one["reason"] == row["reason"]],
            )
        )
    return found
