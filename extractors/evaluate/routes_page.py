"""The static page of routes: what each threshold brings and takes, as a plot and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from extractors.evaluate.page import escaped, interval_text, number_text, page
from extractors.evaluate.routes import Route, Routes

_LEFT, _WIDTH, _TOP, _HEIGHT, _FOOT = 52, 640, 14, 260, 40


def routes_page(told: Routes) -> str:
    """The page: the verdict, F1 against what it takes, and a table of the ways."""
    names = f"{told.draft} before {told.final}"
    spent = f"share of the {told.unit} of {told.final} alone" if told.unit else "share of the records routed"
    body = [
        f"<h1>{escaped(names)}</h1>",
        f"<p class=verdict>{escaped(told.verdict)}</p>",
        f"<p>{told.records:,} labelled records that both were asked, each alone; their answers are put together as a routed run "
        "does it. The thresholds are chosen and measured on the same records, so the best looks a little better than it "
        "is.</p>",
        "<h2>F1 and what it takes</h2>",
        "".join(_plot(told)),
        f"<p>Across: {escaped(spent)}. The dashed lines are {escaped(told.final)} alone, the band what may be lost "
        f"({told.max_loss:g}); a way pays within or above the band and left of 100 %. Numbers are thresholds "
        "(<code>--route-below</code>).</p>",
        _table(told),
    ]
    return page(names, body)


def _plot(told: Routes) -> Iterator[str]:
    ways = [(name, one, _spent(one)) for name, one in told.distinct if one.f1.value is not None]
    final = told.final_f1.value
    if final is None or not ways:
        yield "<p>There is no value to score.</p>"
        return
    heights = [one.f1.value or 0.0 for _, one, _ in ways] + [final, final - told.max_loss]
    low = max(0.0, math.floor(min(heights) * 20 - 0.5) / 20)
    high = min(1.0, math.ceil(max(heights) * 20 + 0.5) / 20)
    right = max(1.0, *(spent for _, _, spent in ways)) * 1.08

    def x(spent: float) -> float:
        return round(_LEFT + _WIDTH * spent / right, 1)

    def y(f1: float) -> float:
        return round(_TOP + _HEIGHT * (high - f1) / (high - low), 1)

    base = _TOP + _HEIGHT
    yield f'<svg viewBox="0 0 {_LEFT + _WIDTH + 20} {base + _FOOT}" role="img" aria-label="F1 against what it takes">'
    yield f'<rect class="band" x="{_LEFT}" width="{_WIDTH}" y="{y(final)}" height="{y(final - told.max_loss) - y(final):.1f}"/>'
    for tick in range(round(low * 20), round(high * 20) + 1):
        yield f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(tick / 20)}" y2="{y(tick / 20)}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y(tick / 20) + 4}" text-anchor="end">{tick / 20:.2f}</text>'
    for tick in range(0, math.floor(right * 5) + 1):
        yield f'<line class="axis" x1="{x(tick / 5)}" x2="{x(tick / 5)}" y1="{_TOP}" y2="{base}"/>'
        yield f'<text x="{x(tick / 5)}" y="{base + 16}" text-anchor="middle">{tick / 5:.0%}</text>'
    yield f'<line class="final" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(final)}" y2="{y(final)}"/>'
    yield f'<line class="final" x1="{x(1)}" x2="{x(1)}" y1="{_TOP}" y2="{base}"/>'
    places = [(x(spent), y(one.f1.value or 0.0)) for _, one, spent in ways]
    yield f'<polyline class="curve" points="{" ".join(f"{across},{down}" for across, down in places)}"/>'
    # Two labels on one spot cannot be read: every other one goes below its point.
    for number, ((name, one, _), (across, down)) in enumerate(zip(ways, places, strict=True)):
        kind = "dot best" if one == told.best else "dot"
        yield f'<circle class="{kind}" cx="{across}" cy="{down}" r="5"><title>{escaped(_words(name, one))}</title></circle>'
        yield (
            f'<text x="{across}" y="{down + (20 if number % 2 else -10)}" text-anchor="middle">'
            f"{escaped(name.replace(' to ', '–'))}</text>"
        )
    yield "</svg>"


def _spent(one: Route) -> float:
    return one.routed if one.cost is None else one.cost


def _words(name: str, one: Route) -> str:
    told = f"{name}: F1 {number_text(one.f1.value)}, {one.difference.signed} against the final alone"
    return f"{told}; {one.routed:.0%} of the records routed"


def _table(told: Routes) -> str:
    heads = ("route below", "records routed", "F1", "against the final alone", "takes")
    rows = [_row(name, one, best=one == told.best) for name, one in told.distinct]
    rows.append(_cells(("final alone", "100%", interval_text(told.final_f1), "", "100%")))
    return f"<table><tr>{''.join(f'<th class=n>{one}</th>' for one in heads)}</tr>{''.join(rows)}</table>"


def _row(name: str, one: Route, *, best: bool) -> str:
    cost = "-" if one.cost is None else f"{one.cost:.0%}"
    name = f"<b>{escaped(name)}, the best</b>" if best else escaped(name)
    return _cells((name, f"{one.routed:.0%}", interval_text(one.f1), one.difference.signed, cost))


def _cells(told: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td class=n>{one}</td>' for one in told)}</tr>"
