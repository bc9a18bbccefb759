"""Images that are read at the size of the network equal those that are decoded and then resized, to the bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipelines.data import image_halving
from pipelines.data.image_decoding import decode_image
from pipelines.data.image_halving import can_halve, resize_halved
from pipelines.data.image_reading import read_resized
from pipelines.data.image_transforms import resize_image
from shards.errors import DataError

SIZE = 40


def draw(kind: str, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "smooth":
        small = Image.fromarray(noise).resize((width // 8 + 1, height // 8 + 1))
        return np.asarray(small.resize((width, height)))
    if kind == "flat":
        # Sums of equal levels lie exactly between two integers where they can.
        return np.full_like(noise, 0) + np.arange(width, dtype=np.uint8)[:, None] // 3
    return noise // 255 * 255 if kind == "black and white" else noise


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["noise", "smooth", "flat", "black and white"]),
    length=st.integers(SIZE, 8 * SIZE),
    wide=st.booleans(),
    seed=st.integers(0, 9),
)
def test_halved_images_are_resized_to_the_same_bits(kind: str, length: int, wide: bool, seed: int) -> None:
    height, width = (length, 2 * SIZE) if wide else (2 * SIZE, length)
    image = draw(kind, height, width, seed)
    if not can_halve(height, width, SIZE):
        pytest.skip("torch's kernel is another one on this processor")
    halved = resize_halved([np.ascontiguousarray(plane) for plane in image.transpose(2, 0, 1)], SIZE)
    np.testing.assert_array_equal(halved, resize_image(image, SIZE))


@pytest.mark.parametrize("sides", [(640, 480), (640, 427), (480, 640), (427, 640), (640, 640), (500, 375), (320, 320)])
def test_coco_s_sizes_are_read_to_the_same_bits(sides: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.fromarray(draw("smooth", *sides)).save(file, "JPEG")
    expected = resize_image(decode_image(file.getvalue(), "image"), 320)
    np.testing.assert_array_equal(read_resized(file.getvalue(), "image", 320), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "I;16"])
def test_images_of_other_modes_are_read_to_the_same_bits(mode: str) -> None:
    file = io.BytesIO()
    image = Image.fromarray(draw("smooth", 60, 2 * SIZE))
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    image.save(file, "TIFF")
    expected = resize_image(decode_image(file.getvalue(), "image"), SIZE)
    np.testing.assert_array_equal(read_resized(file.getvalue(), "image", SIZE), expected)


def test_where_the_kernel_is_another_one_torch_itself_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_halving, "_knows_kernel", lambda: False)
    assert not can_halve(60, 2 * SIZE, SIZE)


def test_smaller_images_are_not_halved() -> None:
    assert not can_halve(SIZE - 1, 2 * SIZE, SIZE)
    assert not can_halve(2 * SIZE + 1, 2 * SIZE - 1, SIZE)


def test_a_damaged_image_is_an_error_that_names_it() -> None:
    file = io.BytesIO()
    Image.fromarray(draw("noise", 60, 2 * SIZE)).save(file, "JPEG")
    with pytest.raises(DataError, match=r"7\.jpg"):
        read_resized(file.getvalue()[:900], "7.jpg", SIZE)
