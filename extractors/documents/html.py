"""A page's text as a reader sees it: blocks on lines of their own, rows of tables with tabs, nothing hidden."""

from __future__ import annotations

import re

from extractors.documents.converted import Converted, DocumentLimits, Unreadable
from extractors.documents.kinds import Kind
from extractors.documents.plain import decoded_html

_UNSEEN = (
    "script, style, noscript, template, svg, head, iframe, object, [hidden], input[type=hidden], "
    '[style*="display:none" i], [style*="display: none" i], [style*="visibility:hidden" i], [style*="visibility: hidden" i]'
)
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "dialog",
        "dir",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "html",
        "li",
        "main",
        "menu",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
        "caption",
        "legend",
    ]
)
_AS_IT_IS = frozenset(("pre", "textarea"))
_SPACE = re.compile(r"[ \t\r\n\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_PARAGRAPHS = frozenset(
    ["h1", "h2", "h3", "h4", "h5", "h6", "p", "table", "ul", "ol", "blockquote", "section", "article"]
)


def convert(data: bytes, limits: DocumentLimits) -> Converted:
    """The visible text of an HTML page. Raises ``Unreadable``."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(decoded_html(data))
    titled = tree.css_first("title")
    title = _SPACE.sub(" ", titled.text()).strip() if titled is not None else ""
    for node in tree.css(_UNSEEN):
        node.decompose()
    body = tree.body
    if body is None:
        raise Unreadable("is a page without a body")
    pieces: list[str] = []
    length = 0
    last: tuple[int, str] | None = None
    row: int | None = None
    for node in body.traverse(include_text=True):
        tag = node.tag
        if tag == "br":
            pieces.append("\n")
            continue
        if tag != "-text":
            continue
        block, name = _block(node)
        text = node.text_content if hasattr(node, "text_content") else node.text()
        text = text or ""
        if name not in _AS_IT_IS:
            text = _SPACE.sub(" ", text)
        if not text.strip():
            # Space between two inline elements parts words; between two blocks it says nothing.
            if text and last is not None and last[0] == block and pieces and not pieces[-1].endswith((" ", "\n", "\t")):
                pieces.append(" ")
            continue
        if last is not None and last[0] != block:
            here = _row(node) if name in ("td", "th") else None
            pieces.append(_between(last[1], name, same_row=here is not None and here == row))
            row = here
        elif last is None and name in ("td", "th"):
            row = _row(node)
        if not pieces or pieces[-1].endswith(("\n", "\t")):
            text = text if name in _AS_IT_IS else text.lstrip(" ")
            if name == "li":
                text = f"- {text}" if last is None or last[0] != block else text
        pieces.append(text)
        last = (block, name)
        length += len(text)
        if length > limits.characters:
            raise Unreadable(f"has more than {limits.characters:,} characters of text")
    text = _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in "".join(pieces).split("\n"))).strip()
    if title and title not in text[: len(title) + 200]:
        text = f"{title}\n\n{text}"
    return Converted(Kind.HTML.value, text, title=title or None)


def _block(node: object) -> tuple[int, str]:
    """The nearest block around a text: which, and its tag."""
    parent = node.parent  # type: ignore[attr-defined]
    while parent is not None and parent.tag not in _BLOCKS and parent.tag not in _AS_IT_IS:
        parent = parent.parent
    return (0, "body") if parent is None else (parent.mem_id, parent.tag)


def _row(node: object) -> int | None:
    """The row of a table around a text."""
    parent = node.parent  # type: ignore[attr-defined]
    for _ in range(64):
        if parent is None:
            return None
        if parent.tag == "tr":
            return int(parent.mem_id)
        parent = parent.parent
    return None


def _between(before: str, after: str, *, same_row: bool) -> str:
    if same_row:
        return "\t"
    return "\n\n" if before in _PARAGRAPHS or after in _PARAGRAPHS else "\n"
