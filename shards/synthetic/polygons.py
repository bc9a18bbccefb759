"""Masks as polygons along their pixels' edges, the form in which COCO's layout wants them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]


def trace_outlines(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Flat [x, y, x, y, …] polygons around the parts of a mask (H, W) without holes.

    Raises:
        ValueError: the mask has a hole, which COCO's polygons cannot say.
    """
    ahead = _direct_edges(mask)
    polygons = []
    while ahead:
        start = next(iter(ahead))
        loop: list[Point] = []
        point, heading = start, (0, 0)
        while not loop or point != start:
            following = _turn(ahead, point, heading)
            step = (following[0] - point[0], following[1] - point[1])
            if step != heading:
                loop.append(point)
            point, heading = following, step
        polygons.append(loop)
    if any(_measure(polygon) < 0 for polygon in polygons):
        raise ValueError("the mask has a hole")
    return [[float(value) for point in polygon for value in point] for polygon in polygons]


def _direct_edges(mask: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Start → ends of the unit edges between inside and outside, the inside on their right (y points down)."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    ahead: dict[Point, list[Point]] = {}
    for neighbor, (x0, y0), (x1, y1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        rows, columns = np.nonzero(inside & ~neighbor)
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            ahead.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return ahead


def _turn(ahead: dict[Point, list[Point]], point: Point, heading: Point) -> Point:
    """Take the next edge; where two parts touch at a corner, turn right and stay with this part."""
    ends = ahead[point]
    right = (point[0] - heading[1], point[1] + heading[0])
    following = right if right in ends else ends[0]
    ends.remove(following)
    if not ends:
        del ahead[point]
    return following


def _measure(polygon: list[Point]) -> int:
    """Twice the signed area; positive with the inside on the right (y points down)."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True))
