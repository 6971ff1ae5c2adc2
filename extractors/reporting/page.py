"""The page around the sections: head, policy, navigation, the browser's frame, the packed data, the script."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files as resources
from typing import Any

import orjson

from extractors.reporting.desk import Desk
from extractors.reporting.markup import Markup, tag
from extractors.reporting.records import Index
from extractors.reporting.sections import LOW_EVIDENCE_WORDS, SECTIONS, Story, header, recipe, sample_words

_SCRIPTS = ("packed.js", "text.js", "record.js", "browser.js")
_PIECE_RECORDS = 250
_PIECE_BYTES = 1_500_000


def asset(name: str) -> str:
    """A file of ``extractors/reporting/page``."""
    return (resources("extractors.reporting") / "page" / name).read_text(encoding="utf-8")


def beginning(story: Story) -> str:
    """Everything before the data."""
    style, script = asset("page.css"), _script()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    head = tag(
        "head", None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("meta", {"name": "referrer", "content": "no-referrer"}),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("title", None, f"{story.scope.name} · Quarry report"),
        tag("style", None, Markup(style)),
    )  # fmt: skip
    links = [(anchor, words) for anchor, (words, _) in SECTIONS.items()]
    links += [("records", "Records"), ("recipe", "How it was made")]
    main = [
        header(story),
        tag("nav", {"aria-label": "Sections"}, [tag("a", {"href": f"#{anchor}"}, words) for anchor, words in links]),
        tag("main", {"id": "main"}, [make(story) for _, make in SECTIONS.values()], _records(story), recipe(story)),
        tag("footer", None, "Made by ", tag("code", None, story.command), ". One file, nothing loaded from anywhere."),
    ]
    return f'<!DOCTYPE html>\n<html lang="en">{head}<body><a class="skip" href="#records">Skip to the records</a>{"".join(main)}\n'


def pieces(records: Iterable[Mapping[str, Any]], sizes: list[int]) -> Iterator[str]:
    """The records, packed a few hundred together; ``sizes`` gets how many are in each piece."""
    waiting: list[bytes] = []
    length = 0
    for record in records:
        line = orjson.dumps(record)
        if waiting and (len(waiting) >= _PIECE_RECORDS or length + len(line) > _PIECE_BYTES):
            yield _piece(waiting, sizes)
            waiting, length = [], 0
        waiting.append(line)
        length += len(line)
    if waiting:
        yield _piece(waiting, sizes)


def ending(story: Story, desk: Desk, index: Index, sizes: Sequence[int]) -> str:
    """The index of the records, and the script."""
    document = {
        "fields": [[one.name, one.key, one.shape.kind, one.shape.choice] for one in desk.fields],
        "choices": sorted(desk.choices),
        "kept": desk.kept,
        "currency": story.figures.currency,
        "why": list(story.texts_missing),
        "sizes": sizes,
        "columns": index.columns,
    }
    return f"{_packed('index', orjson.dumps(document))}<script>{_script()}</script>\n</body></html>\n"


def _piece(lines: Sequence[bytes], sizes: list[int]) -> str:
    sizes.append(len(lines))
    return _packed(f"piece-{len(sizes) - 1}", b"[" + b",".join(lines) + b"]")


def _packed(name: str, data: bytes) -> str:
    """A data block that is no script: base64 has no character that could end it."""
    text = base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
    return f'<script type="application/gzip+base64" id="{name}">{text}</script>\n'


def _script() -> str:
    return "'use strict';\n(() => {\n" + "".join(asset(name) for name in _SCRIPTS) + "})();\n"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _records(story: Story) -> Markup:
    """The browser's frame; the script fills it."""
    shown = [
        ("all", "all records"), ("rows", "rows"), ("failures", "failures"), ("low", "rows with low evidence"),
        ("corrected", "rows that were corrected"), ("merged", "answered by an identical record"),
    ]  # fmt: skip
    orders = [
        ("id", "record id"),
        ("cost", "cost, highest first"),
        ("tokens", "tokens, most first"),
        ("tries", "answers asked, most first"),
    ]
    top = [one for one in story.fields if one.depth == 0]
    names = [(str(one.column), one.label) for one in top]

    def select(name: str, label: str, options: Sequence[tuple[str, str]]) -> Markup:
        made = [tag("option", {"value": value}, words) for value, words in options]
        return tag("label", None, tag("span", None, label), tag("select", {"name": name, "id": f"by-{name}"}, made))

    reasons = [(group.reason, f"{group.reason} ({group.count:,})") for group in story.failures]
    form = tag(
        "form", {"id": "filters", "role": "search", "aria-label": "Filter the records"},
        tag("label", {"class": "wide"}, tag("span", None, "Search ids, values, messages and source texts"),
            tag("input", {"type": "search", "name": "q", "id": "by-q", "autocomplete": "off", "spellcheck": "false",
                          "placeholder": "words, or \"an exact phrase\""})),
        select("show", "Show", shown),
        select("reason", "Failed because", [("", "any reason"), *reasons]) if reasons else None,
        select("empty", "Field is null or empty", [("", "any"), *names]) if names else None,
        select("missing", "Value not found in source", [("", "any"), *names]) if names else None,
        select("order", "Order", orders),
        tag("button", {"type": "reset"}, "Clear"),
    )  # fmt: skip
    return tag(
        "section", {"id": "records", "aria-labelledby": "records-title", "tabindex": -1},
        tag("h2", {"id": "records-title"}, "Records"),
        tag("p", {"class": "explain" if story.sample.whole else "notice", "id": "sample"}, sample_words(story.sample)),
        [tag("p", {"class": "notice"}, why) for why in story.texts_missing],
        tag("noscript", None, tag("p", {"class": "notice"}, "The records need JavaScript; everything above does not.")),
        form,
        tag("p", {"id": "status", "role": "status", "aria-live": "polite"}, ""),
        tag("div", {"class": "browser"},
            tag("div", {"class": "side"},
                tag("ol", {"id": "list", "aria-label": "Records found"}, ""),
                tag("div", {"class": "pager"},
                    tag("button", {"type": "button", "id": "earlier"}, "Earlier"),
                    tag("label", None, tag("span", {"class": "unseen"}, "Page"), tag("input", {"type": "number", "id": "page", "min": 1, "value": 1, "inputmode": "numeric"})),
                    tag("span", {"id": "pages"}, ""),
                    tag("button", {"type": "button", "id": "later"}, "Later"))),
            tag("article", {"id": "record", "aria-live": "off", "tabindex": -1, "aria-label": "The record"},
                tag("p", {"class": "faint"}, "Choose a record to see its values, their evidence in the source, and its calls."))),
        tag("p", {"class": "faint small"}, "Keys: ", tag("kbd", None, "/"), " search, ", tag("kbd", None, "j"), " and ", tag("kbd", None, "k"),
            " next and previous record, ", tag("kbd", None, "["), " and ", tag("kbd", None, "]"), " pages. Low evidence: ", LOW_EVIDENCE_WORDS, "."),
    )  # fmt: skip
