"""What is found of long texts in the chunks that are shown, against sending everything. No model is asked.

``python -m benchmarks.long_text [--share 0.4] [--misses]``

A gold value counts when it stands in the whole text (as written, or after folding case, spaces, digits' and dates'
spelling: ``extractors.grounding``, without its fuzzy matches); it is found when it stands in what is shown. ``first`` is
the first question; ``looks`` adds the chunks of the further looks that a model would get that gave null for each field
whose value was not shown or is not there at all. Tokens are those of the shown text with the lines over the chunks, as a
share of the whole texts' tokens.

The sets (dev halves, ``QUARRY_DATA``): ``kleister_nda``; ``extract_bench`` without what stands in lists; ``cuad_in_nda``,
made here: the clauses of each contract of ``cuad_clauses`` put between the lines of another contract at random places
(seed 7), since the set's own texts are a few clauses; ``muc4``, whose texts of some 450 tokens are shown whole by any
setting but a ``context_tokens`` below that, is told for completeness.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.sets import DATA
from extractors.grounding import Haystack, ground
from extractors.longtext.budget import SHARE
from extractors.longtext.focus import Focus
from extractors.longtext.retrieval import field_queries
from extractors.tokens import estimate_tokens
from schemas.evidence import Match

_PRINTED = (Match.EXACT, Match.NORMALISED, Match.VALUE)
_LONGEST = 200
"""Characters of a gold value; a longer one is somebody's summary."""
_LONG_ENOUGH = 8_000
"""Characters of the contracts into which clauses are put."""


@dataclass(frozen=True, slots=True)
class Case:
    """A text, its schema, and for each field with a gold value the values of which one must be found."""

    name: str
    text: str
    schema: Mapping[str, Any]
    gold: Sequence[tuple[str, Sequence[Any]]]


@dataclass(slots=True)
class Tally:
    """Gold values that stand in the texts, how many were shown first and after looks, and tokens."""

    gold: int = 0
    first: int = 0
    later: int = 0
    tokens: int = 0
    first_tokens: int = 0
    later_tokens: int = 0

    def line(self, name: str, cases: int, seconds: float) -> str:
        """One line for people."""
        gold, tokens = max(1, self.gold), max(1, self.tokens)
        return (
            f"{name:14} {cases:4} texts {self.gold:4} values | first: recall {self.first / gold:7.2%} "
            f"at {self.first_tokens / tokens:6.1%} of the tokens | with looks: {self.later / gold:7.2%} "
            f"at {self.later_tokens / tokens:6.1%} | {1000 * seconds / max(1, cases):.0f} ms a text"
        )


def main() -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--share", type=float, default=SHARE, help="share of a text's tokens that is shown at most")
    parser.add_argument("--misses", action="store_true", help="print each value that the first question does not show")
    told = parser.parse_args()
    for name, cases in sets():
        tally, started = Tally(), time.perf_counter()
        for case in cases:
            measure(case, tally, share=told.share, misses=told.misses)
        print(tally.line(name, len(cases), time.perf_counter() - started))


def measure(case: Case, tally: Tally, *, share: float, misses: bool) -> None:
    """Add one text to the tally."""
    whole = Haystack(case.text)
    gold = [(path, values) for path, values in case.gold if _stands(values, whole)]
    tokens = _tokens(case.text)
    focus = Focus(case.schema, case.text, budget=int(tokens * share))
    shown = focus.first()
    hay = Haystack(_plain(case.text, focus))
    found = [_stands(values, hay) for _, values in gold]
    tally.gold += len(gold)
    tally.tokens += tokens
    tally.first += sum(found)
    used = _tokens(shown.text)
    tally.first_tokens += used
    if misses:
        for (path, values), there in zip(gold, found, strict=True):
            if not there:
                print(f"  {case.name}: {path} = {values[0]!r}")
    while True:
        seen = {_field(path) for (path, _), there in zip(gold, found, strict=True) if there}
        missing = [query.path for query in field_queries(case.schema) if query.path not in seen]
        more = focus.another(missing) if missing else None
        if more is None:
            break
        used += _tokens(more.text)
        hay = Haystack(_plain(case.text, focus))
        found = [_stands(values, hay) for _, values in gold]
    tally.later += sum(found)
    tally.later_tokens += used


def _tokens(text: str) -> int:
    """The estimate, made of the whole text: by itself it looks at the first 20,000 characters."""
    return sum(estimate_tokens(text[at : at + 20_000]) for at in range(0, len(text), 20_000))


def _field(path: str) -> str:
    """The field of a gold value: a list of texts is one."""
    return path.rpartition("/")[0] if path.rpartition("/")[2].isdigit() else path


def _plain(text: str, focus: Focus) -> str:
    return "\n\n".join(text[start:end] for start, end in focus.shown())


def _stands(values: Sequence[Any], hay: Haystack) -> bool:
    return any(found.match in _PRINTED for value in values for found in ground({"value": value}, hay))


def sets() -> Iterator[tuple[str, list[Case]]]:
    """The sets with their cases."""
    ndas = _records("kleister_nda")
    schema = _schema("kleister_nda/schema.json")
    yield "kleister_nda", [Case(one["id"], one["text"], schema, _gold(one["expected"])) for one in ndas]
    yield "cuad_in_nda", _clauses_in([one["text"] for one in ndas if len(one["text"]) > _LONG_ENOUGH])
    yield (
        "extract_bench",
        [
            Case(
                one["id"],
                one["text"],
                _schema(f"extract_bench/{one['schema']}"),
                [
                    (path, values)
                    for path, values in _gold(one["expected"])
                    if not any(map(str.isdigit, path.split("/")))
                ],
            )
            for one in _records("extract_bench")
        ],
    )
    schema = _schema("muc4/schema.json")
    yield "muc4", [Case(one["id"], one["text"], schema, list(_mentions(one))) for one in _records("muc4")]


def _clauses_in(bases: Sequence[str]) -> list[Case]:
    schema, chance = _schema("cuad_clauses/schema.json"), random.Random(7)
    cases = []
    for one in _records("cuad_clauses"):
        lines = chance.choice(bases).split("\n")
        for clause in one["text"].split("\n"):
            lines.insert(chance.randrange(len(lines) + 1), clause)
        cases.append(Case(one["id"], "\n".join(lines), schema, _gold(one["expected"])))
    return cases


def _mentions(record: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    for role, values in record["expected"].items():
        also = record.get("accept", {}).get(role) or [[] for _ in values]
        for place, value in enumerate(values):
            yield f"{role}/{place}", [value, *also[place]]


def _gold(expected: Mapping[str, Any]) -> list[tuple[str, Sequence[Any]]]:
    return [(path, [value]) for path, value in _leaves(expected, "")]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _leaves(each, f"{path}/{name}" if path else name)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _leaves(each, f"{path}/{place}")
    elif value is not None and not isinstance(value, bool) and len(str(value)) <= _LONGEST:
        yield path, value


def _records(name: str) -> list[dict[str, Any]]:
    lines = (DATA / name / "records.dev.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _schema(place: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((DATA / place).read_text(encoding="utf-8"))
    return schema


if __name__ == "__main__":
    main()
