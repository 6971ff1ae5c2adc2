"""Pictures made ready to send: the real format sniffed, limits held, upright, no larger than the model takes.

The same file gives the same bytes. A JPEG, PNG or WebP that fits as it is goes as it is.

==================  ==================================================================================
``bad_input``       cannot be read, is no picture, is broken, has several pages or frames, is too small
                    or too long and thin, or is not what it was when the run began
``too_long``        more bytes or pixels than may be unpacked, or not to be made small enough
==================  ==================================================================================
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractors.qwen.requests import Image
from schemas.outcomes import Reason
from schemas.records import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from extractors.qwen.profiles import Profile

MOST_FILE_BYTES = 64_000_000
"""A larger file is not read."""
MOST_PIXELS = 89_000_000
"""A picture with more is not unpacked: a file of a few kilobytes may say that it has a billion. Pillow itself
begins to warn a little above."""
LONGEST_RATIO = 200
"""Long side to short side at most (the service's rule)."""
MOST_ENCODED = 7_800_000
"""Bytes that stay under the service's 10,485,760 for a ``data:`` URL once they are base64."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_AS_IT_IS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
_ORIENTATION = 0x0112
_QUALITIES = (90, 80, 70)
_SHRINK = 0.75


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a model takes: pictures in a request, bytes of one before base64, pixels of a side and of the whole."""

    most: int
    max_bytes: int
    min_side: int
    max_pixels: int

    @classmethod
    def of(cls, profile: Profile) -> ImageLimits:
        """Those of a model's profile."""
        return cls(
            most=max(1, profile.max_images),
            max_bytes=min(profile.max_image_bytes, MOST_ENCODED),
            min_side=profile.min_image_side,
            max_pixels=profile.max_image_pixels,
        )

    def as_dict(self) -> dict[str, int]:
        """For the recipe: a picture that is scaled down differently is another question."""
        return {name: getattr(self, name) for name in ("most", "max_bytes", "min_side", "max_pixels")}


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """Why a picture cannot be sent: the ledger's reason, and a sentence that names the file and the limit."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """A record's pictures, loaded; or what is wrong with one of them."""

    images: tuple[Image, ...] = ()
    problem: ImageProblem | None = None


def load_pictures(refs: Sequence[ImageRef], limits: ImageLimits) -> Pictures:
    """Read and prepare a record's pictures, one after the other. Never raises for what a file holds; costs
    some ten milliseconds a megapixel, so it belongs into a thread."""
    if len(refs) > limits.most:
        told = f"the record has {len(refs)} pictures; the model takes {limits.most} in a request"
        return Pictures(problem=ImageProblem(Reason.TOO_LONG, told))
    images = []
    for ref in refs:
        made = load_picture(ref, limits)
        if isinstance(made, ImageProblem):
            return Pictures(problem=made)
        images.append(made)
    return Pictures(tuple(images))


def load_picture(ref: ImageRef, limits: ImageLimits) -> Image | ImageProblem:
    """One picture. An address is passed on as it is: the provider fetches it, not this program."""
    if ref.is_url:
        return Image("", url=ref.place)
    if ref.page is not None:
        return _page(ref, limits)
    try:
        size = Path(ref.place).stat().st_size
        if size > MOST_FILE_BYTES:
            return ImageProblem(Reason.TOO_LONG, f"{ref.name} has {size:,} bytes; at most {MOST_FILE_BYTES:,} are read")
        data = Path(ref.place).read_bytes()
    except OSError as error:
        return _bad(ref.name, f"cannot be read: {error.strerror or error}")
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        return _bad(ref.name, "was changed while the run was going on; run again")
    return prepare(data, limits, name=ref.name)


def _page(ref: ImageRef, limits: ImageLimits) -> Image | ImageProblem:
    """A page of a PDF as a picture, drawn in a process of its own."""
    from extractors.documents import DocumentLimits, Unreadable
    from extractors.documents.workers import shared

    assert ref.page is not None
    try:
        if hashlib.sha256(Path(ref.place).read_bytes()).hexdigest() != ref.sha256:
            return _bad(ref.name, "was changed while the run was going on; run again")
        data = shared().picture(ref.place, ref.page, DocumentLimits())
    except OSError as error:
        return _bad(ref.name, f"cannot be read: {error.strerror or error}")
    except Unreadable as error:
        return _bad(ref.name, str(error))
    return prepare(data, limits, name=ref.name)


def prepare(data: bytes, limits: ImageLimits, *, name: str) -> Image | ImageProblem:
    """The picture in ``data``, ready to send, or why it cannot be. ``name`` is what to call it."""
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    if not data:
        return _bad(name, "is empty (0 bytes)")
    try:
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as opened:
            width, height = opened.size
            trouble = _misfit(name, width, height, limits, frames=getattr(opened, "n_frames", 1))
            if trouble is not None:
                return trouble
            # Unpacked even when it goes as it is: half a picture would be paid for and read wrongly.
            opened.load()
            kind = str(opened.format)
            turned = opened.getexif().get(_ORIENTATION, 1) not in (0, 1)
            fits = width * height <= limits.max_pixels and len(data) <= limits.max_bytes
            if kind in _AS_IT_IS and fits and not turned:
                return Image(_AS_IT_IS[kind], data, width=width, height=height)
            upright = ImageOps.exif_transpose(opened)
            return _encoded(_plain(upright), limits, name=name, lossless=kind in _LOSSLESS)
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        return _too_many_pixels(name, "too many")
    except UnidentifiedImageError:
        told = f"is not a picture in a format that is taken ({', '.join(_FORMATS)})"
        return _bad(name, f"{told}; it begins with {data[:8]!r}")
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a hostile file makes them raise
        return _bad(name, f"is broken: {str(error) or type(error).__name__}"[:300])


def _misfit(name: str, width: int, height: int, limits: ImageLimits, *, frames: int) -> ImageProblem | None:
    if width * height > MOST_PIXELS:
        return _too_many_pixels(name, f"{width} x {height}")
    if min(width, height) < limits.min_side:
        return _bad(name, f"is {width} x {height} pixels; the model needs {limits.min_side} on each side")
    if max(width, height) > LONGEST_RATIO * min(width, height):
        return _bad(name, f"is {width} x {height} pixels; one side may be {LONGEST_RATIO} times the other at most")
    if frames > 1:
        return _bad(name, f"has {frames} pages or frames, of which one would be read; give each as a file of its own")
    return None


def _plain(picture: Picture) -> Picture:
    """RGB or grey: transparent parts on white, as paper is, and 16 bits a pixel brought to 8."""
    from PIL import Image as Pillow

    if picture.mode.startswith("I") or picture.mode == "F":
        # Only the 16-bit forms occur in the formats that are taken.
        return picture.convert("F").point(lambda value: value * (255 / 65535) + 0.0).convert("L")
    if picture.mode in ("RGB", "L"):
        return picture
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        paper = Pillow.new("RGBA", over.size, (255, 255, 255, 255))
        return Pillow.alpha_composite(paper, over).convert("RGB")
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _encoded(picture: Picture, limits: ImageLimits, *, name: str, lossless: bool) -> Image | ImageProblem:
    """Scaled down to the limit of pixels, then as PNG (from a lossless format, if that fits) or JPEG; smaller and
    smaller until the bytes fit."""
    picture = _scaled(picture, math.sqrt(limits.max_pixels / (picture.width * picture.height)))
    if min(picture.size) < limits.min_side:
        return ImageProblem(
            Reason.TOO_LONG,
            f"{name} cannot be scaled to {limits.max_pixels:,} pixels: its short side would be too short",
        )
    if lossless:
        data = _saved(picture, "PNG", optimize=False)
        if len(data) <= limits.max_bytes:
            return Image("image/png", data, width=picture.width, height=picture.height)
    while True:
        for quality in _QUALITIES:
            data = _saved(picture, "JPEG", quality=quality)
            if len(data) <= limits.max_bytes:
                return Image("image/jpeg", data, width=picture.width, height=picture.height)
        if min(picture.size) * _SHRINK < limits.min_side:
            return ImageProblem(Reason.TOO_LONG, f"{name} cannot be made to fit into {limits.max_bytes:,} bytes")
        picture = _scaled(picture, _SHRINK)


def _scaled(picture: Picture, factor: float) -> Picture:
    from PIL.Image import Resampling

    if factor >= 1:
        return picture
    size = max(1, math.floor(picture.width * factor)), max(1, math.floor(picture.height * factor))
    return picture.resize(size, Resampling.LANCZOS)


def _saved(picture: Picture, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


def _too_many_pixels(name: str, size: str) -> ImageProblem:
    told = f"{name} has {size} pixels; at most {MOST_PIXELS:,} are unpacked. Scale it down first"
    return ImageProblem(Reason.TOO_LONG, told)


def _bad(name: str, why: str) -> ImageProblem:
    return ImageProblem(Reason.BAD_INPUT, f"the picture {name} {why}")
