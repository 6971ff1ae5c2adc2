"""The written part of the page: everything but the browser of records, finished before a script runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import orjson

from extractors.reporting import plots
from extractors.reporting.failing import Group
from extractors.reporting.fields import MOST_FIELDS, FieldProfile
from extractors.reporting.figures import LOW_SCORE, Figures, Timeline
from extractors.reporting.markup import Markup, data, tag
from extractors.reporting.reasons import advice, may_pass
from extractors.reporting.records import Sample
from extractors.reporting.scope import Run, Scope
from extractors.reporting.words import amount, count, money, percent, seconds

_RUNS = 20
_MATCH_WORDS = {
    "exact": "found as it is",
    "normalised": "found in another spelling",
    "value": "found as an equal value",
    "fuzzy": "found nearly",
    "image": "read from the picture",
    "ungrounded": "not found",
}
_KIND_WORDS = {"bool": "yes or no", "instant": "date and time", "json": "any JSON", "union": "one of several types"}


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that the written part tells."""

    scope: Scope
    figures: Figures
    fields: Sequence[FieldProfile]
    failures: Sequence[Group]
    sample: Sample
    made_at: str
    texts_missing: Sequence[str]

    @property
    def out(self) -> str:
        """The folder, as a shell takes it."""
        return shlex.quote(str(self.scope.out))

    @property
    def command(self) -> str:
        """The report's command with the choice that it stands for."""
        return f"quarry report {self.out} --schema {shlex.quote(self.scope.name)} --recipe {self.scope.recipe}"


def header(story: Story) -> Markup:
    """What the report is about, and what else the folder holds."""
    scope = story.scope
    document = scope.document
    about = str(document["schema"].get("description") or "").split("\n\n")[0]
    latest = scope.latest or {}
    shown = f"run {scope.run}" if scope.run else "all runs so far: the current rows and the open failures"
    facts = [
        ("schema", data(scope.name)),
        ("recipe", tag("code", None, scope.recipe)),
        ("model", data(latest.get("model") or document["model"]["name"])),
        ("shown", shown),
        ("chosen", scope.why),
        ("made", story.made_at),
    ]
    others = tag(
        "details", {"class": "others"},
        tag("summary", None, f"The folder holds {len(scope.others)} more: how to report them"),
        tag("ul", None, [tag("li", None, tag("code", None, f"quarry report {story.out} --schema {shlex.quote(name)} --recipe {recipe}")) for name, recipe in scope.others]),
    )  # fmt: skip
    return tag(
        "header", {"class": "top"},
        tag("p", {"class": "brand"}, "Quarry report"),
        tag("h1", None, data(scope.name)),
        tag("p", {"class": "lead"}, data(about)) if about else None,
        tag("dl", {"class": "facts"}, [tag("div", None, tag("dt", None, name), tag("dd", None, value)) for name, value in facts]),
        others if scope.others else None,
    )  # fmt: skip


def overview(story: Story) -> Markup:
    """The counts that add up, then the few numbers that matter most."""
    figures, latest = story.figures, story.scope.latest
    tokens = figures.input_tokens + figures.output_tokens
    each = figures.cost / figures.records if figures.cost and figures.records else None
    latency = figures.latency
    cards = [
        _card("Rows", count(figures.rows), f"{percent(figures.rows, figures.records)} of {count(figures.records)} decided records"),
        _card("Open failures", count(figures.failures), f"{len(story.failures)} reasons" if figures.failures else "none",
              bad=figures.failures > 0, link="#failures" if figures.failures else None),
        _card("Low evidence", count(figures.low_evidence), f"rows, {percent(figures.low_evidence, figures.rows)}",
              link="#show=low" if figures.low_evidence else None),
        _card("Cost", money(figures.cost, figures.currency),
              f"{money(each * 1000, figures.currency)} per 1,000 records" if each else "the model has no price" if not figures.cost else ""),
        _card("Tokens", count(tokens), f"{count(figures.input_tokens)} in ({percent(figures.cached_tokens, figures.input_tokens)} cached), {count(figures.output_tokens)} out"),
        _card("Latency", seconds(latency.quantiles["p50"]) if latency else "–",
              f"median; p95 {seconds(latency.quantiles['p95'])}" if latency else "no answered call"),
    ]  # fmt: skip
    notes = []
    if figures.merged:
        notes.append(f"{count(figures.merged)} records were answered by an identical record's call, at no cost.")
    if figures.corrected:
        notes.append(f"{count(figures.corrected)} rows have values that a correction changed.")
    if figures.nulled:
        notes.append(f"{count(figures.nulled)} rows have values set to null because no evidence was found.")
    if figures.repaired:
        notes.append(f"{count(figures.repaired)} answers had their JSON text mended (fences, thinking text).")
    return _section(
        "overview", "Overview",
        _equation(latest) if latest else tag("p", {"class": "notice"}, "No run has written its report yet: it is going on, or it was killed. What it committed is shown."),
        tag("div", {"class": "cards"}, cards),
        tag("ul", {"class": "notes"}, [tag("li", None, note) for note in notes]) if notes else None,
        _runs(story),
    )  # fmt: skip


def costs(story: Story) -> Markup:
    """Latency, tokens, money and corrections, as plots."""
    figures = story.figures
    panels: list[Markup] = []
    if figures.latency:
        panels.append(
            _panel(
                "Latency of a call", "answered calls, seconds", plots.histogram_plot(figures.latency, label="Latency")
            )
        )
    if figures.input_spread:
        panels.append(
            _panel("Input tokens of a call", "", plots.histogram_plot(figures.input_spread, label="Input tokens"))
        )
    if figures.output_spread:
        panels.append(
            _panel("Output tokens of a call", "", plots.histogram_plot(figures.output_spread, label="Output tokens"))
        )
    if figures.timeline:
        panels += _over_time(figures.timeline, figures.currency)
    if figures.attempts:
        pairs = [
            (f"{n} {'answer' if n == 1 else 'answers'}" if n else "none: never asked", records)
            for n, records in figures.attempts[:8]
        ]
        panels.append(
            _panel(
                "Answers asked for a record",
                "more than one: corrections and asking again",
                plots.counted_bars(pairs, caption="Answers asked for a record"),
            )
        )
    if figures.statuses:
        named = [(f"{status}{f' (HTTP {code})' if code else ''}", n) for status, code, n in figures.statuses]
        panels.append(
            _panel(
                "Tries that failed on the way",
                f"{count(figures.tries - figures.answered)} of {count(figures.tries)} tries",
                plots.counted_bars(named, caption="Failed tries"),
            )
        )
    panels.append(_shares("What the money went for", "purpose", figures.by_purpose, figures.currency))
    if len(figures.by_model) > 1:
        panels.append(_shares("Who answered", "model", figures.by_model, figures.currency))
    return _section(
        "costs", "Cost, speed and tokens",
        tag("p", {"class": "explain"}, f"{count(figures.answered)} answered calls, {money(figures.cost, figures.currency)}"
            + (f"; {count(figures.reasoning_tokens)} of the output tokens were thinking" if figures.reasoning_tokens else "")
            + ". All calls count, those of records that were asked again later too."),
        tag("div", {"class": "panels"}, panels),
    )  # fmt: skip


def fields(story: Story) -> Markup:
    """A card for each field: how often filled, from where, which values."""
    if not story.figures.rows:
        return _section("fields", "Fields", tag("p", {"class": "notice"}, "There is no row yet."))
    seen = {one for profile in story.fields for one in profile.evidence}
    legend = [
        tag("li", None, tag("svg", {"class": "key", "aria-hidden": "true"}, tag("rect", {"class": f"m-{match}", "width": "100%", "height": "100%"})), words)
        for match, words in _MATCH_WORDS.items() if match in seen
    ]  # fmt: skip
    return _section(
        "fields", "Fields",
        tag("p", {"class": "explain"}, f"Over {count(story.figures.rows)} rows. A value stands in its source text:"),
        tag("ul", {"class": "legend"}, legend),
        tag("div", {"class": "panels"}, [_field(one) for one in story.fields]),
        tag("p", {"class": "notice"}, f"Only the first {MOST_FIELDS} fields are shown.") if len(story.fields) >= MOST_FIELDS else None,
    )  # fmt: skip


def failures(story: Story) -> Markup:
    """What failed, why, and what to do next."""
    if not story.failures:
        return _section("failures", "Failures", tag("p", {"class": "good"}, "No record has an open failure."))
    total = sum(group.count for group in story.failures)
    return _section(
        "failures", "Failures",
        tag("p", {"class": "explain"}, f"{count(total)} open failures. Each is one record that has no row; the ledger keeps its raw answers."),
        plots.counted_bars([(group.reason, group.count) for group in story.failures], caption="Failures by reason"),
        [_group(group, story) for group in story.failures],
    )  # fmt: skip


def recipe(story: Story) -> Markup:
    """Enough to do it again: prompt, schema, job."""
    document = story.scope.document
    job = (story.scope.latest or {}).get("job") or {}
    given = {key: value for key, value in job.items() if value not in (None, "", [], False)}
    return _section(
        "recipe", "How it was made",
        tag("p", {"class": "explain"}, "The recipe is what a row means: schema, prompt, model policy. Its id is ",
            tag("code", None, str(document.get("id", story.scope.recipe))), ". The folder is ", tag("code", None, data(str(story.scope.out))), "."),
        _folded("The prompt", str(document["prompt"]["system"])),
        _folded("The schema", orjson.dumps(document["schema"], option=orjson.OPT_INDENT_2).decode()),
        _folded("Model policy", orjson.dumps({key: document.get(key) for key in ("model", "corrections", "evidence")}, option=orjson.OPT_INDENT_2).decode()),
        _folded("The latest run's job", orjson.dumps(given, option=orjson.OPT_INDENT_2).decode()) if given else None,
    )  # fmt: skip


def sample_words(sample: Sample) -> str:
    """Which of the records the page holds."""
    if sample.whole:
        return f"All {count(sample.records)} records are in this page."
    rows = f"{count(sample.rows)} of {count(sample.of_rows)} rows"
    failed = (
        f"all {count(sample.failures)} open failures"
        if sample.failures == sample.of_failures
        else f"{count(sample.failures)} of {count(sample.of_failures)} open failures"
    )
    return (
        f"This page holds a sample: {rows} and {failed}. It is drawn by a hash of the records' identity, the same each "
        "time. The figures above are over everything; --limit makes the sample larger."
    )


def _equation(run: Run) -> Markup:
    """``records = rows + failures + already done + undone``, as a sentence and as a bar."""
    parts = [
        ("p-rows", "rows", run["rows"]),
        ("p-failures", "failures", run["failures"]),
        ("p-skipped", "already done", run["skipped"]),
        ("p-undone", "undone", run["undone"]),
    ]
    terms: list[Markup] = []
    for number, (kind, words, n) in enumerate(parts):
        terms.append(tag("span", {"class": "sign"}, "=" if number == 0 else "+"))
        terms.append(tag("span", {"class": f"term {kind}"}, tag("b", None, count(n)), " ", tag("span", None, words)))
    extra = []
    if run["stopped"]:
        extra.append(
            tag(
                "p",
                {"class": "notice"},
                "The run stopped early: ",
                data(run["stopped"]),
                ". The same command goes on from there.",
            )
        )
    if run.get("removed"):
        extra.append(
            tag(
                "p",
                {"class": "explain"},
                f"{count(run['removed'])} records of earlier runs are no longer in the source; their rows are left alone.",
            )
        )
    return tag(
        "div", {"class": "equation"},
        tag("p", {"class": "explain"}, "Run ", tag("code", None, run["run_id"]), f", begun {run['started_at']}, took {seconds(run['seconds'])}:"),
        tag("p", {"class": "terms"}, tag("span", {"class": "term"}, tag("b", None, count(run["records"])), " ", tag("span", None, "records")), terms),
        plots.stack(parts, label=f"{run['records']} records: " + ", ".join(f"{n} {words}" for _, words, n in parts)) if run["records"] else None,
        extra,
    )  # fmt: skip


def _runs(story: Story) -> Markup | None:
    """Every run of the recipe; those that were killed have decided records too."""
    scope, sums = story.scope, story.figures.run_sums
    known = [run for run in scope.runs if scope.run in (None, run["run_id"])]
    silent = sorted(set(sums) - {run["run_id"] for run in known}, reverse=True)
    if len(known) + len(silent) < 2:
        return None
    head = (
        "run",
        "records",
        "= rows",
        "+ failures",
        "+ already done",
        "+ undone",
        "calls",
        "cost",
        "time",
        "still current",
    )
    rows = [
        tag(
            "tr", None, tag("th", {"scope": "row"}, tag("code", None, run["run_id"])),
            [_number_cell(run[key]) for key in ("records", "rows", "failures", "skipped", "undone", "calls")],
            tag("td", {"class": "number"}, money(None if run["cost"] is None else Decimal(run["cost"]), run["currency"])),
            tag("td", {"class": "number"}, seconds(run["seconds"])),
            tag("td", {"class": "number"}, count(sum(sums.get(run["run_id"], (0, 0))))),
        )
        for run in known[:_RUNS]
    ]  # fmt: skip
    rows += [
        tag("tr", None, tag("th", {"scope": "row"}, tag("code", None, run)),
            tag("td", {"colspan": 8, "class": "faint"}, "left no report: it was killed, or it is still going on"),
            tag("td", {"class": "number"}, count(sum(sums[run]))))
        for run in silent[:_RUNS]
    ]  # fmt: skip
    current = sum(sum(pair) for pair in sums.values())
    return tag(
        "details", {"open": True},
        tag("summary", None, f"{len(known) + len(silent)} runs of this recipe"),
        tag("div", {"class": "scroll", "tabindex": 0, "role": "region", "aria-label": "Runs"}, tag(
            "table", {"class": "grid"},
            tag("thead", None, tag("tr", None, [tag("th", {"scope": "col"}, words) for words in head])),
            tag("tbody", None, rows),
            tag("tfoot", None, tag("tr", None, tag("th", {"scope": "row", "colspan": 9}, "rows and open failures now"), tag("td", {"class": "number"}, count(current)))),
        )),
        tag("p", {"class": "faint"}, f"The latest {_RUNS} are listed.") if len(known) > _RUNS else None,
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
        _panel("Calls over time", note, plots.timeline_plot(told, calls, label=f"Calls over time, by the {step}")),
        _panel("Tokens over time", note, plots.timeline_plot(told, tokens, label=f"Tokens over time, by the {step}")),
    ]
    running, totals = Decimal(0), []
    for slot in told.slots:
        running += slot.cost or Decimal(0)
        totals.append(float(running))
    if running:
        panels.append(
            _panel("Spent so far", note, plots.running_total_plot(
                told, totals, lambda total: money(Decimal(str(total)), currency), label=f"Spent so far, in {currency}"))
        )  # fmt: skip
    return panels


def _field(one: FieldProfile) -> Markup:
    parts: list[Markup] = []
    if one.depth == 0:
        parts.append(
            tag("p", {"class": "fill"},
                tag("svg", {"class": "stack thin", "role": "img", "aria-label": f"{percent(one.filled, one.total)} filled"},
                    tag("rect", {"class": "p-rows", "width": f"{100 * one.filled / max(1, one.total):.3f}%", "height": "100%"})),
                tag("span", None, tag("b", None, percent(one.filled, one.total)), " filled"),
                tag("a", {"href": f"#show=rows&empty={one.column}"}, f"{count(one.total - one.filled)} empty") if one.filled < one.total else None)
        )  # fmt: skip
    else:
        parts.append(
            tag(
                "p",
                {"class": "fill"},
                tag("span", None, tag("b", None, percent(one.filled, one.total)), f" of {count(one.total)} filled"),
            )
        )
    if one.evidence:
        total = sum(one.evidence.values())
        kinds = [
            ("m-chosen" if one.choice and match == "ungrounded" else f"m-{match}", _MATCH_WORDS[match], n)
            for match, n in one.evidence.items()
        ]
        missing = one.evidence.get("ungrounded", 0)
        words = f"{count(total - missing)} of {count(total)} values found in the source"
        said: Markup | None = None
        if missing and one.choice:
            said = tag("span", {"class": "faint"}, "chosen from a set: rarely printed")
        elif missing:
            said = tag("a", {"href": f"#show=rows&missing={one.column}"}, f"{count(missing)} not found")
        parts.append(
            tag(
                "p",
                {"class": "fill"},
                plots.stack(kinds, label=words),
                tag("span", None, tag("b", None, percent(total - missing, total)), " in the source"),
                said,
            )
        )
    if one.histogram is not None:
        label = {"list": "items in the list", "text": "length in characters", "bytes": "length in bytes"}.get(
            one.kind, "values"
        )
        parts.append(plots.histogram_plot(one.histogram, label=f"{one.label}: {label}", marks=("p50",)))
        told = one.histogram
        if one.kind == "number":
            parts.append(
                tag(
                    "p",
                    {"class": "faint small"},
                    f"{label}: {amount(told.minimum)} to {amount(told.maximum)}, mean {amount(told.mean)}",
                )
            )
        elif one.kind in ("list", "text", "bytes"):
            parts.append(tag("p", {"class": "faint small"}, label))
    if one.categories is not None and not (one.kind == "text" and one.categories.all_differ):
        parts.append(plots.bars(one.categories, caption=f"Most frequent values of {one.label}"))
    elif one.categories is not None:
        parts.append(
            tag(
                "p",
                {"class": "faint small"},
                f"about {count(one.categories.distinct)} different values, such as ",
                [
                    [data(example), "; " if place < len(one.categories.examples) - 1 else ""]
                    for place, example in enumerate(one.categories.examples)
                ],
            )
        )
    return tag(
        "article", {"class": "panel" if one.depth == 0 else "panel nested"},
        tag("h3", None, data(one.label), " ", tag("small", None, _KIND_WORDS.get(one.kind, one.kind))),
        tag("p", {"class": "about"}, data(one.description)) if one.description else None,
        parts,
    )  # fmt: skip


def _group(group: Group, story: Story) -> Markup:
    said = advice(group.reason)
    where = f"--where \"reason = '{group.reason}'\""
    command = None if said.options is None else f"quarry retry {story.out} {where} {said.options}".strip()
    examples = [
        tag("li", None,
            tag("a", {"href": f"#show=failures&reason={group.reason}&record={quote(one.record_id, safe='')}&occurrence={one.occurrence}"}, data(one.record_id)),
            " ", tag("span", {"class": "message"}, data(one.message)))
        for one in group.examples
    ]  # fmt: skip
    problems = [
        tag("tr", None, tag("th", {"scope": "row"}, data(path or "(the whole answer)")), tag("td", None, data(error)), _number_cell(n))
        for path, error, n in group.problems
    ]  # fmt: skip
    return tag(
        "article", {"class": "panel reason"},
        tag("h3", None, tag("code", None, group.reason), " ", tag("a", {"href": f"#show=failures&reason={group.reason}"}, f"{count(group.count)} records"),
            " ", tag("small", None, "may pass when asked again" if may_pass(group.reason) else "asking the same again does not help")),
        tag("p", None, said.happened),
        tag("p", None, tag("b", None, "Next: "), said.next),
        tag("p", None, tag("code", {"class": "command"}, command)) if command else None,
        tag("table", {"class": "grid slim"}, tag("caption", None, "fields that fail most"), tag("tbody", None, problems)) if problems else None,
        tag("ul", {"class": "examples"}, examples),
    )  # fmt: skip


def _shares(title: str, column: str, told: Sequence[tuple[str, int, int, Decimal | None]], currency: str) -> Markup:
    head = (column, "calls", "tokens", "cost")
    rows = [
        tag("tr", None, tag("th", {"scope": "row"}, data(name)), _number_cell(calls), _number_cell(tokens), tag("td", {"class": "number"}, money(cost, currency)))
        for name, calls, tokens, cost in told
    ]  # fmt: skip
    table = tag(
        "table", {"class": "grid slim"},
        tag("thead", None, tag("tr", None, [tag("th", {"scope": "col"}, words) for words in head])),
        tag("tbody", None, rows),
    )  # fmt: skip
    return _panel(title, "", table)


def _card(name: str, value: str, note: str, *, bad: bool = False, link: str | None = None) -> Markup:
    body = [
        tag("span", {"class": "name"}, name),
        tag("span", {"class": "value bad" if bad else "value"}, value),
        tag("span", {"class": "note"}, note),
    ]
    return tag("a", {"class": "card", "href": link}, body) if link else tag("div", {"class": "card"}, body)


def _panel(title: str, note: str, body: Markup) -> Markup:
    return tag(
        "article",
        {"class": "panel"},
        tag("h3", None, title),
        tag("p", {"class": "faint small"}, note) if note else None,
        body,
    )


def _section(anchor: str, title: str, *children: Any) -> Markup:
    return tag(
        "section",
        {"id": anchor, "aria-labelledby": f"{anchor}-title"},
        tag("h2", {"id": f"{anchor}-title"}, title),
        children,
    )


def _folded(title: str, text: str) -> Markup:
    return tag("details", None, tag("summary", None, title), tag("pre", {"class": "data", "tabindex": 0}, text))


def _number_cell(n: int) -> Markup:
    return tag("td", {"class": "number"}, count(n))


SECTIONS: Mapping[str, tuple[str, Callable[[Story], Markup]]] = {
    "overview": ("Overview", overview),
    "costs": ("Cost and speed", costs),
    "fields": ("Fields", fields),
    "failures": ("Failures", failures),
}
"""The sections before the records, by their anchors."""
LOW_EVIDENCE_WORDS = (
    f"a value that was not found in the source, was found with a similarity below {LOW_SCORE:g}, or was set to null "
    "for want of evidence; choices from a fixed set are left out"
)
