"""One scene in every pixel format that a user's folder holds: none becomes all white, black or an error."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipelines.data.image_decoding import decode_image, inspect_image, read_image
from shards.errors import DataError
from tests.support.exif_blocks import ASCII, ORIENTATION, SHORT, make_block, make_entry

Pixels = NDArray[np.uint8]

HEIGHT, WIDTH = 12, 16
RAMP = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
SCENE = Image.fromarray(np.stack([RAMP, np.full_like(RAMP, 90), 255 - RAMP], axis=-1))
GREY = SCENE.convert("L")
DEEP = np.asarray(GREY).astype(np.uint16) * 257
"""16 bits whose upper eight are the grey scene's."""
CUT_OUT = np.dstack([np.asarray(SCENE), np.where(RAMP > 100, 255, 0).astype(np.uint8)])


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def animate(kind: str, **options: Any) -> bytes:
    return encode(SCENE, kind, save_all=True, append_images=[ImageOps.invert(SCENE)], **options)


def as_rgb(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


COLORS: dict[str, tuple[Callable[[], bytes], int]] = {
    "png": (lambda: encode(SCENE, "PNG"), 0),
    "jpeg": (lambda: encode(SCENE, "JPEG", quality=95, subsampling=0), 12),
    "webp": (lambda: encode(SCENE, "WEBP", lossless=True), 0),
    "bmp": (lambda: encode(SCENE, "BMP"), 0),
    "ppm": (lambda: encode(SCENE, "PPM"), 0),
    "cmyk": (lambda: encode(SCENE.convert("CMYK"), "TIFF"), 1),
    "ycbcr": (lambda: encode(SCENE.convert("YCbCr"), "TIFF"), 4),
    "opaque": (lambda: encode(SCENE.convert("RGBA"), "PNG"), 0),
    "transparent": (lambda: encode(Image.fromarray(CUT_OUT), "PNG"), 0),
    "gif of two frames": (lambda: animate("GIF"), 16),
    "webp of two frames": (lambda: animate("WEBP", lossless=True), 0),
    "tiff of two pages": (lambda: animate("TIFF"), 0),
}
GREYS: dict[str, Callable[[], bytes]] = {
    "8 bits": lambda: encode(GREY, "PNG"),
    "grey and alpha": lambda: encode(Image.fromarray(np.dstack([np.asarray(GREY), RAMP])), "PNG"),
    "16 bits, png": lambda: encode(Image.fromarray(DEEP), "PNG"),
    "16 bits, tiff": lambda: encode(Image.fromarray(DEEP), "TIFF"),
    "16 bits, tiff of the other byte order": lambda: encode(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "16 bits, pgm": lambda: b"P5 16 12 65535\n" + DEEP.astype(">u2").tobytes(),
    "32-bit integers": lambda: encode(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
    "32-bit integers to 255": lambda: encode(Image.fromarray(np.asarray(GREY).astype(np.int32)), "TIFF"),
    "floats to 65535": lambda: encode(Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
    "floats to 255": lambda: encode(Image.fromarray(np.asarray(GREY).astype(np.float32)), "TIFF"),
    "floats to 1": lambda: encode(Image.fromarray(np.asarray(GREY).astype(np.float32) / 255), "TIFF"),
}


YCBCR = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 does not read the YCbCr TIFF that it writes"
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=YCBCR) if name == "ycbcr" else name for name in COLORS])
def test_the_first_frame_of_every_color_format_is_the_scene(name: str) -> None:
    make, tolerance = COLORS[name]
    found = decode_image(make(), name)
    assert np.abs(found.astype(int) - as_rgb(SCENE)).max() <= tolerance


@pytest.mark.parametrize("name", GREYS)
def test_grey_of_any_depth_is_the_scene_of_eight_bits(name: str) -> None:
    np.testing.assert_array_equal(decode_image(GREYS[name](), name), as_rgb(GREY))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", pytest.param("YCbCr", marks=YCBCR), "LAB"])
def test_images_of_eight_bits_are_read_as_pillow_reads_them(mode: str) -> None:
    data = encode(SCENE.convert("RGB").convert(mode) if mode != "LA" else GREY.convert("LA"), "TIFF")
    np.testing.assert_array_equal(decode_image(data, mode), as_rgb(Image.open(io.BytesIO(data))))


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("colors", [2, 16, 256])
def test_a_palette_with_transparency_keeps_its_colors(colors: int) -> None:
    image = SCENE.quantize(colors)
    data = encode(image, "PNG", transparency=bytes(range(colors)))
    np.testing.assert_array_equal(decode_image(data, "palette"), as_rgb(image))


def test_a_dark_image_of_sixteen_bits_stays_dark() -> None:
    dark = DEEP // 257
    pgm = b"P5 16 12 65535\n" + dark.astype(">u2").tobytes()
    for data in (encode(Image.fromarray(dark), "PNG"), encode(Image.fromarray(dark), "TIFF"), pgm):
        assert decode_image(data, "dark").max() <= 1


def test_a_tiff_of_twelve_bits_is_as_bright_as_one_of_sixteen() -> None:
    packed = np.full((2, 2), 0xFFF, dtype=np.uint16)
    header = b"II*\0" + struct.pack("<L", 8 + 6)
    rows = bytes([0xFF] * 6)
    sizes = [(256, 4, 2), (257, 4, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 2),
             (279, 4, 6)]  # fmt: skip
    entries = b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in sizes)
    data = header + rows + struct.pack("<H", len(sizes)) + entries + bytes(4)
    assert decode_image(data, "twelve.tif")[..., 0].tolist() == (packed // 16).tolist()


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([[-100.0, 0.0], [50.0, 100.0]], [[0, 128], [191, 255]]),
        ([[0.0, 1e6], [5e5, 2e6]], [[0, 128], [64, 255]]),
        ([[70000.0, 70000.0], [70000.0, 70000.0]], [[0, 0], [0, 0]]),
    ],
)
def test_values_without_a_known_white_are_stretched_from_lowest_to_highest(
    values: list[list[float]], levels: list[list[int]]
) -> None:
    data = encode(Image.fromarray(np.array(values, dtype=np.float32)), "TIFF")
    assert decode_image(data, "a.tif")[..., 1].tolist() == levels


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_refused_with_the_reason(value: float) -> None:
    data = encode(Image.fromarray(np.array([[0, value]], dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match=r"a\.tif: .*it holds pixels that are not finite numbers; save it with 8 bits"):
        decode_image(data, "a.tif")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", r"is an empty file, not an image; give an image file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", r"is a Git LFS pointer, not an image; run `git lfs pull`"),
        (b"<!doctype html><html></html>", r"is an HTML page, not an image"),
        (encode(SCENE, "PNG")[:60], r"is not a readable image \(.*\); give an image file"),
        (encode(SCENE, "JPEG")[:300], r"is not a readable image \(.*\); give an image file"),
        (bytes(range(128, 0, -1)), r"is not an image, or of an unknown format; give an image file"),
    ],
)
def test_a_file_that_is_no_image_is_told_by_its_content(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    for read in (lambda: decode_image(data, "a.jpg"), lambda: read_image(tmp_path / "a.jpg")):
        with pytest.raises(DataError, match=rf"a\.jpg: {words}"):
            read()


def test_a_missing_file_is_named_without_a_number_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: no such file or folder; check the path$"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    data = encode(Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode), "TIFF")
    image = decode_image(data, "a.tif")
    assert image.shape == (3, 5, 3)
    assert (image == 255).all()


@pytest.mark.parametrize("keep", [0, 30, 200])
def test_a_damaged_image_is_named(keep: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=r"street\.png"):
        decode_image(encode(Image.fromarray(noise), "PNG")[:keep], "street.png")


def test_an_image_that_is_too_large_is_to_be_reduced(tmp_path: Path) -> None:
    Image.new("1", (20_000, 18_000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match=r"huge.png: has more than 178 megapixels, which Pillow refuses; reduce the im"):
        read_image(tmp_path / "huge.png")


# Orientation


TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("value", TURNS)
def test_own_images_are_turned_upright_as_pillow_turns_them(tmp_path: Path, kind: str, value: int) -> None:
    marks = Image.Exif()
    marks[ORIENTATION] = value
    file = tmp_path / "turned"
    file.write_bytes(encode(SCENE, kind, exif=marks, **{"lossless": True} if kind == "WEBP" else {}))
    with Image.open(file) as image:
        upright, stored = as_rgb(ImageOps.exif_transpose(image)), as_rgb(image)
    np.testing.assert_array_equal(read_image(file), upright)
    np.testing.assert_array_equal(read_image(file), TURNS[value](stored))
    np.testing.assert_array_equal(decode_image(file.read_bytes(), "turned"), stored)


@pytest.mark.parametrize("value", TURNS)
def test_images_that_are_larger_than_a_tile_are_turned_whole(tmp_path: Path, value: int) -> None:
    marks = Image.Exif()
    marks[ORIENTATION] = value
    noise = np.random.default_rng(1).integers(0, 256, (193, 70, 3), dtype=np.uint8)
    file = tmp_path / "turned.png"
    file.write_bytes(encode(Image.fromarray(noise), "PNG", exif=marks))
    np.testing.assert_array_equal(read_image(file), TURNS[value](noise))


def test_a_turned_tiff_is_turned_once(tmp_path: Path) -> None:
    file = tmp_path / "turned.tif"
    file.write_bytes(encode(SCENE, "TIFF", tiffinfo={ORIENTATION: 6}))
    np.testing.assert_array_equal(read_image(file), TURNS[6](as_rgb(SCENE)))


@pytest.mark.parametrize(
    ("value", "entry", "words"),
    [
        (6, make_entry(0x10E, ASCII, 0xFFFFFFF0, struct.pack("<L", 60)), "its tag 0x010e points outside"),
        (9, make_entry(0x11A, ASCII, 3, b"72\0\0"), "its orientation is 9, not one of 1 to 8"),
        (6, make_entry(0x11A, ASCII, 3, b"72\0\0"), "one of its tags has a value that does not fit its type"),
    ],
)
def test_a_damaged_block_costs_no_pixels_and_a_readable_mark_is_obeyed(
    tmp_path: Path, value: int, entry: bytes, words: str
) -> None:
    mark = make_entry(ORIENTATION, SHORT, 1, struct.pack("<HH", value, 0))
    data = encode(SCENE, "JPEG", exif=b"Exif\0\0" + make_block([entry, mark]))
    (tmp_path / "a.jpg").write_bytes(data)
    pixels, remark = inspect_image(tmp_path / "a.jpg")
    stored = decode_image(encode(SCENE, "JPEG"), "plain.jpg")
    np.testing.assert_array_equal(decode_image(data, "a.jpg"), stored)
    np.testing.assert_array_equal(pixels, TURNS[value](stored) if value in TURNS else stored)
    assert remark.startswith(f"{tmp_path / 'a.jpg'}: its EXIF block is damaged ({words}")
