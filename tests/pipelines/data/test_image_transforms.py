"""Images are stretched to a square and normalized, and masks to the same square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data import image_transforms
from pipelines.data.image_transforms import (
    PIXEL_MEAN,
    PIXEL_STD,
    mask_source_indices,
    normalize_images,
    resize_image,
)
from tests.support.paths import ROOT


def test_resizing_interpolates_between_pixel_centers_without_antialiasing() -> None:
    row = np.array([0, 100, 200, 60], dtype=np.uint8)
    image = np.repeat(np.repeat(row[None, :, None], 4, axis=0), 3, axis=2)
    # Two columns out of four: centers at 0.5 and 2.5 of the original, between two pixels each.
    assert resize_image(image, 2)[0, :, 0].tolist() == [50, 130]


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_image(image, 7), image)


def test_normalized_images_have_zero_mean_and_unit_deviation_where_imagenet_has() -> None:
    levels = torch.tensor([[round(mean) for mean in PIXEL_MEAN], [255, 255, 255]], dtype=torch.uint8).view(1, 1, 2, 3)
    images = normalize_images(levels)
    assert images.shape == (1, 3, 1, 2)
    assert images[0, :, 0, 0].abs().max() < 0.02
    expected = [(255 - mean) / std for mean, std in zip(PIXEL_MEAN, PIXEL_STD, strict=True)]
    assert images[0, :, 0, 1].tolist() == pytest.approx(expected, rel=1e-5)


@given(length=st.integers(1, 900), size=st.integers(2, 400), data=st.data())
def test_source_rows_of_masks_are_in_range_and_in_order(length: int, size: int, data: st.DataObject) -> None:
    rows = mask_source_indices(length, size, data.draw(st.integers(2, size)))
    assert rows[0] == 0
    assert rows[-1] == (size - 1) * length // size < length
    assert (np.diff(rows) >= 0).all()


@pytest.mark.parametrize("index", range(7))
def test_resized_images_are_opencv_s_within_one_level_of_255(index: int) -> None:
    with np.load(ROOT / "tests" / "data" / "opencv_resize.npz") as arrays:
        image, expected = arrays[f"picture_{index}"], arrays[f"resized_{index}"]
    resized = resize_image(image, expected.shape[0])
    assert np.abs(resized.astype(int) - expected.astype(int)).max() <= 1


def test_levels_between_two_pixels_are_rounded_to_the_nearest() -> None:
    image = np.array([[[0], [3]]], dtype=np.uint8).repeat(2, axis=0).repeat(3, axis=2)
    # Four columns out of two: 0, 0.75, 2.25 and 3.
    assert resize_image(image, 4)[0, :, 0].tolist() == [0, 1, 2, 3]


def test_red_green_and_blue_are_normalized_with_imagenet_s_own_values() -> None:
    pixels = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = [(1 - center) / width for center, width in zip(mean, std, strict=True)]
    assert normalize_images(pixels).flatten().tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [(640, 480), (321, 900), (1999, 1234), (2500, 700)])
def test_large_images_are_resized_the_same_without_copying_them_as_floats(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = resize_image(image, 320).astype(int)
    monkeypatch.setattr(image_transforms, "_MAX_FLOAT_PIXELS", 0)
    difference = np.abs(resize_image(image, 320) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4
