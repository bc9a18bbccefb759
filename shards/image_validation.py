"""Image files as shards take them: read once, decoded to their end, and compared with the size in the annotations."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from shards.errors import DataError
from shards.exif import find_orientation
from shards.file_kinds import explain_unreadable
from shards.image_formats import ImageBombError, open_image
from shards.index import IMAGE_EXTENSIONS
from shards.record import ImageRecord

_FIRST_QUARTER_TURN = 5
"""The first EXIF orientation that exchanges width and height."""
_KINDS = ("JPEG", "PNG", "GIF", "TIFF", "WebP")


def read_valid_image(file: Path, record: ImageRecord) -> bytes:
    """The bytes of a whole image file of the record's size.

    Raises:
        DataError: the file is missing, damaged, no image, or of another size; names the file and the record.
    """
    name = f"image {record.image_id}"
    if file.suffix[1:].lower() not in IMAGE_EXTENSIONS:
        raise DataError(f"'{file.suffix}' is no known extension of an image", file=file, record=name)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _explain(file, name, error, _KINDS) from error
    check_image(data, file, record, name)
    return data


def check_image(data: bytes, file: Path, record: ImageRecord, name: str, *, kinds: Sequence[str] = _KINDS) -> None:
    """Decode an image file's bytes to their end, and compare its size with the record's.

    Args:
        data: the bytes.
        file: where they are from, for errors.
        record: says the size.
        name: names the record in errors.
        kinds: kinds of content of such a file, as of `explain_unreadable`.

    Raises:
        DataError: the image is damaged, no image, a bomb, or of another size; names the file and the record.
    """
    try:
        # Pillow warns of damage that harms nothing here.
        with warnings.catch_warnings(action="ignore"), open_image(io.BytesIO(data)) as image:
            size = image.size
            if size == (record.width, record.height):
                # An eighth of a JPEG's size costs a fraction of decoding it and still reads the file to its end.
                image.draft(None, (max(1, size[0] // 8), max(1, size[1] // 8)))
                image.load()
    except ImageBombError as error:
        raise DataError(error.what, file=file, record=name, remedy=error.remedy) from error
    except Exception as error:  # a parser may raise anything on a damaged file
        raise _explain(file, name, error, kinds) from error
    if size != (record.width, record.height):
        what = f"the image has {size[0]} × {size[1]} pixels, the annotations say {record.width} × {record.height}"
        orientation = find_orientation(data)
        if orientation >= _FIRST_QUARTER_TURN and size == (record.height, record.width):
            what += (
                f" because its EXIF orientation mark, {orientation}, is to turn it: turn the pixels and remove the "
                "mark, as igvg takes images as they are stored"
            )
        raise DataError(what, file=file, record=name)


def _explain(file: Path, name: str, error: Exception, kinds: Sequence[str]) -> DataError:
    unreadable = explain_unreadable(file, "an image", error, "", kinds=kinds, record=name)
    return DataError(unreadable.what, file=file, record=name)
