"""Places for the labels of instances: inside the canvas, and not over each other where there is room."""

from __future__ import annotations

from collections.abc import Sequence

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
    placed: list[Rectangle] = []
    corners = []
    for anchor, (width, height) in zip(anchors, sizes, strict=True):
        best, least = (0.0, 0.0), float("inf")
        for corner in _list_places(anchor, (width, height), canvas):
            rectangle = (*corner, corner[0] + width, corner[1] + height)
            overlap = sum(_intersect(rectangle, other) for other in placed)
            if overlap < least:
                best, least = corner, overlap
            if not overlap:
                break
        placed.append((*best, best[0] + width, best[1] + height))
        corners.append((round(best[0]), round(best[1])))
    return corners


def _list_places(anchor: Rectangle, size: tuple[int, int], canvas: tuple[int, int]) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = anchor
    width, height = size
    fits_outside = [(y0 - height, y0 >= height), (y1, y1 + height <= canvas[1])]
    outside = [(x, y) for y, fits in fits_outside if fits for x in (x0, x1 - width)]
    inside = [(x, y) for y in (y0, y1 - height) for x in (x0, x1 - width)]
    moved = [(x0, y0 + sign * step * height) for step in range(1, _MAX_STEPS) for sign in (1, -1)]
    return [
        (min(max(x, 0), max(0, canvas[0] - width)), min(max(y, 0), max(0, canvas[1] - height)))
        for x, y in (*outside, *inside, *moved)
    ]


def _intersect(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
