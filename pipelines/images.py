"""Pictures on their way into the network: decoded, resized, normalised; and masks brought to the same frame.

A picture is stretched to a square without keeping its ratio, by bilinear interpolation between pixel centres without
smoothing, as the published pipeline does; so a point (x, y) of the square in [0, 1] is (x × width, y × height) of the
original.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from shards.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
# What Pillow raises on files that are cut short, corrupt or absurdly large.
_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def decode_picture(data: bytes, name: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of an image file's bytes, as stored (a camera's rotation mark is ignored, as in annotations).

    Raises:
        DataError: the bytes are no picture, or only part of one.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError("not a picture", file=name) from error
    except _BROKEN as error:
        raise DataError(f"not a readable picture ({error})", file=name) from error


def read_picture(file: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of somebody's own picture, upright (a camera's rotation mark is obeyed).

    Raises:
        DataError: the file is missing, no picture, or only part of one.
    """
    try:
        with Image.open(file) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError("not a picture", file=file, remedy="give a JPEG or PNG file") from error
    except _BROKEN as error:
        raise DataError(f"not a readable picture ({error})", file=file, remedy="give a JPEG or PNG file") from error


def resize_picture(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) → (size, size, 3), bilinear between pixel centres, rounded to whole levels."""
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).round_().to(torch.uint8).contiguous().numpy()


def normalize_pictures(pictures: Tensor) -> Tensor:
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
