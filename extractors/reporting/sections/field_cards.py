"""A card for each field: how often filled, from where, which values."""

from __future__ import annotations

from extractors.reporting import plots
from extractors.reporting.fields import MOST_FIELDS, FieldProfile
from extractors.reporting.markup import Markup, data, tag
from extractors.reporting.sections.parts import section
from extractors.reporting.sections.story import Story
from extractors.reporting.words import amount, count, percent

_MATCH_WORDS = {
    "exact": "found as it is",
    "normalised": "found in another spelling",
    "value": "found as an equal value",
    "fuzzy": "found nearly",
    "image": "read from the picture",
    "tool": "from a look-up",
    "ungrounded": "not found",
}

_KIND_WORDS = {"bool": "yes or no", "instant": "date and time", "json": "any JSON", "union": "one of several types"}


def fields(story: Story) -> Markup:
    """A card for each field: how often filled, from where, which values."""
    if not story.figures.rows:
        return section("fields", "Fields", tag("p", {"class": "notice"}, "There is no row yet."))
    seen = {one for profile in story.fields if not profile.choice for one in profile.evidence}
    legend = [
        tag("li", None, tag("svg", {"class": "key", "aria-hidden": "true"}, tag("rect", {"class": f"m-{match}", "width": "100%", "height": "100%"})), words)
        for match, words in _MATCH_WORDS.items() if match in seen
    ]  # fmt: skip
    return section(
        "fields", "Fields",
        tag("p", {"class": "explain"}, f"Over {count(story.figures.rows)} rows. A value stands in its source text:"),
        tag("ul", {"class": "legend"}, legend),
        tag("div", {"class": "panels"}, [_field(one) for one in story.fields]),
        tag("p", {"class": "notice"}, f"Only the first {MOST_FIELDS} fields are shown.") if len(story.fields) >= MOST_FIELDS else None,
    )  # fmt: skip


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
    if one.evidence and not one.choice:
        # What is chosen from a set is rarely printed: how often says nothing of it.
        total, missing = sum(one.evidence.values()), one.evidence.get("ungrounded", 0)
        kinds = [(f"m-{match}", _MATCH_WORDS[match], n) for match, n in one.evidence.items()]
        parts.append(
            tag("p", {"class": "fill"},
                plots.stack(kinds, label=f"{count(total - missing)} of {count(total)} values found in the source"),
                tag("span", None, tag("b", None, percent(total - missing, total)), " in the source"),
                tag("a", {"href": f"#show=rows&missing={one.column}"}, f"{count(missing)} not found") if missing else None)
        )  # fmt: skip
    if one.histogram is not None:
        label = {"list": "items in the list", "text": "length in characters", "bytes": "length in bytes"}.get(
            one.kind, "values"
        )
        told = one.histogram
        if told.minimum == told.maximum:
            parts.append(tag("p", {"class": "faint small"}, f"{label}: always {plots.spelled(told, told.minimum)}"))
        else:
            parts.append(plots.histogram_plot(told, label=f"{one.label}: {label}", marks=("p50",)))
            mean = f", mean {amount(told.mean)}" if one.kind == "number" else ""
            span = f"{plots.spelled(told, told.minimum)} to {plots.spelled(told, told.maximum)}"
            parts.append(tag("p", {"class": "faint small"}, f"{label}: {span}{mean}"))
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
