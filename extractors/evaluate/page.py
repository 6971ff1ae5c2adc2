"""The static page of an evaluation, and of a comparison: one file, no script, nothing loaded from anywhere.

What a record or a model wrote is escaped, and the page's own policy forbids scripts, frames and any request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extractors.evaluate.comparison import Comparison
from extractors.evaluate.evaluation import Evaluation, Scored
from extractors.evaluate.results import shown
from extractors.evaluate.scoring import Cell, Verdict
from extractors.evaluate.statistics import Difference, Interval, Score
from extractors.reporting.markup import joined

_MOST_RECORDS = 500
_MOST_TEXT = 20_000
_NAMED = 200
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2e7d32; --bad: #c62828; --soft: #8881; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 1.4rem; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .4rem 1.4rem; }
dt { opacity: .7; font-size: .85em; } dd { margin: 0; font-size: 1.15em; }
dd small { font-size: .7em; opacity: .75; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .6rem; }
/* Writing that goes from right to left, or says that it does, stays within its own element. */
code, pre, b { unicode-bidi: isolate; } code { overflow-wrap: anywhere; } mark.want { background: #2e7d3255; color: inherit; } mark.got { background: #c6282844; color: inherit; }
.wrong, .missing, .extra, .worse { color: var(--bad); } .right, .better { color: var(--good); }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; } svg .axis { stroke: var(--line); }
svg .bar { fill: #1565c0; } svg .other { fill: #ef6c00; } svg .range { stroke: currentColor; stroke-width: 1.5; }
.a { color: #1565c0; } .b { color: #ef6c00; }
.verdict { font-size: 1.15em; padding: .6rem .9rem; background: var(--soft); border-radius: 6px; }
"""


def evaluation_page(evaluation: Evaluation) -> str:
    """The page of one evaluation: figures, a plot of F1 by field, a table, and every record with a wrong value, its
    source beside it."""
    wrong = [one for one in evaluation.records if not one.whole]
    fields = evaluation.by_field
    body = [
        f"<h1>{_text(evaluation.name)} on {_text(evaluation.golden)}</h1>",
        f"<p>Model {_text(evaluation.model)}, recipe <code>{_text(evaluation.recipe)}</code>, output "
        f"<code>{_text(evaluation.out)}</code>. {_asked(evaluation)} In brackets: 95 % intervals, bootstrap over records.</p>",
        _figures(evaluation),
        "<h2>F1 by field</h2>",
        plot([(field, one.f1, None) for field, one in fields.items()]),
        _score_table(evaluation),
        f"<h2>Records with a wrong value ({len(wrong):,} of {len(evaluation.records):,})</h2>",
        "<p>In the source, <mark class=want>what is expected</mark> where it stands as it is, and <mark class=got>the evidence"
        "</mark> of wrong values.</p>"
        if wrong
        else "<p>None.</p>",
        *(_record(one) for one in wrong[:_MOST_RECORDS]),
    ]
    if len(wrong) > _MOST_RECORDS:
        body.append(f"<p>The first {_MOST_RECORDS} are shown; all are in values.parquet and records.parquet.</p>")
    return _page(f"Evaluation of {evaluation.name}", body)


def comparison_page(comparison: Comparison) -> str:
    """The page of a comparison: the verdict, both sides' figures, each field's difference, and the values that only
    one side has right."""
    name_a, name_b = comparison.names
    fields = comparison.by_field
    body = [
        f"<h1>{_text(name_b)} against {_text(name_a)}</h1>",
        f"<p class=verdict>{_text(comparison.verdict)}</p>",
        f"<p>{comparison.records:,} records of {_text(comparison.a.golden)} that both were asked. Records wholly right with "
        f"{_text(name_a)} only: {comparison.only_a:,}, with {_text(name_b)} only: {comparison.only_b:,} "
        f"(McNemar's exact test: p = {comparison.whole_p:.3g}).</p>",
        "<h2>Side by side</h2>",
        _side_by_side(comparison),
        "<h2>F1 by field</h2>",
        plot(
            [(field, comparison.a.by_field[field].f1, comparison.b.by_field[field].f1) for field in fields],
            names=comparison.names,
        ),
        _difference_table(comparison),
        f"<h2>Values that differ ({len(comparison.changed):,})</h2>",
        _changes(comparison),
    ]
    return _page(f"{name_b} against {name_a}", body)


def plot(lines: Sequence[tuple[str, Interval, Interval | None]], *, names: tuple[str, str] | None = None) -> str:
    """Bars from 0 to 1 with their intervals, one or two a line, as SVG."""
    left, width, step = 220, 560, 34 if any(other is not None for _, _, other in lines) else 22
    height = step * len(lines) + 24
    parts = [f'<svg viewBox="0 0 {left + width + 60} {height}" role="img" aria-label="F1 by field">']
    for tick in range(0, 11, 2):
        x = left + width * tick / 10
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="0" y2="{height - 18}"/>')
        parts.append(f'<text x="{x}" y="{height - 4}" text-anchor="middle">{tick / 10:.1f}</text>')
    for number, (label, first, second) in enumerate(lines):
        top = step * number + 3
        parts.append(f'<text x="{left - 8}" y="{top + 12}" text-anchor="end">{_text(label[-34:])}</text>')
        parts.extend(_bar(first, top, left, width, "bar"))
        if second is not None:
            parts.extend(_bar(second, top + 14, left, width, "other"))
    parts.append("</svg>")
    if names is not None:
        parts.append(f"<p><span class=a>■</span> {_text(names[0])} <span class=b>■</span> {_text(names[1])}</p>")
    return "".join(parts)


def _bar(interval: Interval, top: float, left: int, width: int, kind: str) -> Iterator[str]:
    if interval.value is None:
        yield f'<text x="{left + 4}" y="{top + 11}">nothing expected, nothing given</text>'
        return
    yield f'<rect class="{kind}" x="{left}" y="{top + 2}" width="{width * interval.value:.1f}" height="10"/>'
    if interval.low is not None and interval.high is not None:
        low, high = (left + width * bound for bound in (interval.low, interval.high))
        yield f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{top + 7}" y2="{top + 7}"/>'
    yield f'<text x="{left + width + 8}" y="{top + 11}">{interval.value:.3f}</text>'


def _figures(evaluation: Evaluation) -> str:
    p50, p95 = evaluation.seconds
    records = max(1, len(evaluation.records))
    cost = evaluation.cost
    currency = evaluation.report.currency if evaluation.report else ""
    told = [
        ("F1, all values", _interval(evaluation.micro.f1)),
        ("precision", _interval(evaluation.micro.precision)),
        ("recall", _interval(evaluation.micro.recall)),
        ("F1, mean of the fields", _number(evaluation.macro_f1)),
        ("whole records right", _interval(evaluation.whole)),
        ("valid", _interval(evaluation.valid)),
        ("values without evidence", _interval(evaluation.ungrounded)),
        ("input tokens a record", f"{evaluation.input_tokens / records:,.0f}"),
        ("output tokens a record", f"{evaluation.output_tokens / records:,.0f}"),
        ("cost of 1,000 records", "unknown" if cost is None else _text(f"{cost / records * 1000:.4f} {currency}")),
        ("seconds a record, p50", _number(p50, 2)),
        ("seconds a record, p95", _number(p95, 2)),
    ]
    return "<dl>" + "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in told) + "</dl>"


def _score_table(evaluation: Evaluation) -> str:
    rows = []
    for field, score in (("all", evaluation.micro), *evaluation.by_field.items()):
        rule = evaluation.rules.get(field, "")
        rows.append(f"<tr><td>{_text(field)}</td><td><code>{_text(rule)}</code></td>{_score_cells(score)}</tr>")
    head = "".join(
        f"<th class=n>{name}</th>"
        for name in ("right", "wrong or extra", "wrong or missing", "precision", "recall", "F1")
    )
    return f"<table><tr><th>field</th><th>compared by</th>{head}</tr>{''.join(rows)}</table>"


def _score_cells(score: Score) -> str:
    counts = (score.true_positives, score.false_positives, score.false_negatives)
    cells = [f"<td class=n>{count:,}</td>" for count in counts]
    cells += [f"<td class=n>{_interval(one)}</td>" for one in (score.precision, score.recall, score.f1)]
    return "".join(cells)


def _record(record: Scored) -> str:
    given = record.given
    wrong = [cell for cell in record.cells if cell.verdict not in (Verdict.RIGHT, Verdict.ABSENT)]
    named = f"{_text(given.record_id)}{f' ({given.occurrence + 1})' if given.occurrence else ''}"
    fields = ", ".join(dict.fromkeys(cell.field for cell in wrong))
    failed = (
        "" if given.value is not None else f"<p class=wrong>No row: {_text(given.reason)}. {_text(given.message)}</p>"
    )
    rows = "".join(
        f"<tr><td><code>{_text(cell.path)}</code></td><td class={cell.verdict.value}>{cell.verdict.value}</td>"
        f"<td><code>{_text(shown(cell.expected) or '')}</code></td><td><code>{_text(shown(cell.got) or '')}</code></td>"
        f"<td>{_text(given.evidence.get(cell.path, {}).get('match') or '')}</td></tr>"
        for cell in wrong
    )
    head = "<tr><th>value</th><th></th><th>expected</th><th>given</th><th>evidence</th></tr>"
    return (
        f"<details><summary><b>{named}</b> {_text(fields)}</summary>{failed}<table>{head}{rows}</table>"
        f"<pre>{_source(record.text, wrong, given.evidence)}</pre></details>"
    )


def _source(text: str, wrong: Sequence[Cell], evidence: Mapping[str, Mapping[str, Any]]) -> str:
    """The record's text, cut where it is long, with marks."""
    spans: list[tuple[int, int, str]] = []
    for cell in wrong:
        found = evidence.get(cell.path, {})
        if found.get("start") is not None:
            spans.append((found["start"], found["end"], "got"))
        if isinstance(cell.expected, str) and cell.expected and (at := text.find(cell.expected)) >= 0:
            spans.append((at, at + len(cell.expected), "want"))
    done, parts = 0, []
    for start, end, kind in sorted(spans):
        if start < done or end > _MOST_TEXT:
            continue
        parts.append(f"{_text(text[done:start])}<mark class={kind}>{_text(text[start:end])}</mark>")
        done = end
    parts.append(_text(text[done:_MOST_TEXT]))
    if len(text) > _MOST_TEXT:
        parts.append(f"\n… {len(text) - _MOST_TEXT:,} more characters")
    return "".join(parts)


def _side_by_side(comparison: Comparison) -> str:
    rows = []
    for label, told in _sides(comparison):
        rows.append(f"<tr><td>{label}</td>{''.join(f'<td class=n>{one}</td>' for one in told)}</tr>")
    names = "".join(f"<th class=n>{_text(name)}</th>" for name in comparison.names)
    return f"<table><tr><th></th>{names}</tr>{''.join(rows)}</table>"


def _sides(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    sides = (comparison.a, comparison.b)
    yield "model", [_text(one.model) for one in sides]
    yield "recipe", [f"<code>{_text(one.recipe)}</code>" for one in sides]
    yield "F1", [_interval(one.micro.f1) for one in sides]
    yield "whole records right", [_interval(one.whole) for one in sides]
    yield "valid", [_interval(one.valid) for one in sides]
    yield "values without evidence", [_interval(one.ungrounded) for one in sides]
    yield "input tokens a record", [f"{one.input_tokens / len(one.records):,.0f}" for one in sides]
    yield "output tokens a record", [f"{one.output_tokens / len(one.records):,.0f}" for one in sides]
    yield (
        "cost of 1,000 records",
        ["unknown" if one.cost is None else f"{one.cost / len(one.records) * 1000:.4f}" for one in sides],
    )
    yield "seconds a record, p50", [_number(one.seconds[0], 2) for one in sides]
    yield "seconds a record, p95", [_number(one.seconds[1], 2) for one in sides]


def _difference_table(comparison: Comparison) -> str:
    rows = [
        f"<tr><td>{_text(field)}</td>{_difference_cells(one)}</tr>"
        for field, one in (("all", comparison.f1), *comparison.by_field.items())
    ]
    head = "".join(
        f"<th class=n>{_text(name)}</th>"
        for name in (*comparison.names, "difference [95 %]", "p", "p, adjusted", "shown")
    )
    return f"<table><tr><th>field</th>{head}</tr>{''.join(rows)}</table>"


def _difference_cells(one: Difference) -> str:
    gap = one.difference
    kind = "" if not one.shown() or not gap.value else "better" if gap.value > 0 else "worse"
    told = "-" if gap.value is None else f"{gap.value:+.3f}"
    if gap.value is not None and gap.low is not None and gap.high is not None:
        told += f" <small>[{gap.low:+.3f}, {gap.high:+.3f}]</small>"
    cells = [
        _number(one.a),
        _number(one.b),
        f"<span class='{kind}'>{told}</span>",
        f"{one.p:.3g}",
        f"{one.p_adjusted:.3g}",
    ]
    return "".join(f"<td class=n>{cell}</td>" for cell in [*cells, "yes" if one.shown() else "no"])


def _changes(comparison: Comparison) -> str:
    name_a, name_b = comparison.names
    rows = "".join(
        f"<tr><td><code>{_text(one.record_id)}</code></td><td>{_text(one.field)}</td><td>{_values(one.expected)}</td>"
        f"<td class={'right' if one.better == 'a' else 'wrong'}>{_values(one.a)}</td>"
        f"<td class={'right' if one.better == 'b' else 'wrong'}>{_values(one.b)}</td></tr>"
        for one in comparison.changed[:_MOST_RECORDS]
    )
    head = "".join(f"<th>{_text(name)}</th>" for name in ("record", "field", "expected", name_a, name_b))
    more = len(comparison.changed) - _MOST_RECORDS
    return f"<table><tr>{head}</tr>{rows}</table>" + (f"<p>{more:,} more are not shown.</p>" if more > 0 else "")


def _values(values: Sequence[Any]) -> str:
    return "<br>".join(f"<code>{_text(shown(one) or '')}</code>" for one in values)


def _asked(evaluation: Evaluation) -> str:
    told = f"{len(evaluation.records):,} labelled records."
    if evaluation.unasked:
        some = ", ".join(evaluation.unasked[:5])
        told += (
            f" <b>{len(evaluation.unasked):,} were not asked and are not scored</b> ({_text(some)} …): run it again."
        )
    return told


def _interval(interval: Interval) -> str:
    if interval.value is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} <small>[{interval.low:.3f}, {interval.high:.3f}]</small>"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _text(value: object) -> str:
    """Escaped text, control characters as their visible signs."""
    return joined([str(value)])


def _page(title: str, body: Sequence[str]) -> str:
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<meta name=viewport content='width=device-width'><title>{_text(title[:_NAMED])}</title>"
        f"<style>{_STYLE}</style>\n" + "\n".join(body) + "\n</html>\n"
    )
