"""Image files of any format and bit depth as RGB arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from shards.errors import DataError
from shards.exif import read_orientation
from shards.file_kinds import describe_bytes, explain_unreadable
from shards.image_formats import IMAGE_FORMATS, ImageBombError, open_image
from shards.record import LONGEST_SIDE

ResultT = TypeVar("ResultT")

_REMEDY = "give an image file, e.g. JPEG or PNG, that other programs show"
_REDUCE = "reduce the image"
# EXIF orientation → the view that turns the pixels upright.
_TURNS: dict[int, Callable[[NDArray[np.void]], NDArray[np.void]]] = {
    2: lambda pixels: pixels[:, ::-1], 3: lambda pixels: pixels[::-1, ::-1], 4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1), 6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1), 8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}  # fmt: skip
# Pillow opens 16-bit images of these formats in a mode of 32 bits.
_SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})
_BITS_PER_SAMPLE = 258
# Images are converted this many pixels at a time, so that a large one is in memory twice at most.
_STRIP_PIXELS = 1 << 22
_TILE = 64
_INTACT = frozenset({"PNG", "JPEG", "GIF", "TIFF", "WebP"})


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """The RGB pixels (H, W, 3) of an image file's bytes, as stored: annotations ignore the EXIF orientation, too.

    Raises:
        DataError: the bytes are not an image, or are damaged; begins with `name`.
    """
    return decode_with(data, name, to_rgb)


def read_image(file: Path) -> NDArray[np.uint8]:
    """The RGB pixels (H, W, 3) of an image file, turned upright by its EXIF orientation.

    Raises:
        DataError: the file is missing, not an image, or damaged.
    """
    return inspect_image(file)[0]


def inspect_image(file: Path) -> tuple[NDArray[np.uint8], str]:
    """As `read_image`; and a remark where the EXIF block is damaged, which does not affect the pixels, else "".

    Raises:
        DataError: as `read_image`.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise explain_unreadable(file, "an image", error, _REMEDY) from error
    return _decode_upright(data, file)


def decode_upright(data: bytes, name: str, formats: tuple[str, ...] = IMAGE_FORMATS) -> NDArray[np.uint8]:
    """The RGB pixels (H, W, 3) of an image file's bytes, turned upright by its EXIF orientation.

    Args:
        data: the bytes.
        name: what errors begin with.
        formats: Pillow's names of the formats to read.

    Raises:
        DataError: the bytes are not an image of such a format, or are damaged.
    """
    return _decode_upright(data, name, formats=formats)[0]


def decode_with(
    data: bytes, file: str | Path, read: Callable[[Image.Image], ResultT], *, formats: tuple[str, ...] = IMAGE_FORMATS
) -> ResultT:
    """What `read` makes of the first frame or page of an image file's bytes.

    Args:
        data: the bytes.
        file: what errors begin with.
        read: takes the opened image, and may decode it.
        formats: Pillow's names of the formats to read.

    Raises:
        DataError: the bytes are not an image of such a format, or are damaged, or `read` failed.
    """
    try:
        # Pillow's warnings are harmless, or reported here as errors.
        with warnings.catch_warnings(action="ignore"), open_image(io.BytesIO(data), formats) as image:
            return read(image)
    except ImageBombError as error:
        raise DataError(error.what, file=file, remedy=error.remedy) from error
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise _explain(data, file, error) from error


def _decode_upright(
    data: bytes, file: str | Path, *, formats: tuple[str, ...] = IMAGE_FORMATS
) -> tuple[NDArray[np.uint8], str]:
    """The pixels (H, W, 3) of the first frame or page, turned upright, and a remark on the EXIF block."""

    def read(image: Image.Image) -> tuple[NDArray[np.uint8], int, str]:
        if max(image.size) > LONGEST_SIDE:
            width, height = image.size
            what = f"has {width} × {height} pixels, more than {LONGEST_SIDE} in one direction"
            raise DataError(what, file=file, remedy=_REDUCE)
        value, damage = read_orientation(image)
        return to_rgb(image), value, damage

    # Only here the image that Pillow decoded is freed.
    pixels, value, damage = decode_with(data, file, read, formats=formats)
    turned = _turn(pixels, value) if value in _TURNS else pixels
    return turned, damage and f"{file}: its EXIF block is damaged ({damage})"


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) turned upright.

    Tile by tile, and three bytes at once: rows of the result are columns in memory, which caches do not hold.
    """
    view = _TURNS[orientation](pixels.view("V3")[..., 0])
    turned = np.empty(view.shape, dtype="V3")
    for top in range(0, view.shape[0], _TILE):
        for left in range(0, view.shape[1], _TILE):
            tile = slice(top, top + _TILE), slice(left, left + _TILE)
            turned[tile] = view[tile]
    return turned.view(np.uint8).reshape(*view.shape, 3)


def _explain(data: bytes, file: str | Path, error: Exception) -> DataError:
    content = describe_bytes(data[:4096], len(data))
    if content is not None and content.kind not in _INTACT:
        return DataError(f"is {content.words}, not an image", file=file, remedy=content.remedy or _REMEDY)
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        if content is None:
            return DataError("is not an image, or of an unknown format", file=file, remedy=_REMEDY)
        reason = f"it begins as {content.words}, and is damaged or cut short"
    return DataError(f"is not a readable image ({reason})", file=file, remedy=_REMEDY)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of an image of any mode.

    8 bits stay as they are; alpha is left out, and the colors beneath it show. 16 bits are divided by 257, but Pillow
    itself gives 16 bits of several channels as their upper 8. Integers and floats of 32 bits have no fixed white level:
    it is the least of 1 (floats only), 255 and 65535 that is not below the largest value. Images with larger or
    negative values are scaled from their own lowest value (black) to their highest (white).

    Raises:
        ValueError: it holds floats that are not finite.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _scale_to_bytes(image)
    if image.width * image.height <= _STRIP_PIXELS:
        return np.asarray(image.convert("RGB"))
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows, strip in _split_rows(image):
        pixels[rows] = np.asarray(strip.convert("RGB"))
    return pixels


def _scale_to_bytes(image: Image.Image) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of a gray image of 16 or 32 bits."""
    ranges = []
    for _, strip in _split_rows(image):
        values = np.asarray(strip)
        if not np.isfinite(values).all():
            raise ValueError("it holds pixels that are not finite numbers; save it with 8 bits")
        ranges.append((float(values.min()), float(values.max())))
    white = _find_white_level(image)
    black, lowest, highest = 0.0, min(low for low, _ in ranges), max(high for _, high in ranges)
    if white is None:
        whites = [white for white in (1.0, 255.0, 65535.0)[image.mode != "F" :] if highest <= white]
        black, white = (0.0, whites[0]) if lowest >= 0 and whites else (lowest, highest)
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows, strip in _split_rows(image):
        # float32 would lose small differences between large values.
        exact: NDArray[np.floating[Any]] = np.asarray(strip).astype(np.float64 if white > 65535 else np.float32)
        fractions = (exact - black) / max(white - black, 1e-30)
        pixels[rows] = np.rint(fractions * 255).astype(np.uint8)[..., None]
    return pixels


def _split_rows(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The image in strips of whole rows."""
    step = max(1, _STRIP_PIXELS // image.width)
    if step >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _find_white_level(image: Image.Image) -> float | None:
    """The white level, if mode and format determine it."""
    if image.mode == "F" or (image.mode == "I" and image.format not in _SIXTEEN_BIT_FORMATS):
        return None
    # TIFF also has 12 bits.
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 16)
    bits = bits[0] if isinstance(bits, tuple) else bits
    return float(2**bits - 1) if isinstance(bits, int) and 8 < bits <= 16 else 65535.0
