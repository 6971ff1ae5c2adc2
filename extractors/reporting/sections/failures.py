"""What failed, why, and what to do next."""

from __future__ import annotations

from urllib.parse import quote

from extractors.reporting import plots
from extractors.reporting.failing import Group
from extractors.reporting.markup import Markup, data, tag
from extractors.reporting.reasons import advice, may_pass
from extractors.reporting.sections.parts import number_cell, section
from extractors.reporting.sections.story import Story
from extractors.reporting.words import count


def failures(story: Story) -> Markup:
    """What failed, why, and what to do next."""
    if not story.failures:
        return section("failures", "Failures", tag("p", {"class": "good"}, "No record has an open failure."))
    total = sum(group.count for group in story.failures)
    return section(
        "failures", "Failures",
        tag("p", {"class": "explain"}, f"{count(total)} open failures. Each is one record that has no row; the ledger keeps its raw answers."),
        plots.counted_bars([(group.reason, group.count) for group in story.failures], caption="Failures by reason"),
        [_group(group, story) for group in story.failures],
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
        tag("tr", None, tag("th", {"scope": "row"}, data(path or "(the whole answer)")), tag("td", None, data(error)), number_cell(n))
        for path, error, n in group.problems
    ]  # fmt: skip
    return tag(
        "article", {"class": "panel reason"},
        tag("h3", None, tag("code", None, group.reason), " ", tag("a", {"href": f"#show=failures&reason={group.reason}"}, "1 record" if group.count == 1 else f"{count(group.count)} records"),
            " ", tag("small", None, "may pass when asked again" if may_pass(group.reason) else "asking the same again does not help")),
        tag("p", None, said.happened),
        tag("p", None, tag("b", None, "Next: "), said.next),
        tag("p", None, tag("code", {"class": "command"}, command)) if command else None,
        tag("table", {"class": "grid slim"}, tag("caption", None, "fields that fail most"), tag("tbody", None, problems)) if problems else None,
        tag("ul", {"class": "examples"}, examples),
    )  # fmt: skip
