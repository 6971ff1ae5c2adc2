"""Texts of records inside Markdown: shown as they are, never read as Markdown or HTML."""

from __future__ import annotations

import re
import unicodedata

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def escaped(text: str, most: int = 200) -> str:
    """At most ``most`` characters of a text, on one line.

    Every ASCII punctuation mark gets a backslash, after which it is only itself (CommonMark 0.31, section 2.4), also in
    a table's cell; bare links are not found in it. Character references would be as safe, but Prefect's UI shows
    numeric ones as they are written. Controls and marks that turn the direction of writing are shown by their number.
    """
    cut = text if len(text) <= most else text[: most - 1] + "…"
    line = " ".join(cut.split())
    shown = "".join(_visible(one) for one in line)
    return _PUNCTUATION.sub(r"\\\g<0>", shown)


def _visible(one: str) -> str:
    return f"U+{ord(one):04X}" if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Cn") else one
