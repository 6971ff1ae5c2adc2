"""The counts that add up, the few numbers that matter most, the runs."""

from __future__ import annotations

from decimal import Decimal

from extractors.report import unfinished
from extractors.reporting import plots
from extractors.reporting.markup import Markup, data, tag
from extractors.reporting.scope import Run
from extractors.reporting.sections.parts import card, number_cell, section
from extractors.reporting.sections.story import Story
from extractors.reporting.words import count, money, percent, seconds

_RUNS = 20


def overview(story: Story) -> Markup:
    """The counts that add up, then the few numbers that matter most."""
    figures, latest = story.figures, story.scope.latest
    tokens = figures.input_tokens + figures.output_tokens
    each = figures.cost / figures.records if figures.cost and figures.records else None
    latency = figures.latency
    cards = [
        card("Rows", count(figures.rows), f"{percent(figures.rows, figures.records)} of {count(figures.records)} decided records"),
        card("Open failures", count(figures.failures), ("1 reason" if len(story.failures) == 1 else f"{len(story.failures)} reasons") if figures.failures else "none",
              bad=figures.failures > 0, link="#failures" if figures.failures else None),
        card("Low evidence", count(figures.low_evidence), f"rows, {percent(figures.low_evidence, figures.rows)}",
              link="#show=low" if figures.low_evidence else None),
        card("Cost", money(figures.cost, figures.currency),
              f"{money(each * 1000, figures.currency)} per 1,000 records" if each else "the model has no price" if not figures.cost else ""),
        card("Tokens", count(tokens), f"{count(figures.input_tokens)} in ({percent(figures.cached_tokens, figures.input_tokens)} cached), {count(figures.output_tokens)} out"),
        card("Latency", seconds(latency.quantiles["p50"]) if latency else "–",
              f"median; p95 {seconds(latency.quantiles['p95'])}" if latency else "no call was answered live"),
    ]  # fmt: skip
    notes = []
    if figures.merged:
        notes.append(f"{count(figures.merged)} records were answered by an identical record's call, at no cost.")
    if figures.corrected:
        notes.append(f"{count(figures.corrected)} rows have values that a correction changed.")
    if figures.nulled:
        notes.append(f"{count(figures.nulled)} rows have values set to null because no evidence was found.")
    if figures.incomplete:
        notes.append(
            f"{count(figures.incomplete)} rows have lists that lack items which their records hold (_meta.incomplete)."
        )
    if figures.repaired:
        notes.append(f"{count(figures.repaired)} answers had their JSON text mended (fences, thinking text).")
    return section(
        "overview", "Overview",
        _equation(latest) if latest else tag("p", {"class": "notice"}, "No run has written its report yet: it is going on, or it was killed. What it committed is shown."),
        tag("div", {"class": "cards"}, cards),
        tag("ul", {"class": "notes"}, [tag("li", None, note) for note in notes]) if notes else None,
        _runs(story),
    )  # fmt: skip


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
    paid = run.get("unfinished_cost")
    if told := unfinished(run.get("unfinished_calls"), None if paid is None else Decimal(paid), run["currency"]):
        extra.append(tag("p", {"class": "explain"}, f"{told}."))
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
            [number_cell(run[key]) for key in ("records", "rows", "failures", "skipped", "undone", "calls")],
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
            tag("thead", None, tag("tr", None, [tag("th", {"scope": "col", "class": "number" if place else None}, words) for place, words in enumerate(head)])),
            tag("tbody", None, rows),
            tag("tfoot", None, tag("tr", None, tag("th", {"scope": "row", "colspan": 9}, "rows and open failures now"), tag("td", {"class": "number"}, count(current)))),
        )),
        tag("p", {"class": "faint"}, f"The latest {_RUNS} are listed.") if len(known) > _RUNS else None,
    )  # fmt: skip
