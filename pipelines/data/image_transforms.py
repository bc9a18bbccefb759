"""Pictures on their way into the network: decoded, resized, normalised; and masks brought to the same frame.

A picture is stretched to a square without keeping its ratio, by bilinear interpolation between pixel centres without
smoothing, as the published pipeline does; so a point (x, y) of the square in [0, 1] is (x × width, y × height) of the
original.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from shards.errors import DataError
from shards.exif import read_orientation
from shards.file_kinds import describe_bytes, explain_unreadable
from shards.record import LONGEST_SIDE

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
REMEDY = "give an image file, e.g. JPEG or PNG, that other programs show"
# Orientation of EXIF → what turns the pixels upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
# Of these formats Pillow reads 16 bits as if they were 32.
_SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})
_BITS_PER_SAMPLE = 258
_SOUND = frozenset({"PNG", "JPEG", "GIF", "TIFF", "WebP"})


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of an image file's bytes, as stored (a camera's rotation mark is ignored, as in annotations).

    Raises:
        DataError: the bytes are no picture, or only part of one.
    """
    return _decode(data, name, upright=False)[0]


def read_image(file: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of somebody's own picture, upright (a camera's rotation mark is obeyed).

    Raises:
        DataError: the file is missing, no picture, or only part of one.
    """
    return inspect_image(file)[0]


def inspect_image(file: Path) -> tuple[NDArray[np.uint8], str]:
    """As `read_image`; and what is wrong with the file's EXIF block and does not matter to its pixels, or nothing.

    Raises:
        DataError: as `read_image`.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise explain_unreadable(file, "an image", error, REMEDY) from error
    return _decode(data, file, upright=True)


def _decode(data: bytes, file: str | Path, *, upright: bool) -> tuple[NDArray[np.uint8], str]:
    """Pixels (H, W, 3), of several frames or pages those of the first, and a remark on the EXIF block."""
    try:
        # Pillow's warnings would be lines of their own; what they warn of is said here, or harms nothing.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            if not upright:
                return convert_to_rgb(image), ""
            if max(image.size) > LONGEST_SIDE:
                width, height = image.size
                raise ValueError(f"it has {width} × {height} pixels, more than {LONGEST_SIDE} in one direction")
            value, damage = read_orientation(image)
            turned = image.transpose(_TURNS[value]) if value in _TURNS else image
            return convert_to_rgb(turned, image), damage and f"{file}: its EXIF block is damaged ({damage})"
    except Exception as error:  # whatever a parser raises on a stranger's file
        raise _explain(data, file, error) from error


def _explain(data: bytes, file: str | Path, error: Exception) -> DataError:
    content = describe_bytes(data[:4096], len(data))
    if content is not None and content.kind not in _SOUND:
        return DataError(f"is {content.words}, not an image", file=file, remedy=content.remedy or REMEDY)
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        if content is None:
            return DataError("is not an image, or of a format that is not known", file=file, remedy=REMEDY)
        reason = f"it begins as {content.words}, and is damaged or cut short"
    return DataError(f"is not a readable image ({reason})", file=file, remedy=REMEDY)


def convert_to_rgb(image: Image.Image, source: Image.Image | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB levels of an image of any mode.

    8 bits stay as they are. 16 bits are divided by 257. Integers and floats of 32 bits do not say what is white: it is
    the least of 1 (floats alone), 255 and 65535 that no value exceeds. Beyond, or with negative values, the image's own
    lowest value is black and its highest white.

    Args:
        image: loaded or not.
        source: the opened file, if `image` was derived from it.

    Raises:
        ValueError: it holds floats that are not finite.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("it holds pixels that are not finite numbers; save it with 8 bits")
    white = _find_white(image.mode, source or image)
    black, lowest, highest = 0.0, float(values.min()), float(values.max())
    if white is None:
        whites = [white for white in (1.0, 255.0, 65535.0)[image.mode != "F" :] if highest <= white]
        black, white = (0.0, whites[0]) if lowest >= 0 and whites else (lowest, highest)
    # Single precision would lose small differences between large values.
    exact: NDArray[np.floating[Any]] = values.astype(np.float64 if white > 65535 else np.float32)
    shares = (exact - black) / max(white - black, 1e-30)
    return np.repeat(np.rint(shares * 255).astype(np.uint8)[..., None], 3, axis=2)


def _find_white(mode: str, source: Image.Image) -> float | None:
    """The value of white where mode and format say it."""
    if mode == "F" or (mode == "I" and source.format not in _SIXTEEN_BIT_FORMATS):
        return None
    # TIFF knows 12 bits, too.
    bits = getattr(source, "tag_v2", {}).get(_BITS_PER_SAMPLE, 16)
    bits = bits[0] if isinstance(bits, tuple) else bits
    return float(2**bits - 1) if isinstance(bits, int) and 8 < bits <= 16 else 65535.0


def resize_image(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) → (size, size, 3), bilinear between pixel centres, rounded to whole levels."""
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).round_().to(torch.uint8).contiguous().numpy()


def normalize_images(pictures: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 levels → (B, 3, S, S) float32, zero mean and unit deviation per channel of ImageNet."""
    mean = torch.tensor(PIXEL_MEAN, device=pictures.device)[:, None, None]
    std = torch.tensor(PIXEL_STD, device=pictures.device)[:, None, None]
    # Channels first, so that the arithmetic runs along rows instead of threes.
    return (pictures.permute(0, 3, 1, 2).contiguous().float() - mean) / std


def sample_rows(length: int, size: int, cells: int) -> NDArray[np.int64]:
    """Source rows (or columns) of a mask for each cell of a decoder's side.

    Mask logits are upsampled with aligned corners, so cell i stands for pixel i × (size - 1) / (cells - 1) of the
    square, and the nearest original row of that pixel is floor(pixel × length / size).

    Args:
        length: rows of the original.
        size: side of the network's square.
        cells: side of the target; `size` itself gives the plain nearest-neighbour resize.
    """
    pixels = np.round(np.linspace(0, size - 1, cells)).astype(np.int64)
    return pixels * length // size
