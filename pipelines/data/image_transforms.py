"""Images and target masks at the size of the network.

An image is stretched to a square without keeping its aspect ratio, by bilinear interpolation between pixel centers
without antialiasing, as in the published pipeline. So the point (x, y) of the square in [0, 1] is the point
(x × width, y × height) of the original.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from shards.masks import nearest_indices

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""ImageNet's mean of R, G, B in [0, 255]."""
PIXEL_STD = (58.395, 57.12, 57.375)
"""ImageNet's standard deviation of R, G, B in [0, 255]."""
_MAX_FLOAT_PIXELS = 1 << 26


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) → (size, size, 3), bilinear between pixel centers, rounded.

    Images above 64 megapixels are not copied as floats: the few rows and columns that count are. A value that lies
    between two integers may then be rounded to the other one, about 1 of 100,000.
    """
    if image.shape[0] * image.shape[1] > _MAX_FLOAT_PIXELS:
        return _resize_large(image, size)
    # Large images are writable arrays of their own, and need no copy; PyTorch warns of arrays that are not.
    shared = image.flags.c_contiguous and image.flags.writeable
    tensor = torch.from_numpy(image) if shared else torch.tensor(image)
    pixels = tensor.permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).round_().to(torch.uint8).contiguous().numpy()


def _resize_large(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    top, bottom, weight_y = _interpolate_centers(image.shape[0], size)
    left, right, weight_x = _interpolate_centers(image.shape[1], size)
    upper, lower = (
        (1 - weight_x[:, None]) * rows[:, left].astype(np.float32)
        + weight_x[:, None] * rows[:, right].astype(np.float32)
        for rows in (image[top], image[bottom])
    )
    weight_y = weight_y[:, None, None]
    resized: NDArray[np.uint8] = np.rint((1 - weight_y) * upper + weight_y * lower).astype(np.uint8)
    return resized


def _interpolate_centers(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `new` pixels its two neighbors among `old` pixels, and the weight of the second."""
    positions = np.float32(old / new) * (np.arange(new, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    positions = positions.clip(0, old - 1)
    low = positions.astype(np.int64)
    return low, np.minimum(low + 1, old - 1), (positions - low).astype(np.float32)


def normalize_images(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32 with ImageNet's mean and deviation of each channel removed."""
    mean = torch.tensor(PIXEL_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(PIXEL_STD, device=images.device)[:, None, None]
    # The arithmetic is faster with channels first in memory.
    return (images.permute(0, 3, 1, 2).contiguous().float() - mean) / std


def mask_source_indices(length: int, image_size: int, mask_size: int) -> NDArray[np.int64]:
    """The row (or column) of an original mask for each row of a target mask, (mask_size,).

    The losses upsample mask logits with aligned corners, so row i of a target mask is row
    i × (image_size - 1) / (mask_size - 1) of the network's image, whose nearest original row is taken.

    Args:
        length: rows of the original.
        image_size: side of the network's image.
        mask_size: side of the target mask; `image_size` itself gives the plain nearest-neighbor resize.
    """
    rows = np.round(np.linspace(0, image_size - 1, mask_size)).astype(np.int64)
    return nearest_indices(length, image_size)[rows]
