"""Takes the key out of what a service sends back: some quote the key that they refuse.

JSON has several spellings of one text (RFC 8259, section 7): PHP writes a slash as ``\\/``, Go an ampersand as
``\\u0026``. So a key is looked for with every character either as it is or escaped.
"""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import SecretStr

from extractors.qwen.requests import CallError

INSTEAD = "[key]"
_SHORT = {'"': r"\\\"", "\\": r"\\\\", "/": r"\\/"}


class HiddenKey:
    """A key that is not to be seen. An empty one hides nothing."""

    def __init__(self, key: SecretStr) -> None:
        secret = key.get_secret_value()
        self._plain = secret.encode()
        pattern = "".join(_spellings(character) for character in secret)
        self._text = re.compile(pattern) if secret else None
        self._bytes = re.compile(pattern.encode("ascii")) if secret and pattern.isascii() else None

    def __repr__(self) -> str:
        return "HiddenKey()"

    def is_plain_in(self, data: bytes) -> bool:
        """Whether the key stands there as it is: quick, for what is looked at often."""
        return bool(self._plain) and self._plain in data

    def is_in(self, data: bytes) -> bool:
        """Whether the key stands there in any spelling."""
        return self._bytes is not None and self._bytes.search(data) is not None

    def out_of(self, data: bytes) -> bytes:
        """The bytes without the key."""
        return data if self._bytes is None else self._bytes.sub(INSTEAD.encode(), data)

    def out_of_error(self, error: CallError) -> CallError:
        """The error without the key in its words."""
        if self._text is None:
            return error
        said = [self._text.sub(INSTEAD, text) for text in (error.message, error.body, error.code or "")]
        if said == [error.message, error.body, error.code or ""]:
            return error
        return replace(error, message=said[0], body=said[1], code=said[2] if error.code is not None else None)


def _spellings(character: str) -> str:
    short = f"|{_SHORT[character]}" if character in _SHORT else ""
    return rf"(?:{re.escape(character)}|\\u{_any_case(f'{ord(character):04x}')}{short})"


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)
