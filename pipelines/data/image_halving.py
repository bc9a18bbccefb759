"""Resizing of images one of whose sides is exactly halved, to the same bits as `resize_image`, several times as fast.

Nearly all of COCO's images are 640 pixels wide or high, and networks take 320. Halving adds neighboring pixels, which
integers hold exactly; along the other side rows are mixed in float32.

NOTE: this order of sums is not that of torch's kernel, so the result may differ where the exact level lies next to the
middle between two integers. For these pixels, about 1 of 2,000, the kernel's arithmetic is repeated step by step. Where
that arithmetic is another one than here, on processors without AVX2 and perhaps in other versions of torch, images are
not halved but resized by torch: `can_halve` compares the two to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

# Both ways are off by 1e-4 at most.
_TIE_WIDTH = 2e-4
_MAX_SHRINKING = 8
# Levels times weights of so many bits are exact in float32: sums in any order are the same.
_EXACT_BITS = 12


@dataclass(frozen=True, slots=True, eq=False)
class _Mixing:
    """How the pixels of one side are mixed: (size,) two neighbors and their weights, as torch's kernel has them."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]
    exact: bool


class _Buffers(threading.local):
    """Memory of one thread, used again for the next image: fresh memory costs more than the arithmetic."""

    shape = (0, 0)

    def prepare(self, length: int, size: int) -> None:
        if self.shape != (length, size):
            self.shape = length, size
            self.sums, self.carry = (np.empty((length, size), dtype=np.uint16) for _ in range(2))
            self.levels = torch.empty(length, size)
            self.first, self.second, self.mixed = (torch.empty(size, size) for _ in range(3))
            self.bytes = np.empty((size, size), dtype=np.uint8)


_buffers = _Buffers()


def can_halve(height: int, width: int, size: int) -> bool:
    """Whether `resize_halved` takes an image of these sides."""
    sides = sorted((height, width))
    return 2 * size in sides and size <= sides[0] and sides[1] <= _MAX_SHRINKING * size and _knows_kernel()


def resize_halved(planes: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """Three channels (H, W) → (size, size, 3), as `resize_image` makes it of the same pixels (H, W, 3).

    Args:
        planes: contiguous; H and W are such that `can_halve` says yes.
        size: side of the result.
    """
    height, width = planes[0].shape
    by_columns = width == 2 * size
    length = height if by_columns else width
    mixing = _find_mixing(length, size)
    low, high, weight = map(torch.from_numpy, (mixing.low, mixing.high, mixing.high_weight[:, None]))
    _buffers.prepare(length, size)
    levels, first, second, mixed = _buffers.levels, _buffers.first, _buffers.second, _buffers.mixed
    resized = np.empty((size, size, 3), dtype=np.uint8)
    for channel, plane in enumerate(planes):
        # (length, size): what is mixed along its rows.
        np.copyto(levels.numpy(), _add_columns(plane) if by_columns else _add_rows(plane).T)
        torch.index_select(levels, 0, low, out=first)
        torch.index_select(levels, 0, high, out=second)
        torch.lerp(first, second, weight, out=mixed)
        mixed *= 0.5
        rounded = torch.round(mixed, out=first)
        if not mixing.exact:
            distances = torch.sub(mixed, rounded, out=second).abs_()
            ties = np.flatnonzero(distances.numpy().ravel() > 0.5 - _TIE_WIDTH)
            across, along = np.divmod(ties, size)
            rows, columns = (across, along) if by_columns else (along, across)
            rounded.numpy().ravel()[ties] = np.rint(_repeat_kernel(plane, rows, columns, size))
        np.copyto(_buffers.bytes, rounded.numpy(), casting="unsafe")
        resized[..., channel] = _buffers.bytes if by_columns else _buffers.bytes.T
    return resized


def _add_columns(plane: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(H, W) → (H, W / 2), the sums of neighboring columns."""
    pairs, sums, carry = plane.view(np.uint16), _buffers.sums, _buffers.carry
    np.bitwise_and(pairs, 255, out=sums)
    np.right_shift(pairs, 8, out=carry)
    return np.add(sums, carry, out=sums)


def _add_rows(plane: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(H, W) → (H / 2, W), the sums of neighboring rows."""
    sums = _buffers.sums.reshape(len(plane) // 2, plane.shape[1])
    return np.add(plane[::2], plane[1::2], out=sums, dtype=np.uint16)


def _repeat_kernel(
    plane: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    """The levels (N,) of pixels of the result as torch's kernel computes them, in float32 and with fused operations.

    It weighs four neighbors: the upper right one first, then the upper left, the lower left and the lower right.
    """
    down, across = (_find_mixing(side, size) for side in plane.shape)
    upper, lower = ((down.low[rows], down.low_weight[rows]), (down.high[rows], down.high_weight[rows]))
    left, right = (
        (across.low[columns], across.low_weight[columns]),
        (across.high[columns], across.high_weight[columns]),
    )
    level = np.zeros(len(rows), dtype=np.float32)
    for (row, row_weight), (column, column_weight) in ((upper, right), (upper, left), (lower, left), (lower, right)):
        # Products of a level and a weight are exact in float64, so that each step rounds once, as a fused one does.
        product = plane[row, column].astype(np.float64) * (row_weight * column_weight)
        level = (product + level).astype(np.float32)
    return level


@lru_cache(maxsize=1)
def _knows_kernel() -> bool:
    """Whether `_repeat_kernel` gives what torch's kernel gives, to the bit."""
    size, height, width = 30, 41, 60
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)[0].numpy()
    rows, columns = (places.ravel() for places in np.indices((size, size)))
    levels = [_repeat_kernel(plane, rows, columns, size) for plane in image.transpose(2, 0, 1)]
    return np.array_equal(np.stack(levels), expected.reshape(3, -1))


@lru_cache(maxsize=256)
def _find_mixing(length: int, size: int) -> _Mixing:
    # The kernel's own neighbors and weights: what it makes of images that are 1 at one pixel.
    weights = F.interpolate(torch.eye(length)[None, :, :, None], size=(size, 1), mode="bilinear", align_corners=False)
    weights = weights[0, :, :, 0].T
    low = (weights > 0).int().argmax(dim=1)
    high = (low + 1).clamp(max=length - 1)
    positions = torch.arange(size)
    low_weight = weights[positions, low]
    high_weight = torch.where(high > low, weights[positions, high], 0.0)
    scaled = high_weight * 2**_EXACT_BITS
    return _Mixing(
        low.numpy(), high.numpy(), low_weight.numpy(), high_weight.numpy(), exact=bool((scaled == scaled.round()).all())
    )
