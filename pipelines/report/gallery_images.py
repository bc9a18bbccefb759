"""The image files of a report: each image once, and its thumbnail; without metadata of the original."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipelines.data.image_decoding import decode_image
from shards.files import name_file

IMAGES, THUMBNAILS = "images", "thumbnails"
LONGEST_SIDE = 640
"""Pixels of the longer side of an image in the report at most."""
THUMBNAIL_SIDE = 192
"""Pixels of the longer side of a thumbnail at most."""
# A page of 5,000 expressions about 1,400 images stays below 300 MB.
_QUALITY = {IMAGES: 80, THUMBNAILS: 72}


def name_image(index: int) -> str:
    """The name of an image's files."""
    return f"{index:05d}.jpg"


def fit_size(width: int, height: int, longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """Width and height of an image as it is shown: scaled down to `longest` if it is larger, never enlarged."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def write_images(folder: Path, name: str, data: bytes, origin: str) -> None:
    """Write images/NAME and thumbnails/NAME of an image file's bytes.

    Raises:
        DataError: the bytes are not an image, or are damaged; begins with `origin`.
    """
    image = Image.fromarray(decode_image(data, origin))
    for subfolder, longest in ((IMAGES, LONGEST_SIDE), (THUMBNAILS, THUMBNAIL_SIDE)):
        size = fit_size(*image.size, longest)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.5)
        with name_file(file := folder / subfolder / name):
            image.save(file, format="jpeg", quality=_QUALITY[subfolder])
