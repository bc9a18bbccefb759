"""Images that strangers send: refused before they are decoded if they are of an odd kind or too large."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.image_decoding import decode_upright
from shards.errors import DataError
from shards.image_formats import ImageBombError, open_image
from shards.record import LONGEST_SIDE

# Those that are common on the web: strangers send them.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Pillow's names of the accepted formats; of a JPEG with several images the first is read."""
_NAME = "the image"


class TooLargeError(DataError):
    """An image with too many pixels."""


def check_upload(stream: BinaryIO, max_pixels: int) -> None:
    """Read the head of an image file; no pixel is decoded.

    Raises:
        TooLargeError: it has more pixels than that.
        DataError: it is no image of an accepted format.
    """
    stream.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"), open_image(stream, FORMATS) as image:
            width, height = image.size
    except ImageBombError as error:
        remedy = f"{error.remedy}, and {_describe_limit(max_pixels)}"
        raise TooLargeError(error.what, file=_NAME, remedy=remedy) from error
    except Exception as error:  # Pillow raises many kinds on damaged files
        kinds = ", ".join(FORMATS)
        raise DataError("is not an image, damaged, or of another kind", file=_NAME, remedy=f"send {kinds}") from error
    if width * height > max_pixels or max(width, height) > LONGEST_SIDE:
        what = f"has {width} × {height} pixels"
        raise TooLargeError(what, file=_NAME, remedy=_describe_limit(max_pixels))
    if width * height == 0:
        raise DataError("has no pixels", file=_NAME, remedy="send another one")


def decode_upload(stream: BinaryIO, max_pixels: int) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of an image file, turned upright by its EXIF orientation.

    Raises:
        TooLargeError: it has more pixels than that; nothing was decoded.
        DataError: it is no image of an accepted format, or damaged.
    """
    check_upload(stream, max_pixels)
    stream.seek(0)
    pixels: NDArray[np.uint8] = decode_upright(stream.read(), _NAME, formats=FORMATS)
    return pixels


def scale_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is at most `max_side`, 0: any; at least one pixel each."""
    longest = max(height, width)
    if not 0 < max_side < longest:
        return height, width
    return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))


def _describe_limit(max_pixels: int) -> str:
    return f"send one of at most {max_pixels / 1e6:g} megapixels, and {LONGEST_SIDE} in one direction"
