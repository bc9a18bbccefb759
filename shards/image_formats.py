"""Image files that are opened: of formats whose decoders run no other program, and not made to fill memory."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from shards.errors import DataError

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow's names. Pillow hands EPS to Ghostscript: a file from a stranger would be a program that runs."""
# Pixels up to which any file is decoded. Decoding to RGB takes at most 10 bytes a pixel, of these formats at most 18.
_ALWAYS_DECODED = 48_000_000
_ALWAYS_DECODED_OF = {"WEBP": 24_000_000, "AVIF": 24_000_000, "JPEG2000": 24_000_000}
_PIXELS_PER_BYTE = 256
_PIXELS_PER_BYTE_OF = {"JPEG": 128, "MPO": 128}
_LARGEST_MASK = 256 << 20
# Bytes of pixels that are not converted to RGB, up to which any PNG is decoded.
_ALWAYS_STORED = 400_000_000
_BILEVEL_FACTOR = 8
"""A byte of a bilevel image ("1", as scans of text) holds eight pixels before it is compressed."""


class ImageBombError(DataError):
    """An image that would take far more memory than its file leads to expect; nothing of it was decoded."""


def open_image(
    file: Path | BinaryIO, formats: tuple[str, ...] = IMAGE_FORMATS, *, as_stored: bool = False
) -> Image.Image:
    """Read the head of an image file of one of these formats, whatever its name says.

    A large image (above 48 megapixels, of WebP, AVIF and JPEG 2000 above 24) is refused if a byte of its file stands
    for more than 256 pixels, of JPEG for more than 128, of a bilevel image for more than 2,048. Measured at 25 to 101
    megapixels, in pixels a byte:

    - photographs in JPEG: 10 to 21 at quality 75, 33 to 48 at 10, 42 to 88 at 10 progressive, 54 to 60 at 1; in WebP
      41 to 74 at quality 10; in AVIF 52 to 112 at 30, 105 to 189 at 10 (the second numbers: enlarged 18 times);
    - a blank scan with the noise of a sensor in gray JPEG: 54 at quality 75, 85 at 10; without noise 85 at 75;
    - pages of dense text, bilevel: 201 in TIFF with CCITT group 4, 112 in PNG;
    - one color alone: 297 to 316 in PNG in RGB, 700 to 1,280 in gray PNG and GIF, 3,348 in bilevel PNG, 374 in lossy
      WebP, above 15,000 in AVIF, JPEG 2000, lossless WebP and group 4.

    Args:
        file: the image.
        formats: Pillow's names.
        as_stored: whether pixels are not converted to RGB, which takes less memory: a PNG of one color, as a mask may
            be, is then no bomb up to 400 MB of pixels.

    Raises:
        ImageBombError: it is such an image, or has more pixels than Pillow decodes.
        PIL.UnidentifiedImageError: it is of no such format.
        Exception: whatever else Pillow raises for a damaged file.
    """
    num_bytes = _count_bytes(file)
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageBombError("has more than 178 megapixels, which Pillow refuses", remedy="reduce the image") from error
    limit = _PIXELS_PER_BYTE_OF.get(image.format or "", _PIXELS_PER_BYTE)
    limit *= _BILEVEL_FACTOR if image.mode == "1" else 1
    num_pixels = image.width * image.height
    always = _ALWAYS_DECODED_OF.get(image.format or "", _ALWAYS_DECODED)
    if as_stored and image.format == "PNG":
        always = _ALWAYS_STORED // (1 if image.mode in ("1", "L", "P") else 4)
    if num_pixels > max(always, limit * num_bytes):
        with image:
            what = (
                f"has {image.width} × {image.height} pixels in {num_bytes:,} bytes; "
                f"expected a byte per {limit} pixels at least of an image above {always // 10**6} megapixels"
            )
            raise ImageBombError(what, remedy="reduce the image, or save it as a JPEG of quality 75")
    return image


def open_png_mask(file: Path) -> Image.Image:
    """Read the head of a PNG that is a mask.

    Its bytes are read first: of a file, Pillow reserves as much memory as a damaged chunk says that it is long.

    Raises:
        OSError: there is no such file, it cannot be read, is a pipe or a device, or has more than 256 MiB.
        Exception: as `open_image`; images of one color are masks, and no bombs.
    """
    if file.exists() and not file.is_file():
        raise OSError("a pipe would be waited for")
    if file.stat().st_size > _LARGEST_MASK:
        raise OSError("a mask of more than 256 MiB")
    return Image.open(io.BytesIO(file.read_bytes()), formats=("PNG",))


def _count_bytes(file: Path | BinaryIO) -> int:
    if isinstance(file, Path):
        return file.stat().st_size
    position = file.tell()
    file.seek(0, os.SEEK_END)
    num_bytes = file.tell()
    file.seek(position)
    return num_bytes
