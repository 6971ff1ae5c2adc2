"""The static page of an evaluation: one file, no script, nothing loaded from anywhere.

What a record or a model wrote is escaped, and the page's own policy forbids scripts, frames and any request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extractors.evaluate.evaluation import Evaluation, Scored
from extractors.evaluate.results import shown
from extractors.evaluate.scoring import Cell, Verdict
from extractors.evaluate.statistics import Interval, Score
from extractors.reporting.markup import joined

MOST_RECORDS = 500
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
svg .band { fill: #2e7d3233; } svg .final { stroke: #ef6c00; stroke-dasharray: 6 4; } svg .curve { fill: none; stroke: #1565c0; }
svg .dot { fill: #1565c0; } svg .best { fill: #2e7d32; stroke: currentColor; stroke-width: 1.5; }
.a { color: #1565c0; } .b { color: #ef6c00; }
.verdict { font-size: 1.15em; padding: .6rem .9rem; background: var(--soft); border-radius: 6px; }
"""


def evaluation_page(evaluation: Evaluation) -> str:
    """The page of one evaluation: figures, a plot of F1 by field, a table, and every record with a wrong value, its
    source beside it."""
    wrong = [one for one in evaluation.records if one.whole is False or one.given.value is None]
    fields = evaluation.by_field
    body = [
        f"<h1>{escaped(evaluation.name)} on {escaped(evaluation.golden)}</h1>",
        f"<p>Model {escaped(evaluation.model)}, recipe <code>{escaped(evaluation.recipe)}</code>, output "
        f"<code>{escaped(evaluation.out)}</code>. {_asked(evaluation)} In brackets: 95 % intervals, bootstrap over records.</p>",
        _figures(evaluation),
        "<h2>F1 by field</h2>",
        plot([(field, one.f1, None) for field, one in fields.items()]),
        _score_table(evaluation),
        f"<h2>Records with a wrong value ({len(wrong):,} of {len(evaluation.records):,})</h2>",
        "<p>In the source, <mark class=want>what is expected</mark> where it stands as it is, and <mark class=got>the evidence"
        "</mark> of wrong values.</p>"
        if wrong
        else "<p>None.</p>",
        *(_record(one) for one in wrong[:MOST_RECORDS]),
    ]
    if len(wrong) > MOST_RECORDS:
        body.append(f"<p>The first {MOST_RECORDS} are shown; all are in values.parquet and records.parquet.</p>")
    return page(f"Evaluation of {evaluation.name}", body)


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
        parts.append(f'<text x="{left - 8}" y="{top + 12}" text-anchor="end">{escaped(label[-34:])}</text>')
        parts.extend(_bar(first, top, left, width, "bar"))
        if second is not None:
            parts.extend(_bar(second, top + 14, left, width, "other"))
    parts.append("</svg>")
    if names is not None:
        parts.append(f"<p><span class=a>■</span> {escaped(names[0])} <span class=b>■</span> {escaped(names[1])}</p>")
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
    told = [
        ("F1, all values", interval_text(evaluation.micro.f1)),
        ("precision", interval_text(evaluation.micro.precision)),
        ("recall", interval_text(evaluation.micro.recall)),
        ("F1, mean of the fields", number_text(evaluation.macro_f1)),
        ("whole records right", interval_text(evaluation.whole)),
        ("valid", interval_text(evaluation.valid)),
        ("values without evidence", interval_text(evaluation.ungrounded)),
        ("input tokens a record", f"{evaluation.input_tokens / records:,.0f}"),
        ("output tokens a record", f"{evaluation.output_tokens / records:,.0f}"),
        ("cost of 1,000 records", escaped(evaluation.price or "unknown")),
        ("seconds a record, p50", number_text(p50, 2)),
        ("seconds a record, p95", number_text(p95, 2)),
    ]
    return "<dl>" + "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in told) + "</dl>"


def _score_table(evaluation: Evaluation) -> str:
    rows = []
    for field, score in (("all", evaluation.micro), *evaluation.by_field.items()):
        rule = evaluation.rules.get(field, "")
        rows.append(f"<tr><td>{escaped(field)}</td><td><code>{escaped(rule)}</code></td>{_score_cells(score)}</tr>")
    head = "".join(
        f"<th class=n>{name}</th>"
        for name in ("right", "wrong or extra", "wrong or missing", "precision", "recall", "F1")
    )
    return f"<table><tr><th>field</th><th>compared by</th>{head}</tr>{''.join(rows)}</table>"


def _score_cells(score: Score) -> str:
    counts = (score.true_positives, score.false_positives, score.false_negatives)
    cells = [f"<td class=n>{count:,}</td>" for count in counts]
    cells += [f"<td class=n>{interval_text(one)}</td>" for one in (score.precision, score.recall, score.f1)]
    return "".join(cells)


def _record(record: Scored) -> str:
    given = record.given
    wrong = [cell for cell in record.cells if cell.verdict not in (Verdict.RIGHT, Verdict.ABSENT)]
    named = f"{escaped(given.record_id)}{f' ({given.occurrence + 1})' if given.occurrence else ''}"
    fields = ", ".join(dict.fromkeys(cell.field for cell in wrong))
    failed = (
        ""
        if given.value is not None
        else f"<p class=wrong>No row: {escaped(given.reason)}. {escaped(given.message)}</p>"
    )
    rows = "".join(
        f"<tr><td><code>{escaped(cell.path)}</code></td><td class={cell.verdict.value}>{cell.verdict.value}</td>"
        f"<td><code>{escaped(shown(cell.expected) or '')}</code></td><td><code>{escaped(shown(cell.got) or '')}</code></td>"
        f"<td>{escaped(given.evidence.get(cell.path, {}).get('match') or '')}</td></tr>"
        for cell in wrong
    )
    head = "<tr><th>value</th><th></th><th>expected</th><th>given</th><th>evidence</th></tr>"
    return (
        f"<details><summary><b>{named}</b> {escaped(fields)}</summary>{failed}<table>{head}{rows}</table>"
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
        parts.append(f"{escaped(text[done:start])}<mark class={kind}>{escaped(text[start:end])}</mark>")
        done = end
    parts.append(escaped(text[done:_MOST_TEXT]))
    if len(text) > _MOST_TEXT:
        parts.append(f"\n… {len(text) - _MOST_TEXT:,} more characters")
    return "".join(parts)


def _asked(evaluation: Evaluation) -> str:
    told = f"{len(evaluation.records):,} labelled records."
    if evaluation.unlabelled:
        told += (
            f" <b>{evaluation.unlabelled:,} have no label that is scored</b> and are left out of those wholly right."
        )
    if evaluation.unasked:
        some = ", ".join(evaluation.unasked[:5])
        told += (
            f" <b>{len(evaluation.unasked):,} were not asked and are not scored</b> ({escaped(some)} …): run it again."
        )
    if evaluation.caution is not None:
        told += f" <b>{escaped(evaluation.caution)}.</b>"
    return told


def interval_text(interval: Interval) -> str:
    if interval.value is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f} <small>too few records</small>"
    return f"{interval.value:.3f} <small>[{interval.low:.3f}, {interval.high:.3f}]</small>"


def number_text(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def escaped(value: object) -> str:
    """Escaped text, control characters as their visible signs."""
    return joined([str(value)])


def page(title: str, body: Sequence[str]) -> str:
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<meta name=viewport content='width=device-width'><title>{escaped(title[:_NAMED])}</title>"
        f"<style>{_STYLE}</style>\n" + "\n".join(body) + "\n</html>\n"
    )
