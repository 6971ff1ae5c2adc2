"""Write ``receipt_images``: four of the receipts as a till prints them, one picture each, a little askew.

The pictures are part of the repository; the font is matplotlib's DejaVu Sans Mono:  python examples/data/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
CHOSEN = {"r01": -1.2, "r02": 0.8, "r04": 0.0, "r07": 2.0}
"""Receipts, and by how many degrees each is turned."""


def picture(text: str, *, turned: float) -> Image.Image:
    """Black print on a white strip of paper, on a grey table."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), size=18)
    lines = text.splitlines()
    width = 40 + int(max(font.getlength(line) for line in lines))
    paper = Image.new("L", (width, 40 + 28 * len(lines)), 250)
    draw = ImageDraw.Draw(paper)
    for number, line in enumerate(lines):
        draw.text((20, 20 + 28 * number), line, font=font, fill=30)
    return paper.rotate(turned, expand=True, fillcolor=140, resample=Image.Resampling.BICUBIC)


def main() -> None:
    """Write the pictures as PNG files of 16 grey levels."""
    folder = HERE / "receipt_images"
    folder.mkdir(exist_ok=True)
    for name, turned in CHOSEN.items():
        text = (HERE / "receipts" / f"{name}.txt").read_text(encoding="utf-8")
        small = picture(text, turned=turned).quantize(16)
        small.save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
