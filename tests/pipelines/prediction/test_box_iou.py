"""Overlap of boxes: worked out by hand, and against counted pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given

from pipelines.prediction.box_iou import box_iou, generalized_box_iou
from tests.support.drawn_boxes import IOUS, SQUARE, Box, BoxIou, box_lists, stack


@pytest.mark.parametrize(
    ("other", "iou", "giou"),
    [
        (SQUARE, 1, 1),
        ((5, 0, 15, 10), 1 / 3, 1 / 3),  # the enclosing box 15 × 10 holds nothing else
        ((5, 5, 15, 15), 25 / 175, 25 / 175 - 50 / 225),
        ((10, 0, 20, 10), 0, 0),  # side by side
        ((10, 10, 20, 20), 0, -200 / 400),  # corner to corner
        ((2, 2, 4, 4), 0.04, 0.04),  # inside
        ((90, 0, 100, 10), 0, -800 / 1000),
        ((3, 3, 3, 3), 0, 0),  # no area, inside
        ((3, 3, 3, 8), 0, 0),
    ],
)
def test_overlap_of_two_boxes(other: tuple[float, ...], iou: float, giou: float) -> None:
    pair = stack(SQUARE), np.array([other], dtype=np.float64)
    assert box_iou(*pair)[0, 0] == pytest.approx(iou)
    assert generalized_box_iou(*pair)[0, 0] == pytest.approx(giou)


@pytest.mark.parametrize("iou", IOUS)
def test_equal_boxes_without_area_overlap_by_zero(iou: BoxIou) -> None:
    assert iou(stack((3, 3, 3, 3)), stack((3, 3, 3, 3)))[0, 0] == 0


@pytest.mark.parametrize("iou", IOUS)
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 2), (3, 0)])
def test_without_boxes_the_table_is_empty(iou: BoxIou, rows: int, columns: int) -> None:
    assert iou(stack(*[SQUARE] * rows), stack(*[SQUARE] * columns)).shape == (rows, columns)


@given(box_lists, box_lists)
def test_overlap_agrees_with_counted_pixels(first: list[Box], second: list[Box]) -> None:
    iou, giou = (overlap(stack(*first), stack(*second)) for overlap in IOUS)
    for (row, one), (column, two) in itertools.product(enumerate(first), enumerate(second)):
        canvas = np.zeros((2, 6, 6), dtype=bool)
        for layer, (x0, y0, x1, y1) in zip(canvas, (one, two), strict=True):
            layer[y0:y1, x0:x1] = True
        intersection, union = int(canvas.all(axis=0).sum()), int(canvas.any(axis=0).sum())
        hull = (max(one[2], two[2]) - min(one[0], two[0])) * (max(one[3], two[3]) - min(one[1], two[1]))
        expected = intersection / union if union else 0.0
        assert iou[row, column] == pytest.approx(expected)
        assert giou[row, column] == pytest.approx(expected - ((hull - union) / hull if hull else 0))
