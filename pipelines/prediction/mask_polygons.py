"""Masks as polygons along the edges of their pixels: no pixel is lost, and holes stay.

Coordinates are those of pixel corners, as in COCO: pixel (row, column) is the square from (column, row) to
(column + 1, row + 1).

Letters: H height, W width, N points of a polygon; x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Points = NDArray[np.int64]
"""(N, 2): x, y."""


def mask_to_polygons(mask: NDArray[np.bool_]) -> list[Points]:
    """One polygon for each part of a mask (H, W), in the order of the parts' first pixels.

    Pixels that touch at a corner only belong to different parts. A hole is joined to the outline of its part by a cut
    without width: the polygon runs to the hole, around it, and back along the same line. Filled by the even-odd or the
    nonzero rule, as pycocotools does, the polygons cover exactly the pixels of the mask.
    """
    labels, _ = ndimage.label(mask)
    polygons: dict[int, Points] = {}
    for points in _trace_boundaries(mask):
        label = int(labels[_find_pixel(points)])
        # The first boundary of a part is its outline, those after it are its holes.
        polygons[label] = _join_hole(polygons[label], points) if label in polygons else points
    return list(polygons.values())


def _trace_boundaries(mask: NDArray[np.bool_]) -> Iterator[Points]:
    """The closed boundaries of a mask, the mask on their right: outlines run clockwise, those of holes do not.

    They are in the order of their topmost segments. Points are corners alone; the first segment is horizontal.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    # A horizontal segment runs to the right (1) where the mask is below it, a vertical one down (1) where it is on the
    # left. By start and direction: the end.
    horizontal = {((start, y), way): (end, y) for y, start, end, way in _list_runs(np.diff(padded, axis=0)[:, 1:-1])}
    vertical = {((x, start), way): (x, end) for x, start, end, way in _list_runs(-np.diff(padded, axis=1)[1:-1].T)}
    seen: set[tuple[tuple[int, int], int]] = set()
    for first in horizontal:
        points: list[tuple[int, int]] = []
        segment = first
        while segment not in seen:
            seen.add(segment)
            start, way = segment
            corner = horizontal[segment]
            points += [start, corner]
            # Where two segments begin, the boundary turns right, around the same pixel.
            down = way if (corner, way) in vertical else -way
            corner = vertical[corner, down]
            segment = (corner, -down) if (corner, -down) in horizontal else (corner, down)
        if points:
            yield np.array(points, dtype=np.int64)


def _list_runs(edges: NDArray[np.int8]) -> Iterator[tuple[int, int, int, int]]:
    """The runs of equal, nonzero values in rows: row, start, end and value; a run of -1 starts at its higher end."""
    padded = np.pad(edges, ((0, 0), (1, 1)))
    here = padded[:, 1:-1] != 0
    rows, starts = np.nonzero(here & (padded[:, 1:-1] != padded[:, :-2]))
    ends = np.nonzero(here & (padded[:, 1:-1] != padded[:, 2:]))[1] + 1
    values = edges[rows, starts]
    firsts, lasts = np.where(values > 0, starts, ends), np.where(values > 0, ends, starts)
    yield from zip(rows.tolist(), firsts.tolist(), lasts.tolist(), values.tolist(), strict=True)


def _find_pixel(points: Points) -> tuple[int, int]:
    """The row and column of a pixel of the mask at the first segment of a boundary."""
    (x, y), (next_x, _) = points[0].tolist(), points[1].tolist()
    return (y, x) if next_x > x else (y - 1, next_x)


def _join_hole(outline: Points, hole: Points) -> Points:
    """The outline with a way from its nearest point to the first point of a hole, around it, and back."""
    nearest = int(((outline - hole[0]) ** 2).sum(axis=1).argmin())
    return np.concatenate([outline[: nearest + 1], hole, hole[:1], outline[nearest:]])
