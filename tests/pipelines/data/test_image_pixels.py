"""The pixel values that images of unusual formats come out with, in one piece and in strips."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipelines.data import image_decoding
from pipelines.data.image_decoding import decode_image

RED, GREEN = (200, 40, 30), (20, 160, 90)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def halves(mode: str, left: object, right: object) -> Image.Image:
    """16 × 16 pixels, the left half of one color, the right of another."""
    image = Image.new(mode, (16, 16), left)  # type: ignore[arg-type]
    image.paste(right, (8, 0, 16, 16))  # type: ignore[arg-type]
    return image


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits: RGB (H, W, 3) or RGBA (H, W, 4)."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">LLBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)) for kind, data in chunks
    )


def deep_tiff(values: NDArray[np.uint16]) -> bytes:
    """An uncompressed TIFF of 16 bits a channel, RGB (H, W, 3)."""
    height, width, _ = values.shape
    pixels = values.astype("<u2").tobytes()
    depths = 8 + len(pixels)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, depths), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(pixels))]  # fmt: skip
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    directory = depths + 6
    return (
        b"II*\0" + struct.pack("<L", directory) + pixels + struct.pack("<HHH", 16, 16, 16)
        + struct.pack("<H", len(tags)) + entries + bytes(4)
    )  # fmt: skip


def deep(*colors: tuple[int, ...]) -> NDArray[np.uint16]:
    """16 bits whose upper eight are the colors, the lower 0xFF in the left half and 0 in the right."""
    values = np.zeros((16, 16, len(colors[0])), dtype=np.uint16)
    values[:, :8], values[:, 8:] = np.array(colors[0]) * 256 + 0xFF, np.array(colors[1]) * 256
    return values


def palette(**options: object) -> bytes:
    return encode(halves("RGB", RED, GREEN).quantize(4), "PNG", **options)


def animation(kind: str, **options: object) -> bytes:
    first = halves("RGB", RED, GREEN)
    return encode(first, kind, save_all=True, append_images=[ImageOps.invert(first)], **options)


GRAY_DEEP = np.repeat(np.array([[200 * 257] * 8 + [20 * 257] * 8], dtype=np.uint16), 16, axis=0)
# The colors of the left and the right half, and how far a lossy format may be off.
CASES: dict[str, tuple[Callable[[], bytes], tuple[int, ...], tuple[int, ...], int]] = {
    "cmyk jpeg, inverted as Adobe does": (
        lambda: encode(halves("CMYK", (0, 204, 204, 26), (255, 0, 102, 51)), "JPEG", quality=100, subsampling=0),
        (229, 46, 46), (0, 204, 122), 3),
    "cmyk tiff": (
        lambda: encode(halves("CMYK", (0, 204, 204, 26), (255, 0, 102, 51)), "TIFF"), (229, 46, 46), (0, 204, 122), 1),
    "16 bits of gray, png": (lambda: encode(Image.fromarray(GRAY_DEEP), "PNG"), (200,) * 3, (20,) * 3, 0),
    "16 bits of gray, tiff": (lambda: encode(Image.fromarray(GRAY_DEEP), "TIFF"), (200,) * 3, (20,) * 3, 0),
    "16 bits of color, png": (lambda: deep_png(deep(RED, GREEN)), RED, GREEN, 0),
    "16 bits of color and alpha, png": (lambda: deep_png(deep((*RED, 9), (*GREEN, 255))), RED, GREEN, 0),
    "16 bits of color, tiff": (lambda: deep_tiff(deep(RED, GREEN)), RED, GREEN, 0),
    "palette": (palette, RED, GREEN, 0),
    "palette with a transparent color": (lambda: palette(transparency=0), RED, GREEN, 0),
    "palette with alpha": (lambda: palette(transparency=bytes([0, 128, 255, 255])), RED, GREEN, 0),
    "gray and alpha": (lambda: encode(halves("LA", (200, 0), (20, 255)), "PNG"), (200,) * 3, (20,) * 3, 0),
    "color and alpha": (lambda: encode(halves("RGBA", (*RED, 0), (*GREEN, 128)), "PNG"), RED, GREEN, 0),
    "color and alpha, webp": (
        lambda: encode(halves("RGBA", (*RED, 255), (*GREEN, 128)), "WEBP", lossless=True, exact=True), RED, GREEN, 0),
    "1 bit": (lambda: encode(halves("1", 1, 0), "PNG"), (255,) * 3, (0,) * 3, 0),
    "gif of two frames": (lambda: animation("GIF"), RED, GREEN, 0),
    "webp of two frames": (lambda: animation("WEBP", lossless=True), RED, GREEN, 0),
    "png of two frames": (lambda: animation("PNG"), RED, GREEN, 0),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("strip", [1 << 22, 40], ids=["whole", "in strips"])
@pytest.mark.parametrize("name", CASES)
def test_each_format_has_these_colors(name: str, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "_STRIP_PIXELS", strip)
    make, left, right, tolerance = CASES[name]
    pixels = decode_image(make(), name).astype(int)
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels[:, :8] - left).max() <= tolerance
    assert np.abs(pixels[:, 8:] - right).max() <= tolerance


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "CMYK", "LAB", "I;16", "I", "F"])
def test_strips_give_the_pixels_of_the_whole_image(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 200)
    else:
        image = Image.fromarray(noise).convert("L" if mode in ("LA", "I", "F") else "RGB").convert(mode)
    data = encode(image, "TIFF")
    whole = decode_image(data, mode)
    monkeypatch.setattr(image_decoding, "_STRIP_PIXELS", 50)
    np.testing.assert_array_equal(decode_image(data, mode), whole)
