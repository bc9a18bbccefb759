"""The canvas of an overlay: the image at a size that a person can read, and masks and maps at the same size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from pipelines.report.overlay_colors import OKABE_ITO, Color

MIN_LONG_SIDE = 640
"""Pixels; smaller images are enlarged."""
MAX_PIXELS = 4_000_000
"""Larger images are reduced."""
MIN_WIDTH, MIN_HEIGHT = 320, 120
"""Pixels; narrower images are framed, so that labels and caption have room."""
FRAME_COLOR: Color = (24, 24, 24)
_OPACITY = 0.45
_HEAT_COLORS = (OKABE_ITO[6], OKABE_ITO[4])


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """How an image lies on its overlay."""

    image_size: tuple[int, int]
    """Width and height of the original image in pixels."""
    size: tuple[int, int]
    """Width and height of the image on the overlay."""
    offset: tuple[int, int]
    """Its upper left corner."""
    full_size: tuple[int, int]
    """Width and height of the overlay, without banner and caption."""

    @property
    def font_size(self) -> int:
        """Pixels: 15 for an image of 640 × 480."""
        return min(48, max(14, round(math.sqrt(self.full_size[0] * self.full_size[1]) / 37)), self.full_size[1] // 8)

    @property
    def stroke(self) -> int:
        """Width in pixels of the edges of boxes."""
        return max(2, round(self.font_size / 7))

    def project(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels of the image, in pixels of the overlay."""
        return (
            self.offset[0] + x * self.size[0] / self.image_size[0],
            self.offset[1] + y * self.size[1] / self.image_size[1],
        )

    def crop(self) -> tuple[int, int, int, int]:
        """The image's box x0, y0, x1, y1 on the overlay."""
        (left, top), (width, height) = self.offset, self.size
        return left, top, left + width, top + height


def plan_canvas(width: int, height: int) -> Canvas:
    """The canvas for an image of a size in pixels."""
    scale = max(1.0, MIN_LONG_SIDE / max(width, height))
    scale = min(scale, max(math.sqrt(MAX_PIXELS / (width * height)), MIN_LONG_SIDE / max(width, height)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    full_size = max(size[0], MIN_WIDTH), max(size[1], MIN_HEIGHT)
    offset = (full_size[0] - size[0]) // 2, (full_size[1] - size[1]) // 2
    return Canvas(image_size=(width, height), size=size, offset=offset, full_size=full_size)


def draw_image(image: NDArray[np.uint8], canvas: Canvas) -> Image.Image:
    """The image (H, W, 3) at the size of the canvas, without its frame."""
    height, width = image.shape[:2]
    source = Image.fromarray(image)
    if (width, height) == canvas.size:
        return source
    smaller = canvas.size[0] < width or canvas.size[1] < height
    return source.resize(canvas.size, Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC, reducing_gap=2)


def resize_mask(mask: NDArray[np.bool_], canvas: Canvas) -> Image.Image:
    """The coverage (0 to 255) of a mask (h, w) of the whole image at the size of the canvas.

    Enlarged, its edge is the smooth line through the middle of its steps.
    """
    height, width = mask.shape
    source = Image.fromarray(mask.astype(np.uint8) * 255)
    if (width, height) == canvas.size:
        return source
    factor = max(canvas.size[0] / width, canvas.size[1] / height)
    if factor <= 1:
        return source.resize(canvas.size, Image.Resampling.BOX)
    enlarged = source.resize(canvas.size, Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(factor * 0.4))
    # From a slope as wide as a step to an edge as wide as a pixel.
    gain = 1.2 * factor
    return enlarged.point([min(255, max(0, round(127.5 + (value - 127.5) * gain))) for value in range(256)])


def tint(image: Image.Image, coverage: Image.Image, color: Color, opacity: float = _OPACITY) -> None:
    """Mix a color into an image where a mask covers it."""
    box = coverage.getbbox()
    if box is not None:
        alpha = coverage.crop(box).point([round(value * opacity) for value in range(256)])
        image.paste(color, box, alpha)


def blend_heat(image: Image.Image, attention: NDArray[np.uint8]) -> Image.Image:
    """The image, darkened, under a map (h, w) of the whole image from blue (low) to yellow (255)."""
    heat = Image.fromarray(attention).resize(image.size, Image.Resampling.BILINEAR)
    blended = Image.blend(image, Image.new("RGB", image.size, FRAME_COLOR), 0.35)
    blended.paste(
        ImageOps.colorize(heat, *_HEAT_COLORS), (0, 0), heat.point([round(value * 0.8) for value in range(256)])
    )
    return blended


def trace_edge(coverage: Image.Image, width: int) -> Image.Image:
    """The inner edge, `width` pixels wide, of a mask's coverage; the image's border is no edge."""
    inner = coverage.filter(ImageFilter.BoxBlur(width))
    # 255 only where the whole neighborhood is covered.
    eroded = inner.point([0] * 250 + [255] * 6)
    edge = np.minimum(np.asarray(coverage), 255 - np.asarray(eroded))
    return Image.fromarray(edge)
