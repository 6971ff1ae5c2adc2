"""Plots as inline SVG: no script, no style attribute, a title on every mark, readable without colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from extractors.reporting.distributions import Categories, Histogram
from extractors.reporting.figures import Timeline
from extractors.reporting.markup import Markup, data, tag
from extractors.reporting.words import amount, count, percent, seconds

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _FOOT = 380, 150, 8, 8, 16, 18
_EPOCH = date(1970, 1, 1)
_NAMES = {"p50": "median"}


def histogram_plot(told: Histogram, *, label: str, marks: Sequence[str] = ("p50", "p95")) -> Markup:
    """Columns, with lines at the named quantiles. What lies far outside is one column at either end."""
    ends = [told.low + place * told.step for place in range(len(told.counts) + 1)]
    columns = [(told.below, f"below {spelled(told, told.low)}")] if told.below else []
    columns += [
        (n, spelled(told, low) if told.single else f"{spelled(told, low)} to {spelled(told, high)}")
        for n, low, high in zip(told.counts, ends, ends[1:], strict=False)
    ]
    columns += [(told.above, f"above {spelled(told, ends[-1])}")] if told.above else []
    first = 1 if told.below else 0
    width = (_WIDTH - _LEFT - _RIGHT) / len(columns)
    parts = _columns([(n, 0, f"{count(n)}: {what}") for n, what in columns])

    def place_of(value: float) -> float:
        # A column that is one number stands for it in its middle.
        steps = (value - told.low) / told.step + (0.5 if told.single else 0)
        return _LEFT + width * (first + min(max(steps, 0), len(told.counts)))

    seen: list[float] = []
    for name in marks:
        at = place_of(told.quantiles[name])
        # Two labels on one spot cannot be read: the second goes below the first.
        line = sum(abs(at - other) < 70 for other in seen)
        seen.append(at)
        right = at > _WIDTH - 90
        parts += [
            tag("line", {"class": "mark", "x1": _n(at), "x2": _n(at), "y1": 4, "y2": _HEIGHT - _FOOT}),
            tag("text", {"class": "marked", "x": _n(at + (-4 if right else 4)), "y": 12 + 12 * line,
                         "text-anchor": "end" if right else "start"},
                f"{_NAMES.get(name, name)} {spelled(told, told.quantiles[name])}"),
        ]  # fmt: skip
    last = ends[-2] if told.single else ends[-1]
    middle = told.low + (last - told.low) / 2
    middle = float(round(middle)) if told.single else middle
    for value, anchor in dict([(middle, "middle"), (told.low, "start"), (last, "end")]).items():
        parts.append(_tick(place_of(value), spelled(told, value), "middle" if told.single else anchor))
    described = ", ".join(f"{_NAMES.get(name, name)} {spelled(told, told.quantiles[name])}" for name in marks)
    return _svg(parts, f"{label}: {count(told.total)} values from {spelled(told, told.minimum)} to "
                f"{spelled(told, told.maximum)}; {described}")  # fmt: skip


def spread_plot(told: Histogram, *, label: str, marks: Sequence[str] = ("p50", "p95")) -> Markup:
    """The histogram, or a sentence where all values are the same."""
    if told.minimum == told.maximum:
        return tag("p", {"class": "faint small"}, f"always {spelled(told, told.minimum)}")
    return histogram_plot(told, label=label, marks=marks)


def timeline_plot(told: Timeline, what: Callable[[int], tuple[float, float, str]], *, label: str) -> Markup:
    """Columns over time; ``what`` gives a slot's two stacked heights and its words."""
    parts = _columns([what(place) for place in range(len(told.slots))])
    first, last = told.slots[0].start, told.slots[-1].start + told.step
    days = last - first > 86_400
    for value, at, anchor in (
        (first, _LEFT, "start"),
        ((first + last) / 2, _WIDTH / 2, "middle"),
        (last, _WIDTH - _RIGHT, "end"),
    ):
        parts.append(_tick(at, clock(value, step=told.step, days=days), anchor))
    return _svg(parts, label)


def running_total_plot(told: Timeline, totals: Sequence[float], words: Callable[[float], str], *, label: str) -> Markup:
    """A rising area: what had been spent by the end of each slot."""
    most = max(totals[-1], 1e-12)
    width = (_WIDTH - _LEFT - _RIGHT) / len(totals)
    points: list[tuple[float, float]] = [(_LEFT, _HEIGHT - _FOOT)]
    points += [
        (_LEFT + width * (place + 1), _HEIGHT - _FOOT - (_HEIGHT - _FOOT - _TOP) * total / most)
        for place, total in enumerate(totals)
    ]
    line = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    days = told.step * len(totals) > 86_400
    last = told.slots[-1].start + told.step
    return _svg(
        [
            tag("polygon", {"class": "area", "points": f"{line} {_n(points[-1][0])},{_HEIGHT - _FOOT}"}),
            tag("polyline", {"class": "curve", "points": line}),
            _base(),
            tag("text", {"class": "marked", "x": _WIDTH - _RIGHT, "y": 12, "text-anchor": "end"}, words(totals[-1])),
            _tick(_LEFT, clock(told.slots[0].start, step=told.step, days=days), "start"),
            _tick(_WIDTH - _RIGHT, clock(last, step=told.step, days=days), "end"),
        ],
        label,
    )


def bars(told: Categories, *, caption: str) -> Markup:
    """A table of values with a bar each: a plot that can be read aloud and copied."""
    shown = list(told.top)
    total = sum(n for _, n in shown) + told.rest
    most = max([n for _, n in shown] + [1])
    rows = [_bar(data(value), n, most=most, total=total) for value, n in shown]
    if told.rest:
        many = f"{told.distinct - len(shown):,} others" if told.distinct > len(shown) else "others"
        rows.append(_bar(tag("i", None, many), told.rest, most=max(most, told.rest), total=total, other=True))
    return tag("table", {"class": "bars"}, tag("caption", {"class": "unseen"}, caption), tag("tbody", None, rows))


def counted_bars(pairs: Sequence[tuple[str, int]], *, caption: str) -> Markup:
    """The same for counts at hand."""
    return bars(Categories(tuple(pairs), 0, len(pairs)), caption=caption)


def stack(parts: Sequence[tuple[str, str, int]], *, label: str) -> Markup:
    """One bar of several parts: (class, words, count)."""
    total = sum(n for _, _, n in parts)
    drawn, at = [], 0.0
    for kind, words, n in parts:
        if not n:
            continue
        width = 100 * n / total
        drawn.append(
            tag("rect", {"class": kind, "x": f"{at:.3f}%", "y": 0, "width": f"{width:.3f}%", "height": "100%"},
                tag("title", None, f"{words}: {count(n)} ({percent(n, total)})"))
        )  # fmt: skip
        at += width
    return tag("svg", {"class": "stack", "role": "img", "aria-label": label}, drawn)


def clock(at: float, *, step: float = 1.0, days: bool = False) -> str:
    """A moment in UTC: the time of day, to the millisecond where a ``step`` is below a second, or the day as well."""
    moment = datetime.fromtimestamp(at, UTC)
    if days:
        return f"{moment:%d %b %H:%M}"
    return f"{moment:%H:%M:%S}" + (f".{moment.microsecond // 1000:03}" if step < 1 else "")


def spelled(told: Histogram, value: float) -> str:
    """A value in the histogram's unit."""
    if told.unit == "s":
        return seconds(value)
    if told.unit == "day":
        try:
            return (_EPOCH + timedelta(days=value)).isoformat()
        except OverflowError:
            return f"day {value:,.0f}"
    if told.unit == "hour":
        return f"{int(value):02}:{round(value % 1 * 60):02}"
    if told.unit:
        return amount(round(value, 1))
    return amount(value)


def _bar(label: Markup, n: int, *, most: int, total: int, other: bool = False) -> Markup:
    width = f"{max(0.5, 100 * n / most):.2f}%"
    kind = "bar other" if other else "bar"
    return tag(
        "tr", None,
        tag("th", {"scope": "row"}, label),
        tag("td", {"class": "drawn"}, tag("svg", {"aria-hidden": "true"}, tag("rect", {"class": kind, "width": width, "height": "100%", "rx": 2}))),
        tag("td", {"class": "number"}, count(n)),
        tag("td", {"class": "number faint"}, percent(n, total)),
    )  # fmt: skip


def _columns(told: Sequence[tuple[float, float, str]]) -> list[Markup]:
    """Stacked columns, each with its words, on a base line."""
    room = _HEIGHT - _FOOT - _TOP - 10
    most = max([one + two for one, two, _ in told] + [1e-12])
    width = (_WIDTH - _LEFT - _RIGHT) / len(told)
    gap = min(2.0, width / 5)
    parts: list[Markup] = []
    for place, (one, two, words) in enumerate(told):
        x, low, high = _LEFT + place * width, room * one / most, room * two / most
        # A column of one is still seen beside a column of thousands.
        low, high = (max(low, 1.0) if one else 0.0), (max(high, 1.0) if two else 0.0)
        base = _HEIGHT - _FOOT
        drawn = [
            tag("rect", {"class": kind, "x": _n(x), "y": _n(y), "width": _n(width - gap), "height": _n(height)})
            for kind, y, height in (("bar", base - low, low), ("bar bad", base - low - high, high))
            if height
        ]
        hover = tag("rect", {"class": "hover", "x": _n(x), "y": _TOP, "width": _n(width), "height": base - _TOP})
        parts.append(tag("g", None, tag("title", None, words), hover, drawn))
    return [*parts, _base()]


def _base() -> Markup:
    y = _HEIGHT - _FOOT + 0.5
    return tag("line", {"class": "axis", "x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": y, "y2": y})


def _tick(at: float, words: str, anchor: str) -> Markup:
    return tag("text", {"class": "tick", "x": _n(at), "y": _HEIGHT - 4, "text-anchor": anchor}, words)


def _svg(parts: Sequence[Markup], label: str) -> Markup:
    return tag(
        "svg", {"class": "plot", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": label}, parts
    )


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
