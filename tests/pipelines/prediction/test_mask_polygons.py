"""Polygons of masks cover exactly their pixels, as pycocotools fills them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.prediction.mask_polygons import mask_to_polygons
from shards.masks import decode_mask, encode_segmentation


def fill(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The polygons of a mask, filled by pycocotools."""
    polygons = [points.ravel().tolist() for points in mask_to_polygons(mask)]
    return decode_mask(encode_segmentation(polygons, *mask.shape))


def draw(*ellipses: tuple[int, int, int, int], holes: tuple[tuple[int, int, int, int], ...] = ()) -> NDArray[np.bool_]:
    image = Image.new("1", (160, 120))
    for box in ellipses:
        ImageDraw.Draw(image).ellipse(box, fill=1)
    for box in holes:
        ImageDraw.Draw(image).ellipse(box, fill=0)
    return np.asarray(image)


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(deadline=None, max_examples=500)
def test_any_mask_comes_back_to_the_pixel(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(fill(mask), mask)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_masks_of_noise_come_back_to_the_pixel(density: float) -> None:
    mask = np.random.default_rng(1).random((90, 130)) < density
    assert np.array_equal(fill(mask), mask)


@pytest.mark.parametrize(
    "mask",
    [
        draw((20, 20, 120, 110)),
        draw((5, 5, 60, 60), (90, 30, 150, 115)),
        draw((10, 10, 150, 110), holes=((30, 30, 60, 60), (80, 40, 130, 90))),
        np.zeros((5, 7), dtype=bool),
        np.ones((5, 7), dtype=bool),
    ],
    ids=["a part", "two parts", "two holes", "nothing", "everything"],
)
def test_parts_and_holes_come_back_to_the_pixel(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(fill(mask), mask)


def test_there_is_one_polygon_for_each_part_with_its_holes_inside() -> None:
    assert len(mask_to_polygons(draw((5, 5, 60, 60), (90, 30, 150, 115), holes=((20, 20, 40, 40),)))) == 2
    assert mask_to_polygons(np.zeros((5, 7), dtype=bool)) == []
    corner = np.array([[1, 0], [0, 1]], dtype=bool)
    assert [points.tolist() for points in mask_to_polygons(corner)] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]


def test_points_are_corners_of_pixels_and_lie_on_no_straight_line() -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[1:5, 2:8] = True
    assert [points.tolist() for points in mask_to_polygons(mask)] == [[[2, 1], [8, 1], [8, 5], [2, 5]]]


def test_a_hole_is_cut_open_and_the_cut_has_no_width() -> None:
    mask = np.ones((5, 5), dtype=bool)
    mask[2, 2] = False
    (points,) = mask_to_polygons(mask)
    way = points.tolist()
    assert len(way) == 4 + 4 + 2
    assert sum(way.count(point) == 2 for point in way) == 4
