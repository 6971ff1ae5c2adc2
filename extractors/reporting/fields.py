"""For every field of the schema: how often it is filled, what its values are, and whether they stand in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from extractors.reporting.desk import Desk
from extractors.reporting.distributions import Categories, Histogram, categories, histogram
from extractors.reporting.shapes import Shape
from extractors.sources.text_template import sql_text
from schemas.pointers import escape

MOST_FIELDS = 150
MATCHES = ("exact", "normalised", "value", "fuzzy", "image", "tool", "ungrounded")
"""Evidence from the surest kind to none."""
_PATTERNS = 2_000


@dataclass(frozen=True, slots=True)
class FieldProfile:
    """``total`` places where the field could have a value, ``filled`` of them with one that is not null or empty.

    ``evidence`` counts the values by how they were found. ``column`` is the top-level field it belongs to;
    ``depth`` 0 is that field itself.
    """

    label: str
    kind: str
    description: str
    column: int
    depth: int
    choice: bool
    total: int
    filled: int
    histogram: Histogram | None = None
    categories: Categories | None = None
    evidence: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Leaf:
    label: str
    pattern: str
    relation: str
    value: str
    shape: Shape
    column: int
    depth: int


def profiles(desk: Desk) -> list[FieldProfile]:
    """Every field, nested ones after the one that holds them; at most ``MOST_FIELDS``."""
    found: list[FieldProfile] = []
    evidence = _evidence(desk)
    for number, one in enumerate(desk.fields):
        top = _Leaf(one.name, re.escape(escape(one.key)), "desk.rows", one.column, one.shape, number, 0)
        for leaf in _leaves(top):
            if len(found) >= MOST_FIELDS:
                return found
            found.append(_profile(desk, leaf, evidence))
    return found


def _leaves(leaf: _Leaf) -> Iterator[_Leaf]:
    yield leaf
    shape, value = leaf.shape, leaf.value
    deeper = replace(leaf, depth=leaf.depth + 1, value="x")
    if shape.kind == "list":
        relation = f"(select unnest({value}) as x from {leaf.relation})"
        items = replace(
            deeper,
            label=f"{leaf.label}[]",
            pattern=f"{leaf.pattern}/[0-9]+",
            relation=relation,
            shape=shape.item,
        )
        yield from _leaves(items)
    elif shape.kind == "map":
        relation = f"(select unnest(map_values({value})) as x from {leaf.relation})"
        yield from _leaves(
            replace(
                deeper, label=f"{leaf.label}{{}}", pattern=f"{leaf.pattern}/[^/]+", relation=relation, shape=shape.item
            )
        )
    elif shape.kind in ("object", "union"):
        for key, name, inner in shape.members:
            part = f"struct_extract({value}, {sql_text(name)})"
            present = f"{part} is not null" if shape.kind == "union" else f"{value} is not null"
            yield from _leaves(
                replace(
                    deeper,
                    label=f"{leaf.label}.{name}",
                    pattern=leaf.pattern if shape.kind == "union" else f"{leaf.pattern}/{re.escape(escape(key))}",
                    relation=f"(select {part} as x from {leaf.relation} where {present})",
                    shape=inner,
                )
            )


def _profile(desk: Desk, leaf: _Leaf, evidence: Sequence[tuple[str, str, int]]) -> FieldProfile:
    shape, relation, value = leaf.shape, leaf.relation, leaf.value
    empty = {
        "list": f"len({value}) = 0",
        "map": f"cardinality({value}) = 0",
        "text": f"trim({value}) = ''",
        "bytes": f"octet_length({value}) = 0",
    }.get(shape.kind, "false")
    counts = desk.one(
        f"select count(*) as total, count(*) filter (({value}) is not null and not coalesce({empty}, false)) as filled "
        f"from {relation}"
    )
    spread: Histogram | None = None
    frequent: Categories | None = None
    if shape.kind == "list":
        spread = histogram(desk, relation, f"len({value})", unit="items", whole=True)
    elif shape.kind == "map":
        frequent = categories(desk, f"(select unnest(map_keys({value})) as x from {relation})", "x")
    elif shape.kind == "union":
        frequent = categories(desk, relation, f"struct_extract({value}, 'kind')")
    elif shape.kind in ("text", "json", "bool") or shape.choice:
        frequent = categories(desk, relation, value)
        if shape.kind == "text" and frequent is not None and frequent.all_differ:
            spread = histogram(desk, relation, f"length({value})", unit="characters", whole=True)
    elif shape.kind == "bytes":
        spread = histogram(desk, relation, f"octet_length({value})")
    elif shape.kind in ("date", "instant"):
        spread = histogram(desk, relation, f"epoch({value}) / 86400", unit="day")
    elif shape.kind == "time":
        spread = histogram(desk, relation, f"epoch({value}) / 3600", unit="hour")
    elif shape.kind == "duration":
        spread = histogram(desk, relation, f"{value} / 1000000", unit="s")
    elif shape.kind == "number":
        spread = histogram(desk, relation, value, whole=_whole(desk, relation, value))
    found: dict[str, int] = {}
    if shape.kind not in ("list", "map", "object", "union"):
        for path, match, count in evidence:
            if re.fullmatch(leaf.pattern, path):
                found[match] = found.get(match, 0) + count
    return FieldProfile(
        label=leaf.label,
        kind="choice" if shape.choice and shape.kind != "bool" else shape.kind,
        description=shape.description,
        column=leaf.column,
        depth=leaf.depth,
        choice=shape.choice,
        total=counts["total"],
        filled=counts["filled"],
        histogram=spread,
        categories=frequent,
        evidence={match: found[match] for match in MATCHES if match in found},
    )


def _whole(desk: Desk, relation: str, value: str) -> bool:
    """Whether all values are whole numbers."""
    told = desk.one(
        f"select bool_and(x = trunc(x)) as whole from (select try_cast({value} as double) as x from {relation})"
    )
    return bool(told["whole"])


def _evidence(desk: Desk) -> list[tuple[str, str, int]]:
    """(path, how found, how often); every place in a list is place 0."""
    rows = desk.ask(
        r"select regexp_replace(e.path, '/[0-9]+\b', '/0', 'g') as path, e.match as match, count(*) as n "
        f"from (select unnest(evidence) as e from desk.rows) group by all order by n desc limit {_PATTERNS}"
    )
    return [(row["path"], row["match"], row["n"]) for row in rows]
