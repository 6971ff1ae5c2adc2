"""The static page of a comparison, in the manner of an evaluation's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from extractors.evaluate.comparison import Comparison
from extractors.evaluate.page import MOST_RECORDS, escaped, interval_text, number_text, page, plot
from extractors.evaluate.results import shown
from extractors.evaluate.statistics import Difference


def comparison_page(comparison: Comparison) -> str:
    """The page of a comparison: the verdict, both sides' figures, each field's difference, and the values that only
    one side has right."""
    name_a, name_b = comparison.names
    fields = comparison.by_field
    body = [
        f"<h1>{escaped(name_b)} against {escaped(name_a)}</h1>",
        f"<p class=verdict>{escaped(comparison.verdict)}</p>",
        f"<p>{comparison.records:,} records of {escaped(comparison.a.golden)} that both were asked. Records wholly right with "
        f"{escaped(name_a)} only: {comparison.only_a:,}, with {escaped(name_b)} only: {comparison.only_b:,} "
        f"(McNemar's exact test: p = {comparison.whole_p:.3g}).</p>",
        "<h2>Side by side</h2>",
        _side_by_side(comparison),
        _taken(comparison),
        "<h2>F1 by field</h2>",
        plot(
            [(field, comparison.a.by_field[field].f1, comparison.b.by_field[field].f1) for field in fields],
            names=comparison.names,
        ),
        _difference_table(comparison),
        f"<h2>Values that differ ({len(comparison.changed):,})</h2>",
        _changes(comparison),
    ]
    return page(f"{name_b} against {name_a}", body)


def _side_by_side(comparison: Comparison) -> str:
    rows = []
    for label, told in _sides(comparison):
        rows.append(f"<tr><td>{label}</td>{''.join(f'<td class=n>{one}</td>' for one in told)}</tr>")
    names = "".join(f"<th class=n>{escaped(name)}</th>" for name in comparison.names)
    return f"<table><tr><th></th>{names}</tr>{''.join(rows)}</table>"


def _sides(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    sides = (comparison.a, comparison.b)
    yield "model", [escaped(one.model) for one in sides]
    yield "recipe", [f"<code>{escaped(one.recipe)}</code>" for one in sides]
    yield "F1", [interval_text(one.micro.f1) for one in sides]
    yield "whole records right", [interval_text(one.whole) for one in sides]
    yield "valid", [interval_text(one.valid) for one in sides]
    yield "values without evidence", [interval_text(one.ungrounded) for one in sides]
    yield "input tokens a record", [f"{one.input_tokens / len(one.records):,.0f}" for one in sides]
    yield "output tokens a record", [f"{one.output_tokens / len(one.records):,.0f}" for one in sides]
    yield "cost of 1,000 records", [escaped(one.price or "unknown") for one in sides]
    yield "seconds a record, p50", [number_text(one.seconds[0], 2) for one in sides]
    yield "seconds a record, p95", [number_text(one.seconds[1], 2) for one in sides]


def _taken(comparison: Comparison) -> str:
    name_a, name_b = comparison.names
    if not (taken := comparison.taken(name_a)):
        return ""
    return f"<p>{escaped(name_b)} takes {escaped(taken)}. In parentheses: 95 % intervals, paired bootstrap over records.</p>"


def _difference_table(comparison: Comparison) -> str:
    rows = [
        f"<tr><td>{escaped(field)}</td>{_difference_cells(one)}</tr>"
        for field, one in (("all", comparison.f1), *comparison.by_field.items())
    ]
    head = "".join(
        f"<th class=n>{escaped(name)}</th>"
        for name in (*comparison.names, "difference [95 %]", "p", "p, adjusted", "shown")
    )
    return f"<table><tr><th>field</th>{head}</tr>{''.join(rows)}</table>"


def _difference_cells(one: Difference) -> str:
    gap = one.difference
    kind = "" if not one.shown() or not gap.value else "better" if gap.value > 0 else "worse"
    told = "-" if gap.value is None else f"{gap.value:+.3f}"
    if gap.value is not None:
        few = gap.low is None or gap.high is None
        told += f" <small>{'too few records' if few else f'[{gap.low:+.3f}, {gap.high:+.3f}]'}</small>"
    cells = [
        number_text(one.a),
        number_text(one.b),
        f"<span class='{kind}'>{told}</span>",
        f"{one.p:.3g}",
        f"{one.p_adjusted:.3g}",
    ]
    return "".join(f"<td class=n>{cell}</td>" for cell in [*cells, "yes" if one.shown() else "no"])


def _changes(comparison: Comparison) -> str:
    name_a, name_b = comparison.names
    rows = "".join(
        f"<tr><td><code>{escaped(one.record_id)}</code></td><td>{escaped(one.field)}</td><td>{_values(one.expected)}</td>"
        f"<td class={'right' if one.better == 'a' else 'wrong'}>{_values(one.a)}</td>"
        f"<td class={'right' if one.better == 'b' else 'wrong'}>{_values(one.b)}</td></tr>"
        for one in comparison.changed[:MOST_RECORDS]
    )
    head = "".join(f"<th>{escaped(name)}</th>" for name in ("record", "field", "expected", name_a, name_b))
    more = len(comparison.changed) - MOST_RECORDS
    return f"<table><tr>{head}</tr>{rows}</table>" + (f"<p>{more:,} more are not shown.</p>" if more > 0 else "")


def _values(values: Sequence[Any]) -> str:
    return "<br>".join(f"<code>{escaped(shown(one) or '')}</code>" for one in values)
