"""Masks to polygons along the edges of their pixels, as COCO's annotations hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]


def mask_to_polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Flat [x, y, x, y, …] polygons around the parts of a mask (H, W) without holes.

    Raises:
        ValueError: the mask has a hole, which COCO's polygons cannot express.
    """
    next_points = _find_boundary_edges(mask)
    polygons = []
    while next_points:
        start = next(iter(next_points))
        loop: list[Point] = []
        point, direction = start, (0, 0)
        while not loop or point != start:
            following = _take_next_edge(next_points, point, direction)
            step = (following[0] - point[0], following[1] - point[1])
            if step != direction:
                loop.append(point)
            point, direction = following, step
        polygons.append(loop)
    if any(_doubled_signed_area(polygon) < 0 for polygon in polygons):
        raise ValueError("the mask has a hole")
    return [[float(value) for point in polygon for value in point] for polygon in polygons]


def _find_boundary_edges(mask: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Start point → end points of the unit edges around the mask, which lies on their right (y points down)."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    next_points: dict[Point, list[Point]] = {}
    for neighbor, (x0, y0), (x1, y1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        rows, columns = np.nonzero(inside & ~neighbor)
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            next_points.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return next_points


def _take_next_edge(next_points: dict[Point, list[Point]], point: Point, direction: Point) -> Point:
    """The end of the next edge, which is removed; where two parts touch at a corner, the edge of the same part."""
    ends = next_points[point]
    right = (point[0] - direction[1], point[1] + direction[0])
    following = right if right in ends else ends[0]
    ends.remove(following)
    if not ends:
        del next_points[point]
    return following


def _doubled_signed_area(polygon: list[Point]) -> int:
    """Twice the signed area; positive with the inside on the right (y points down)."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True))
