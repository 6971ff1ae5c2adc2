"""The grammar of a text's spans: every piece from edge to edge, and nothing else."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.grounding import Haystack
from extractors.grounding.edges import is_span
from extractors.qwen.span_grammar import MOST_CHARACTERS, SPAN, span_rules

_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|([a-z][a-z0-9-]*)|([()|?])| +')


def language(text: str) -> re.Pattern[str]:
    """What the rules of a text accept, as one pattern: they refer to no rule that leads back to itself."""
    rules = span_rules(text)
    done: dict[str, str] = {}

    def written_out(name: str) -> str:
        if name not in done:
            pieces, at = [], 0
            while at < len(rules[name]):
                part = _PART.match(rules[name], at)
                assert part is not None, rules[name][at:]
                at = part.end()
                if part[1] is not None:
                    pieces.append(re.escape(_unquoted(part[1])))
                elif part[2]:
                    pieces.append(written_out(part[2]))
                elif part[3]:
                    pieces.append(part[3].replace("(", "(?:"))
            done[name] = f"(?:{''.join(pieces)})"
        return done[name]

    return re.compile(written_out(SPAN), re.DOTALL)


def _unquoted(literal: str) -> str:
    return re.sub(
        r"\\(x([0-9A-F]{2})|.)",
        lambda found: chr(int(found[2], 16)) if found[2] else found[1],
        literal,
        flags=re.DOTALL,
    )


def spans_of(text: str) -> set[str]:
    """Every piece that the check of an answer takes as it is, without what UTF-8 lacks."""
    return {
        text[start:end]
        for start in range(len(text))
        for end in range(start + 1, len(text) + 1)
        if is_span(text, start, end) and not re.search("[\ud800-\udfff]", text[start:end])
    }


TEXTS = st.text(st.sampled_from('ab1., \n"\\\té中\ud800x\x01\u0301\u200d\u200c\ufe0f❤ि'), max_size=14)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.data())
def test_the_rules_take_every_span_of_a_text_and_nothing_else(text: str, data: st.DataObject) -> None:
    spans = spans_of(text)
    if not spans:
        assert not span_rules(text)
        return
    grammar = language(text)
    for span in spans:
        assert grammar.fullmatch(json.dumps(span, ensure_ascii=False)), span
    pieces = {text[start:end] for start in range(len(text)) for end in range(start, len(text) + 1)}
    for other in [*(pieces - spans), data.draw(TEXTS)]:
        if other not in spans:
            assert not grammar.fullmatch(json.dumps(other, ensure_ascii=False)), other


def test_a_number_is_not_cut_in_two() -> None:
    grammar = language("pay 1,250.75 now")
    assert grammar.fullmatch('"1,250.75"')
    assert not grammar.fullmatch('"250.75"')


@pytest.mark.parametrize("text", ["the cat and the hat. " * 400, "aaaa " * 2000, "山东省东营市" * 800, "x" * 8000])
def test_the_rules_of_a_repetitive_text_stay_small(text: str) -> None:
    rules = span_rules(text)
    assert sum(map(len, rules.values())) < 80 * len(text)


def test_a_long_text_has_no_rules() -> None:
    assert span_rules("word " * (MOST_CHARACTERS // 5)) and not span_rules("word " * (MOST_CHARACTERS // 5 + 1))


@given(TEXTS)
def test_a_span_is_exact_evidence(text: str) -> None:
    for span in spans_of(text):
        assert Haystack(text).exact(span)
