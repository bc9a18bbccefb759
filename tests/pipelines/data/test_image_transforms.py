"""Pictures are decoded, stretched to a square and normalised; masks follow them there."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.image_transforms import (
    PIXEL_MEAN,
    PIXEL_STD,
    decode_image,
    normalize_images,
    read_image,
    resize_image,
    sample_rows,
)
from shards.errors import DataError
from tests.support.paths import ROOT


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(mode: str) -> None:
    data = encode(Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode), "TIFF")
    picture = decode_image(data, "a.tif")
    assert picture.shape == (3, 5, 3)
    assert (picture == 255).all()


def test_a_rotation_mark_is_obeyed_in_own_pictures_and_ignored_in_published_ones(tmp_path: Path) -> None:
    marks = Image.Exif()
    marks[0x0112] = 6  # a quarter turn
    data = encode(Image.new("RGB", (5, 3)), "JPEG", exif=marks)
    (tmp_path / "a.jpg").write_bytes(data)
    assert decode_image(data, "a.jpg").shape == (3, 5, 3)
    assert read_image(tmp_path / "a.jpg").shape == (5, 3, 3)


@pytest.mark.parametrize("keep", [0, 30, 200])
def test_a_broken_picture_is_named(keep: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=r"street\.png"):
        decode_image(encode(Image.fromarray(noise))[:keep], "street.png")


def test_resizing_weighs_pixel_centres_without_smoothing() -> None:
    row = np.array([0, 100, 200, 60], dtype=np.uint8)
    picture = np.repeat(np.repeat(row[None, :, None], 4, axis=0), 3, axis=2)
    # Two columns out of four: centres at 0.5 and 2.5 of the original, between two pixels each.
    assert resize_image(picture, 2)[0, :, 0].tolist() == [50, 130]


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_image(picture, 7), picture)


def test_normalised_pictures_have_no_mean_and_unit_deviation_where_imagenet_has() -> None:
    levels = torch.tensor([[round(mean) for mean in PIXEL_MEAN], [255, 255, 255]], dtype=torch.uint8).view(1, 1, 2, 3)
    pictures = normalize_images(levels)
    assert pictures.shape == (1, 3, 1, 2)
    assert pictures[0, :, 0, 0].abs().max() < 0.02
    expected = [(255 - mean) / std for mean, std in zip(PIXEL_MEAN, PIXEL_STD, strict=True)]
    assert pictures[0, :, 0, 1].tolist() == pytest.approx(expected, rel=1e-5)


@given(length=st.integers(1, 900), size=st.integers(2, 400), data=st.data())
def test_sampled_rows_lie_in_the_picture_and_never_go_back(length: int, size: int, data: st.DataObject) -> None:
    rows = sample_rows(length, size, data.draw(st.integers(2, size)))
    assert rows[0] == 0
    assert rows[-1] == (size - 1) * length // size < length
    assert (np.diff(rows) >= 0).all()


@pytest.mark.parametrize("number", range(7))
def test_resized_pictures_are_opencv_s_within_one_level_of_255(number: int) -> None:
    with np.load(ROOT / "tests" / "data" / "opencv_resize.npz") as arrays:
        picture, expected = arrays[f"picture_{number}"], arrays[f"resized_{number}"]
    resized = resize_image(picture, expected.shape[0])
    assert np.abs(resized.astype(int) - expected.astype(int)).max() <= 1


def test_levels_between_two_pixels_are_rounded_to_the_nearest() -> None:
    picture = np.array([[[0], [3]]], dtype=np.uint8).repeat(2, axis=0).repeat(3, axis=2)
    # Four columns out of two: 0, 0.75, 2.25 and 3.
    assert resize_image(picture, 4)[0, :, 0].tolist() == [0, 1, 2, 3]


def test_red_green_and_blue_are_normalized_with_imagenet_s_own_values() -> None:
    pixels = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = [(1 - center) / width for center, width in zip(mean, std, strict=True)]
    assert normalize_images(pixels).flatten().tolist() == pytest.approx(expected, rel=1e-4)
