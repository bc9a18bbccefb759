"""The kinds of image files that are read: those whose decoders run no other program."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from PIL import Image

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow's names. Pillow hands EPS to Ghostscript: a file from a stranger would be a program that runs."""


def open_image(file: Path | BinaryIO, formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
    """Read the head of an image file of one of these formats, whatever its name says.

    Raises:
        PIL.UnidentifiedImageError: it is of no such format.
        PIL.Image.DecompressionBombError: it has more pixels than Pillow decodes.
        Exception: whatever else Pillow raises for a damaged file.
    """
    return Image.open(file, formats=formats)
