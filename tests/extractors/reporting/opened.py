"""What a report's file holds, read without a browser."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from pathlib import Path
from typing import Any


class Opened:
    """``text`` is what a reader sees of the written part, in one line; ``records`` by id; ``index`` the packed index."""

    def __init__(self, file: Path) -> None:
        self.source = file.read_text(encoding="utf-8")
        blocks = dict(re.findall(r'<script type="application/gzip\+base64" id="([^"]+)">([^<]*)</script>', self.source))
        unpacked: dict[str, Any] = {
            name: json.loads(gzip.decompress(base64.b64decode(data))) for name, data in blocks.items()
        }
        self.index = unpacked.pop("index")
        self.pieces = [unpacked[f"piece-{number}"] for number in range(len(unpacked))]
        self.records = {record["id"]: record for piece in self.pieces for record in piece}
        written = self.source[self.source.index("<body>") : self.source.index("<script type=")]
        self.text = html.unescape(" ".join(re.sub(r"<[^>]+>", " ", written).split()))

    def section(self, anchor: str) -> str:
        """The text of one section."""
        found = re.search(rf'<section id="{anchor}".*?</section>', self.source, re.DOTALL)
        assert found is not None
        return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", found[0]).split()))
