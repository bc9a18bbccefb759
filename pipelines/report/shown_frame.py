"""From pixels of an original image, and from the network's square, to pixels of the image that a report shows.

Letters: H, W the original's size; S side of the network's square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shards.masks import encode_mask, nearest_indices, resize_mask
from shards.record import Rle


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFrame:
    """The sizes of an original image and of the one that is shown."""

    height: int
    """H, in pixels."""
    width: int
    """W, in pixels."""
    shown_height: int
    shown_width: int

    def scale_coordinates(self, values: ArrayLike) -> list[list[float]]:
        """Rows of x, y or x0, y0, x1, y1 of the original as rows of the shown image, to a hundredth of a pixel."""
        rows = np.asarray(values, dtype=np.float64)
        if not rows.size:
            return []
        factors = np.array([self.shown_width / self.width, self.shown_height / self.height])
        scaled: list[list[float]] = (rows * np.tile(factors, rows.shape[1] // 2)).round(2).tolist()
        return scaled

    def scale_mask(self, mask: Rle) -> Rle:
        """A mask (H, W) of the original at the size of the shown image, by nearest neighbors."""
        if (self.shown_height, self.shown_width) == (self.height, self.width):
            return mask
        return resize_mask(mask, self.shown_height, self.shown_width)

    def encode_square(self, square: NDArray[np.bool_]) -> Rle:
        """A mask (S, S) of the network's image, first resized to the original as post-processing does."""
        rows, columns = (
            nearest_indices(len(square), length)[nearest_indices(length, shown)]
            for length, shown in ((self.height, self.shown_height), (self.width, self.shown_width))
        )
        return encode_mask(square[:, columns][rows])


def round_scores(scores: Sequence[float]) -> list[float]:
    """Scores to four digits after the point."""
    return [round(float(score), 4) for score in scores]
