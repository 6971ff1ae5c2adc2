"""HTML that cannot be anything but what it looks like: every text is escaped in one place, here."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_VOID = frozenset({"br", "hr", "meta", "link", "input"})


class Markup(str):
    """HTML that is finished; any other text becomes a text node."""

    __slots__ = ()


Child = Markup | str | int | None | Iterable["Child"]


def tag(name: str, attributes: Mapping[str, str | int | float | bool | None] | None = None, *children: Child) -> Markup:
    """An element. An attribute that is None or False is left out, True has no value."""
    given = "".join(
        f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
        for key, value in (attributes or {}).items()
        if value is not None and value is not False
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Markup:
    """Children one after the other."""
    return Markup("".join(_text(child) for child in children))


def data(text: object, **attributes: str) -> Markup:
    """A value that somebody else wrote: isolated, so that its direction does not reach beyond it."""
    return tag("bdi", {"class": "data", **attributes}, str(text))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return html.escape(_CONTROLS.sub(lambda found: _picture(found[0]), child))
    if isinstance(child, int):
        return str(child)
    return joined(child)


def _picture(character: str) -> str:
    """The visible sign of a control character, which HTML cannot hold."""
    return "\u2421" if character == "\x7f" else chr(0x2400 + ord(character))
