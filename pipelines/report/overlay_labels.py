"""Places for the labels of instances: inside the canvas, and not over each other where there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

_MAX_STEPS = 40


def place_labels(
    anchors: Sequence[Rectangle], sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
) -> list[tuple[int, int]]:
    """The upper left corner of each label.

    A label stands above its anchor's upper left corner, or else at another corner, outside or inside; the first place
    that overlaps no earlier label is taken. Where all of them overlap, it moves up or down by its own height, and where
    that does not help either, it takes the place with the least overlap.

    Args:
        anchors: what each label is for, e.g. a box.
        sizes: width and height of each label.
        canvas: width and height.
    """
    placed = np.zeros((len(anchors), 4))
    for index, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        corners = _list_places(anchor, size, canvas).clip(0, np.maximum(0, np.subtract(canvas, size)))
        places = np.concatenate((corners, corners + size), axis=1)
        earlier = placed[:index]
        near = (earlier[:, 2] > places[:, 0].min()) & (earlier[:, 0] < places[:, 2].max())
        overlaps = _intersect(places, earlier[near])
        placed[index] = places[overlaps.argmin()]
    return [(round(x), round(y)) for x, y in placed[:, :2].tolist()]


def _list_places(anchor: Rectangle, size: tuple[int, int], canvas: tuple[int, int]) -> NDArray[np.float64]:
    """Corners (K, 2) to try, best first."""
    x0, y0, x1, y1 = anchor
    width, height = size
    fits_outside = [(y0 - height, y0 >= height), (y1, y1 + height <= canvas[1])]
    outside = [(x, y) for y, fits in fits_outside if fits for x in (x0, x1 - width)]
    inside = [(x, y) for y in (y0, y1 - height) for x in (x0, x1 - width)]
    moved = [(x0, y0 + sign * step * height) for step in range(1, _MAX_STEPS) for sign in (1, -1)]
    return np.array([*outside, *inside, *moved])


def _intersect(places: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area (K,) that each place (K, 4) has in common with the others (M, 4)."""
    low = np.maximum(places[:, None, :2], others[None, :, :2])
    high = np.minimum(places[:, None, 2:], others[None, :, 2:])
    areas: NDArray[np.float64] = (high - low).clip(0).prod(axis=2).sum(axis=1)
    return areas
