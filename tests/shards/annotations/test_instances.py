"""Published outlines become masks and boxes; those that cover no pixel are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from shards.annotations.instances import encode_published_mask
from shards.errors import DataError
from shards.masks import decode_mask, rle_area


def test_a_polygon_covers_its_pixels() -> None:
    mask = decode_mask(encode_published_mask([[2, 1, 6, 1, 6, 4, 2, 4]], 8, 10))
    assert mask.shape == (8, 10)
    assert mask[1:4, 2:6].all()
    assert mask.sum() == 12


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "segmentation is null"),
        ([1, 1, 4, 1, 4, 4], "one flat list of numbers"),
        ([], "its list of polygons is empty"),
        ([[]], "its polygons are empty lists"),
        ([[1, 1, 4, 1, 4]], "odd number of coordinates"),
        ([[1, 1, 4, 1]], r"fewer than three points \(2\)"),
        ([[20, 1, 24, 1, 24, 4]], "outside the image of 10 × 8 pixels"),
        ([[1, 1, 4, 1, 7, 1]], "all points lie on one line"),
        ([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]], "too small to cover a pixel"),
    ],
)
def test_an_outline_without_a_pixel_is_refused_with_the_reason(segmentation: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        encode_published_mask(segmentation, 8, 10)


def test_several_polygons_are_one_mask() -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 4, 6, 4, 6, 6, 4, 6]]
    assert rle_area(encode_published_mask(parts, 8, 10)) == 8
