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
# Sums of two levels (9 bits) times weights of so many bits are integers of 16 bits.
_EXACT_BITS = 6


@dataclass(frozen=True, slots=True, eq=False)
class _Mixing:
    """How the pixels of one side are mixed: (size,) two neighbors and their weights, as torch's kernel has them."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]
    low_units: NDArray[np.uint16]
    """(size, 1) the weights in units of 1 / 2^6, if `exact`."""
    high_units: NDArray[np.uint16]
    exact: bool


class _Buffers(threading.local):
    """Memory of one thread, used again for the next image: fresh memory costs more than the arithmetic."""

    length, size = 0, 0

    def prepare(self, length: int, size: int) -> None:
        if length > self.length or size != self.size:
            self.length, self.size = length, size
            self.sums, self.carry = (np.empty((length, size), dtype=np.uint16) for _ in range(2))
            self.levels = np.empty((length, size), dtype=np.float32)
            self.first, self.second, self.mixed = (np.empty((size, size), dtype=np.float32) for _ in range(3))
            self.low, self.high = (np.empty((size, size), dtype=np.uint16) for _ in range(2))
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
    _buffers.prepare(length, size)
    mixing = _find_mixing(length, size)
    resized = np.empty((size, size, 3), dtype=np.uint8)
    for channel, plane in enumerate(planes):
        # (length, size): what is mixed along its rows.
        sums = _add_columns(plane) if by_columns else _add_rows(plane)
        mixed = _mix_integers(sums, mixing) if mixing.exact else _mix_floats(sums, mixing, plane, by_columns)
        resized[..., channel] = mixed if by_columns else mixed.T
    return resized


def _add_columns(plane: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(H, W) → (H, W / 2), the sums of neighboring columns."""
    sums, carry = _buffers.sums[: len(plane)], _buffers.carry[: len(plane)]
    pairs = plane.view(np.uint16)
    np.bitwise_and(pairs, 255, out=sums)
    np.right_shift(pairs, 8, out=carry)
    return np.add(sums, carry, out=sums)


def _add_rows(plane: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(H, W) → (W, H / 2), the sums of neighboring rows, as columns."""
    height, width = plane.shape
    sums, turned = _buffers.sums[:width], _buffers.carry[:width]
    np.add(plane[::2], plane[1::2], out=sums.reshape(height // 2, width), dtype=np.uint16)
    np.copyto(turned, sums.reshape(height // 2, width).T)
    return turned


def _mix_integers(sums: NDArray[np.uint16], mixing: _Mixing) -> NDArray[np.uint8]:
    """(L, S) sums of two levels → (S, S) levels mixed along rows, where 16 bits hold every product."""
    low, high = _buffers.low, _buffers.high
    np.take(sums, mixing.low, axis=0, out=low, mode="clip")
    np.take(sums, mixing.high, axis=0, out=high, mode="clip")
    np.multiply(low, mixing.low_units, out=low)
    np.multiply(high, mixing.high_units, out=high)
    np.add(low, high, out=low)
    # The level is low / 2^(bits + 1): rounded to the nearest integer, and to the even one in the middle.
    shift = _EXACT_BITS + 1
    np.right_shift(low, shift, out=high)
    np.bitwise_and(high, 1, out=high)
    np.add(low, high, out=low)
    np.add(low, (1 << (shift - 1)) - 1, out=low)
    np.right_shift(low, shift, out=low)
    np.copyto(_buffers.bytes, low, casting="unsafe")
    return _buffers.bytes


def _mix_floats(
    sums: NDArray[np.uint16], mixing: _Mixing, plane: NDArray[np.uint8], by_columns: bool
) -> NDArray[np.uint8]:
    """(L, S) sums of two levels of `plane` → (S, S) levels mixed along rows."""
    size = len(mixing.low)
    levels = torch.from_numpy(_buffers.levels[: len(sums)])
    first, second, mixed = map(torch.from_numpy, (_buffers.first, _buffers.second, _buffers.mixed))
    np.copyto(levels.numpy(), sums)
    torch.index_select(levels, 0, torch.from_numpy(mixing.low), out=first)
    torch.index_select(levels, 0, torch.from_numpy(mixing.high), out=second)
    torch.lerp(first, second, torch.from_numpy(mixing.high_weight[:, None]), out=mixed)
    mixed *= 0.5
    rounded = torch.round(mixed, out=first)
    distances = torch.sub(mixed, rounded, out=second).abs_()
    ties = np.flatnonzero(distances.numpy().ravel() > 0.5 - _TIE_WIDTH)
    along, across = np.divmod(ties, size)
    rows, columns = (along, across) if by_columns else (across, along)
    rounded.numpy().ravel()[ties] = np.rint(_repeat_kernel(plane, rows, columns, size))
    np.copyto(_buffers.bytes, rounded.numpy(), casting="unsafe")
    return _buffers.bytes


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
    low_weight = weights[positions, low].numpy()
    high_weight = torch.where(high > low, weights[positions, high], 0.0).numpy()
    units = [(weight * 2**_EXACT_BITS).round().astype(np.uint16)[:, None] for weight in (low_weight, high_weight)]
    exact = all(
        np.array_equal(unit[:, 0], weight * 2**_EXACT_BITS)
        for unit, weight in zip(units, (low_weight, high_weight), strict=True)
    )
    low_units, high_units = units
    return _Mixing(low.numpy(), high.numpy(), low_weight, high_weight, low_units, high_units, exact)
