"""Pictures made ready to send: real files, made by Pillow here."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from extractors.images import ImageLimits, ImageProblem, load_picture, prepare
from extractors.qwen.requests import Image
from schemas.outcomes import Reason
from schemas.records import ImageRef

LIMITS = ImageLimits(most=1, max_bytes=200_000, min_side=10, max_pixels=300_000)


def picture(kind: str = "PNG", size: tuple[int, int] = (300, 200), mode: str = "RGB", **options: Any) -> bytes:
    made = Pillow.new(mode, size, 0 if mode in ("1", "L") else "white" if mode != "RGBA" else (0, 0, 0, 0))
    if mode == "RGB":
        ImageDraw.Draw(made).text((20, 20), "TOTAL 12.50", fill="black")
    sink = io.BytesIO()
    made.save(sink, kind, **options)
    return sink.getvalue()


def noise(kind: str, size: tuple[int, int]) -> bytes:
    made = Pillow.effect_noise(size, 90).convert("RGB")
    sink = io.BytesIO()
    made.save(sink, kind)
    return sink.getvalue()


def ready(data: bytes, limits: ImageLimits = LIMITS) -> Image:
    made = prepare(data, limits, name="a.png")
    assert isinstance(made, Image), made
    return made


def refused(data: bytes, limits: ImageLimits = LIMITS) -> ImageProblem:
    made = prepare(data, limits, name="a.png")
    assert isinstance(made, ImageProblem)
    assert "a.png" in made.message
    return made


@pytest.mark.parametrize(("kind", "media"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_a_picture_that_fits_goes_as_it_is(kind: str, media: str) -> None:
    data = picture(kind)
    made = ready(data)
    assert (made.data, made.media_type, made.width, made.height) == (data, media, 300, 200)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF"])
def test_other_formats_become_png_without_loss(kind: str) -> None:
    made = ready(picture(kind))
    assert made.media_type == "image/png"
    with Pillow.open(io.BytesIO(made.data)) as opened:
        assert opened.size == (300, 200)


def test_the_real_format_counts_not_the_name() -> None:
    made = prepare(picture("JPEG"), LIMITS, name="photo.png")
    assert isinstance(made, Image)
    assert made.media_type == "image/jpeg"


def test_a_photo_is_turned_upright() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    made = ready(picture("JPEG", exif=exif))
    assert (made.width, made.height) == (200, 300)
    with Pillow.open(io.BytesIO(made.data)) as opened:
        assert opened.size == (200, 300)
        assert opened.getexif().get(0x0112, 1) == 1


def test_a_large_picture_is_scaled_to_the_models_pixels_and_keeps_its_proportions() -> None:
    made = ready(picture("PNG", (1500, 1000)))
    assert made.width * made.height <= LIMITS.max_pixels
    assert made.width / made.height == pytest.approx(1.5, rel=0.01)


def test_a_heavy_picture_is_made_to_fit_into_the_models_bytes() -> None:
    data = noise("PNG", (500, 500))
    assert len(data) > LIMITS.max_bytes
    made = ready(data)
    assert made.media_type == "image/jpeg"
    assert len(made.data) <= LIMITS.max_bytes


def test_what_cannot_be_made_to_fit_is_too_long() -> None:
    trouble = refused(noise("PNG", (100, 100)), ImageLimits(1, max_bytes=300, min_side=80, max_pixels=10**6))
    assert trouble.reason is Reason.TOO_LONG
    assert "300 bytes" in trouble.message


def test_the_same_picture_gives_the_same_bytes() -> None:
    data = noise("PNG", (700, 600))
    assert ready(data).data == ready(data).data


def test_what_is_transparent_is_paper() -> None:
    made = ready(picture("TIFF", mode="RGBA"))
    with Pillow.open(io.BytesIO(made.data)) as opened:
        assert opened.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "I;16"])
def test_every_colour_mode_can_be_sent(mode: str) -> None:
    made = ready(picture("TIFF", mode=mode if mode != "I;16" else "L"))
    assert made.media_type == "image/png"


def test_sixteen_bits_a_pixel_keep_their_greys() -> None:
    sink = io.BytesIO()
    Pillow.new("I;16", (40, 40), 32768).save(sink, "TIFF")
    with Pillow.open(io.BytesIO(ready(sink.getvalue()).data)) as opened:
        assert opened.getpixel((5, 5)) == pytest.approx(128, abs=2)


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it has ``width`` x ``height`` pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(9_450, 9_450), (12_000, 12_000), (60_000, 60_000)])
def test_a_bomb_is_not_unpacked(size: tuple[int, int]) -> None:
    trouble = refused(bomb(*size))
    assert trouble.reason is Reason.TOO_LONG
    assert "89,000,000" in trouble.message


def frames() -> bytes:
    sink = io.BytesIO()
    pages = [Pillow.new("L", (50, 50), shade) for shade in (0, 90, 200)]
    pages[0].save(sink, "TIFF", save_all=True, append_images=pages[1:])
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"%PDF-1.7 not a picture", "not a picture"),
        (b"<svg xmlns='x'/>", "not a picture"),
        (picture("JPEG")[:-400], "broken"),
        (noise("PNG", (100, 100))[:9000], "broken"),
        (picture("PNG", (300, 5)), "needs 10"),
        (picture("PNG", (4000, 15)), "200 times"),
        (frames(), "3 pages"),
    ],
)
def test_what_is_no_whole_single_picture_is_bad_input(data: bytes, said: str) -> None:
    trouble = refused(data)
    assert trouble.reason is Reason.BAD_INPUT
    assert said in trouble.message


def test_a_file_that_changed_since_it_was_hashed_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    ref = ImageRef(str(path), "a.png", hashlib.sha256(picture()).hexdigest())
    assert isinstance(load_picture(ref, LIMITS), Image)
    path.write_bytes(picture(size=(301, 200)))
    trouble = load_picture(ref, LIMITS)
    assert isinstance(trouble, ImageProblem)
    assert "changed" in trouble.message
    path.unlink()
    assert isinstance(load_picture(ref, LIMITS), ImageProblem)


def test_an_address_is_passed_on_and_not_fetched() -> None:
    made = load_picture(ImageRef("https://host.example/a.png", "a", "0"), LIMITS)
    assert made == Image("", url="https://host.example/a.png")
