"""Texts of records inside Markdown: shown as they are, never read as Markdown or HTML."""

from __future__ import annotations

import re
import unicodedata

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def escaped(text: str, most: int = 200) -> str:
    """At most ``most`` characters of a text, on one line.

    Every ASCII punctuation mark becomes a numeric character reference. Those "cannot be used in place of symbols
    indicating structure" (CommonMark 0.31, section 2.5), nor begin a tag, and GitHub's bare links are not found
    without the marks that make them. Controls and marks that turn the direction of writing are shown by their number.
    """
    cut = text if len(text) <= most else text[: most - 1] + "…"
    line = " ".join(cut.split())
    shown = "".join(_visible(one) for one in line)
    return _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", shown)


def _visible(one: str) -> str:
    return f"U+{ord(one):04X}" if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Cn") else one
