"""Latency, tokens, money and corrections, as plots."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from extractors.reporting import plots
from extractors.reporting.figures import Timeline
from extractors.reporting.markup import Markup, data, tag
from extractors.reporting.sections.parts import number_cell, panel, section
from extractors.reporting.sections.story import Story
from extractors.reporting.words import count, money, seconds
from extractors.routing_report import joined, sentences


def costs(story: Story) -> Markup:
    """Latency, tokens, money and corrections, as plots."""
    figures = story.figures
    panels: list[Markup] = []
    if figures.latency:
        panels.append(
            panel(
                "Latency of a call", "of those that were answered", plots.spread_plot(figures.latency, label="Latency")
            )
        )
    if figures.input_spread:
        panels.append(
            panel("Input tokens of a call", "", plots.spread_plot(figures.input_spread, label="Input tokens"))
        )
    if figures.output_spread:
        panels.append(
            panel("Output tokens of a call", "", plots.spread_plot(figures.output_spread, label="Output tokens"))
        )
    if figures.timeline:
        panels += _over_time(figures.timeline, figures.currency)
    if figures.attempts:
        pairs = [
            (f"{n} {'answer' if n == 1 else 'answers'}" if n else "none: never asked", records)
            for n, records in figures.attempts[:8]
        ]
        panels.append(
            panel(
                "Answers asked for a record",
                "more than one: corrections and asking again",
                plots.counted_bars(pairs, caption="Answers asked for a record"),
            )
        )
    if figures.statuses:
        named = [(f"{status}{f' (HTTP {code})' if code else ''}", n) for status, code, n in figures.statuses]
        panels.append(
            panel(
                "Tries that failed on the way",
                f"{count(figures.tries - figures.answered)} of {count(figures.tries)} tries",
                plots.counted_bars(named, caption="Failed tries"),
            )
        )
    panels.append(_shares("What the money went for", "purpose", figures.by_purpose, figures.currency))
    if len(figures.by_model) > 1:
        panels.append(_shares("Who answered", "model", figures.by_model, figures.currency))
    return section(
        "costs", "Cost, speed and tokens",
        tag("p", {"class": "explain"}, f"{count(figures.answered)} answered calls, {money(figures.cost, figures.currency)}"
            + (f"; {count(figures.reasoning_tokens)} of the output tokens were thinking" if figures.reasoning_tokens else "")
            + ". All calls count, those of records that were asked again later too."),
        _routing(story),
        tag("div", {"class": "panels"}, panels),
    )  # fmt: skip


def _routing(story: Story) -> Markup | None:
    """What a final model was asked in the runs that are told of, and what it did not answer."""
    runs = [one for one in story.scope.runs if story.scope.run in (None, one["run_id"])]
    routing = joined(one.get("routing") for one in runs)
    told = [] if routing is None else sentences(routing, story.figures.currency)
    if not told:
        return None
    return panel(
        "Draft and final", "of the runs that left a report",
        tag("ul", {"class": "notes"}, [tag("li", {"class": "bad" if one.warns else None}, data(one.text)) for one in told]),
    )  # fmt: skip


def _over_time(told: Timeline, currency: str) -> list[Markup]:
    step = seconds(told.step)

    def calls(place: int) -> tuple[float, float, str]:
        slot = told.slots[place]
        failed = f", {count(slot.failed)} failed tries" if slot.failed else ""
        return (
            slot.answered,
            slot.failed,
            f"{plots.clock(slot.start, step=told.step)} UTC: {count(slot.answered)} answered{failed}",
        )

    def tokens(place: int) -> tuple[float, float, str]:
        slot = told.slots[place]
        return slot.tokens, 0, f"{plots.clock(slot.start, step=told.step)} UTC: {count(slot.tokens)} tokens"

    note = f"run {told.run}, by the {step}, UTC"
    panels = [
        panel("Calls over time", note, plots.timeline_plot(told, calls, label=f"Calls over time, by the {step}")),
        panel("Tokens over time", note, plots.timeline_plot(told, tokens, label=f"Tokens over time, by the {step}")),
    ]
    running, totals = Decimal(0), []
    for slot in told.slots:
        running += slot.cost or Decimal(0)
        totals.append(float(running))
    if running:
        panels.append(
            panel("Spent so far", note, plots.running_total_plot(
                told, totals, lambda total: money(Decimal(str(total)), currency), label=f"Spent so far, in {currency}"))
        )  # fmt: skip
    return panels


def _shares(title: str, column: str, told: Sequence[tuple[str, int, int, Decimal | None]], currency: str) -> Markup:
    head = (column, "calls", "tokens", "cost")
    rows = [
        tag("tr", None, tag("th", {"scope": "row"}, data(name)), number_cell(calls), number_cell(tokens), tag("td", {"class": "number"}, money(cost, currency)))
        for name, calls, tokens, cost in told
    ]  # fmt: skip
    table = tag(
        "table", {"class": "grid slim"},
        tag("thead", None, tag("tr", None, [tag("th", {"scope": "col", "class": "number" if place else None}, words) for place, words in enumerate(head)])),
        tag("tbody", None, rows),
    )  # fmt: skip
    return panel(title, "", table)
