"""Images as Python programs hold them: a path, a PIL image, an array or a tensor, as RGB arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.data.image_decoding import read_image, to_rgb
from shards.errors import DataError

ImageInput = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
_CHANNELS = (1, 3, 4)
_REMEDY = "give (H, W, 3) or (3, H, W), uint8 in [0, 255] or floats in [0, 1]"


def load_image(image: ImageInput) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of an image.

    A file is turned upright by its EXIF orientation, as in `igvg predict --image`. A PIL image, an array and a tensor
    stay as they are: their sizes are those that the caller knows.

    Args:
        image: a path; a PIL image of any mode; an array or tensor (H, W), (H, W, C) or (C, H, W) of 1, 3 or 4 channels,
            uint8 or bool, or floats in [0, 1]. A fourth channel (alpha) is left out.

    Raises:
        DataError: the file is missing or no image, or the array has another shape, type or range.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, Tensor):
        return _from_array(image.detach().cpu().numpy(), channels_first=True)
    if isinstance(image, np.ndarray):
        return _from_array(image, channels_first=False)
    raise DataError(
        f"an image is of type {type(image).__name__}", remedy="give a path, a PIL image, an array or a tensor"
    )


def list_batch(images: ImageInput | Sequence[ImageInput]) -> list[ImageInput]:
    """The images of a batch: of a list, or of an array or tensor of four dimensions; one image is a batch of one."""
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    return [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)


def _from_array(array: NDArray[Any], *, channels_first: bool) -> NDArray[np.uint8]:
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise DataError(f"an image has the shape {array.shape}", remedy=_REMEDY)
    axes = [axis for axis in ((0, -1) if channels_first else (-1, 0)) if pixels.shape[axis] in _CHANNELS]
    if array.ndim == 2:
        axes = [-1]
    if not axes:
        raise DataError(f"an image has the shape {array.shape}, without 1, 3 or 4 channels", remedy=_REMEDY)
    pixels = np.moveaxis(pixels, axes[0], -1)[..., :3]
    return np.ascontiguousarray(np.broadcast_to(_to_bytes(pixels), (*pixels.shape[:2], 3)))


def _to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(f"an image holds {pixels.dtype}", remedy=_REMEDY)
    # NaN fails both comparisons.
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise DataError(f"an image holds floats from {pixels.min()} to {pixels.max()}", remedy=_REMEDY)
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)
