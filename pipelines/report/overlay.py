"""A result drawn on its image: masks, boxes, the reference points of the queries, the attention map, the expression.

Letters: N instances; H, W the size of the image in pixels; h, w the resolution of masks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.report.overlay_canvas import (
    FRAME_COLOR,
    Canvas,
    blend_heat,
    draw_image,
    plan_canvas,
    resize_mask,
    tint,
    trace_edge,
)
from pipelines.report.overlay_colors import BLACK, OKABE_ITO, WHITE, Color, pick_colors, pick_text_color
from pipelines.report.overlay_labels import Rectangle, place_labels
from pipelines.report.overlay_text import TextBlock, measure_text, wrap_text

Layer = Literal["boxes", "masks", "points", "attention"]
DEFAULT_LAYERS: tuple[Layer, ...] = ("boxes", "masks", "points")
NO_TARGET = "no target"
_BANNER_COLOR = OKABE_ITO[5]
# Lines of the caption are at most this many times as wide as high.
_LINE_WIDTH = 80


@dataclass(frozen=True, kw_only=True)
class OverlayContent:
    """What is found for one expression."""

    boxes: NDArray[np.float64]
    """(N, 4) xyxy in pixels of the image; none: there is no target."""
    scores: NDArray[np.float64] | None
    """(N,) in [0, 1]; None: there are none, as for targets."""
    mask: NDArray[np.bool_]
    """(h, w) the result's mask over the whole image, at any resolution."""
    instance_masks: NDArray[np.bool_]
    """(N, h, w) masks of the instances, tinted in their colors."""
    points: NDArray[np.float64] | None = None
    """(N, 2) x, y in pixels of the image; None: the model has none."""
    attention: NDArray[np.uint8] | None = None
    """(h, w) the attention map over the whole image, 255 at its highest value; None: the model has none."""


def draw_overlay(
    image: NDArray[np.uint8],
    expression: str,
    content: OverlayContent,
    *,
    show: Collection[Layer] = DEFAULT_LAYERS,
    image_size: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw one result: every instance in its color, with its number and score.

    The image is enlarged to 640 pixels on the long side, or reduced to 4 megapixels. Without a target, a banner says
    so, and neither masks nor boxes are drawn.

    Args:
        image: (H, W, 3) RGB.
        expression: written below the image.
        content: what is drawn.
        show: the layers to draw.
        image_size: width and height that boxes and points refer to, if `image` is a reduced copy.
    """
    height, width = image.shape[:2]
    canvas = plan_canvas(*(image_size or (width, height)))
    drawn = draw_image(image, canvas)
    if "attention" in show and content.attention is not None:
        drawn = blend_heat(drawn, content.attention)
    colors = pick_colors(len(content.boxes))
    if colors and "masks" in show:
        _draw_masks(drawn, content, colors, canvas)
    framed = Image.new("RGB", canvas.full_size, FRAME_COLOR)
    framed.paste(drawn, canvas.offset)
    if "boxes" in show:
        for box, color in zip(content.boxes, colors, strict=True):
            _draw_box(framed, project_box(box, canvas), color, canvas.stroke)
    if "points" in show and content.points is not None:
        for (x, y), color in zip(content.points, colors, strict=True):
            _draw_point(framed, canvas.project(float(x), float(y)), color, canvas.stroke)
    if {"boxes", "masks", "points"} & set(show):
        anchors = [_find_anchor(index, content, canvas, show) for index in range(len(colors))]
        _draw_labels(framed, content.scores, anchors, colors, canvas.font_size)
    return _add_text(framed, expression, canvas.font_size, no_target=not colors)


def project_box(box: NDArray[np.float64], canvas: Canvas) -> Rectangle:
    """A box xyxy in pixels of the image, in pixels of the overlay."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return *canvas.project(x0, y0), *canvas.project(x1, y1)


def _draw_masks(drawn: Image.Image, content: OverlayContent, colors: list[Color], canvas: Canvas) -> None:
    """Tint instances in their colors, what the result's mask has besides in white, and trace that mask."""
    coverage = resize_mask(content.mask, canvas)
    rest = np.asarray(coverage)
    for instance, color in zip(content.instance_masks, colors, strict=True):
        if not instance.any():
            continue
        covered = resize_mask(instance, canvas)
        tint(drawn, covered, color)
        rest = np.minimum(rest, 255 - np.asarray(covered))
    tint(drawn, Image.fromarray(rest), WHITE)
    tint(drawn, trace_edge(coverage, canvas.stroke), BLACK, opacity=0.6)
    tint(drawn, trace_edge(coverage, max(1, canvas.stroke // 2)), WHITE, opacity=1)


def _draw_box(framed: Image.Image, box: Rectangle, color: Color, stroke: int) -> None:
    draw = ImageDraw.Draw(framed)
    # At the border of the canvas, too, the whole edge is seen.
    x0, y0 = (min(max(round(value), 0), side - 1) for value, side in zip(box[:2], framed.size, strict=True))
    x1, y1 = (
        min(max(round(value), low), side - 1) for value, low, side in zip(box[2:], (x0, y0), framed.size, strict=True)
    )
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=BLACK, width=stroke + 2)
    draw.rectangle((x0, y0, x1, y1), outline=color, width=stroke)


def _draw_point(framed: Image.Image, center: tuple[float, float], color: Color, stroke: int) -> None:
    draw = ImageDraw.Draw(framed)
    for radius, fill in ((2.5 * stroke + 2, BLACK), (2.5 * stroke + 1, WHITE), (2.5 * stroke - 1, color)):
        draw.circle(center, radius, fill=fill)


def _find_anchor(index: int, content: OverlayContent, canvas: Canvas, show: Collection[Layer]) -> Rectangle:
    """What the label of an instance stands at: its box, if boxes are not drawn its point, or the middle of the box."""
    x0, y0, x1, y1 = project_box(content.boxes[index], canvas)
    if "boxes" in show:
        return x0, y0, x1, y1
    if "points" in show and content.points is not None:
        x, y = canvas.project(*(float(value) for value in content.points[index]))
        space = 4 * canvas.stroke
        return x - space, y - space, x + space, y + space
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - canvas.font_size, y + canvas.font_size / 2, x + canvas.font_size, y + canvas.font_size / 2


def _draw_labels(
    framed: Image.Image,
    scores: NDArray[np.float64] | None,
    anchors: list[Rectangle],
    colors: list[Color],
    font_size: int,
) -> None:
    """Number and score of each instance."""
    numbers = range(1, len(colors) + 1)
    texts = (
        map(str, numbers) if scores is None else (f"{n}: {score:.2f}" for n, score in zip(numbers, scores, strict=True))
    )
    blocks = [wrap_text(text, font_size, framed.width) for text in texts]
    pad = max(3, font_size // 4)
    sizes = [(measure_text(block.lines[0], block.font)[0] + 2 * pad, block.height + pad // 2) for block in blocks]
    draw = ImageDraw.Draw(framed)
    corners = place_labels(anchors, sizes, framed.size)
    for block, (x, y), (width, height), color in zip(blocks, corners, sizes, colors, strict=True):
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color, outline=BLACK)
        block.draw(framed, (x + pad, y + pad // 4, x + width - pad, y + height), pick_text_color(color))


def _add_text(framed: Image.Image, expression: str, font_size: int, *, no_target: bool) -> Image.Image:
    """The caption below the image; above it the banner, if there is no target."""
    pad = font_size // 2
    width = min(framed.width - 2 * pad, _LINE_WIDTH * font_size)
    caption = wrap_text(expression, max(font_size, 14), width)
    banner: TextBlock | None = wrap_text(NO_TARGET, round(font_size * 1.3), width) if no_target else None
    top = banner.height + pad if banner else 0
    page = Image.new("RGB", (framed.width, top + framed.height + caption.height + pad), FRAME_COLOR)
    page.paste(framed, (0, top))
    if banner:
        page.paste(_BANNER_COLOR, (0, 0, page.width, top))
        left = (page.width - measure_text(NO_TARGET, banner.font)[0]) // 2
        banner.draw(page, (left, pad // 2, page.width - left, top), pick_text_color(_BANNER_COLOR))
    bottom = top + framed.height
    caption.draw(page, (pad, bottom + pad // 2, page.width - pad, page.height), WHITE)
    return page
