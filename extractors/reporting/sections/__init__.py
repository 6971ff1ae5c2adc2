"""The written part of the page: everything but the browser of records, finished before a script runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from extractors.reporting.markup import Markup
from extractors.reporting.sections.costs import costs
from extractors.reporting.sections.failures import failures
from extractors.reporting.sections.field_cards import fields
from extractors.reporting.sections.opening import header, recipe
from extractors.reporting.sections.overview import overview
from extractors.reporting.sections.story import LOW_EVIDENCE_WORDS, Story, sample_words

SECTIONS: Mapping[str, tuple[str, Callable[[Story], Markup]]] = {
    "overview": ("Overview", overview),
    "costs": ("Cost and speed", costs),
    "fields": ("Fields", fields),
    "failures": ("Failures", failures),
}
"""The sections before the records, by their anchors."""

__all__ = ["LOW_EVIDENCE_WORDS", "SECTIONS", "Story", "header", "recipe", "sample_words"]
