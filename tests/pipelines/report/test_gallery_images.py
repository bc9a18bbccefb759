"""Image files of a report: their sizes, and nothing of the original but its pixels."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from pipelines.report.gallery_images import IMAGES, THUMBNAILS, fit_size, name_image, write_images
from shards.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (IMAGES, THUMBNAILS):
        (tmp_path / name).mkdir()
    return tmp_path


def encode(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (640, 480)), ((1280, 960), (640, 480)), ((100, 50), (100, 50)), ((3000, 2), (640, 1))],
)
def test_large_images_are_scaled_down_and_small_ones_are_not_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fit_size(*size) == expected


def test_an_image_and_its_thumbnail_are_written_as_jpeg(folder: Path) -> None:
    write_images(folder, name_image(7), encode(Image.new("RGB", (900, 600), (200, 30, 60))), "a.png")
    for name, size in ((IMAGES, (640, 427)), (THUMBNAILS, (192, 128))):
        with Image.open(folder / name / "00007.jpg") as image:
            assert (image.format, image.size, image.mode) == ("JPEG", size, "RGB")
            pixel = image.getpixel((5, 5))
            assert isinstance(pixel, tuple)
            assert all(abs(value - level) <= 3 for value, level in zip(pixel, (200, 30, 60), strict=True))


def test_metadata_of_the_original_is_left_out_and_its_orientation_ignored(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where it was taken"
    write_images(folder, "a.jpg", encode(Image.new("L", (40, 20)), "jpeg", exif=exif, comment=b"private"), "a.jpg")
    with Image.open(folder / IMAGES / "a.jpg") as image:
        # Annotations are about the pixels as they are stored.
        assert image.size == (40, 20)
        assert not image.getexif()
    assert b"private" not in (folder / IMAGES / "a.jpg").read_bytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_any_mode_are_shown(folder: Path, mode: str) -> None:
    write_images(folder, "a.jpg", encode(Image.new(mode, (30, 20)), "tiff"), "a.tif")
    with Image.open(folder / THUMBNAILS / "a.jpg") as image:
        assert image.size == (30, 20)


def test_bytes_that_are_no_image_are_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: is text that begins"):
        write_images(folder, "a.jpg", b"hello, this is not an image", "a.jpg")
    assert not list((folder / IMAGES).iterdir())
