"""The parts that sections are made of."""

from __future__ import annotations

from typing import Any

from extractors.reporting.markup import Markup, tag
from extractors.reporting.words import count


def card(name: str, value: str, note: str, *, bad: bool = False, link: str | None = None) -> Markup:
    """A number with its name and what it means; a link where there is more to see."""
    body = [
        tag("span", {"class": "name"}, name),
        tag("span", {"class": "value bad" if bad else "value"}, value),
        tag("span", {"class": "note"}, note),
    ]
    return tag("a", {"class": "card", "href": link}, body) if link else tag("div", {"class": "card"}, body)


def panel(title: str, note: str, body: Markup) -> Markup:
    """A titled box."""
    return tag(
        "article",
        {"class": "panel"},
        tag("h3", None, title),
        tag("p", {"class": "faint small"}, note) if note else None,
        body,
    )


def section(anchor: str, title: str, *children: Any) -> Markup:
    """A section that the navigation names."""
    return tag(
        "section",
        {"id": anchor, "aria-labelledby": f"{anchor}-title"},
        tag("h2", {"id": f"{anchor}-title"}, title),
        children,
    )


def folded(title: str, text: str) -> Markup:
    """A long text, folded away."""
    return tag("details", None, tag("summary", None, title), tag("pre", {"class": "data", "tabindex": 0}, text))


def number_cell(n: int) -> Markup:
    """A count in a table."""
    return tag("td", {"class": "number"}, count(n))
