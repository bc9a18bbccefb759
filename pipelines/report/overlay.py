"""A prediction drawn on its picture: masks, boxes with scores, the points that queries looked from, and the phrase."""

from __future__ import annotations

import colorsys
import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipelines.config.settings import PostprocessSettings
from pipelines.data.datasets import ImageFolderDataset
from pipelines.data.image_decoding import read_image
from pipelines.prediction.postprocess import GroundingResult, postprocess_instance_masks
from pipelines.prediction.raw_output import RawOutput

_OPACITY = 0.45
_UNITED = (255, 255, 255)
_CAPTION_FILL = (24, 24, 24)

# Bytes of a file's name on most file systems, less what is added to it.
_LONGEST_NAME = 200


def draw_answer(
    data: ImageFolderDataset, number: int, raw: RawOutput, answer: GroundingResult, *, settings: PostprocessSettings
) -> tuple[str, Image.Image]:
    """The file name and the overlay of the answer about one example of somebody's own images."""
    place, text = divmod(number, len(data.texts))
    overlay = draw_overlay(
        read_image(data.files[place]),
        data.texts[text],
        mask=answer.mask,
        boxes=answer.boxes,
        scores=answer.scores,
        instance_masks=postprocess_instance_masks(raw, answer.queries, settings),
        points=answer.points,
    )
    return name_overlay(data.names[place], text), overlay


def name_overlay(image: str, text: int) -> str:
    """The file name of the drawn answer about an image and the number of a text."""
    # Two images may differ in their ending alone.
    stem, dot, ending = image.rpartition(".")
    name = f"{stem}-{ending}" if dot else image
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(image.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _LONGEST_NAME - 10].decode(errors='ignore')}-{digest}"
    return f"{name}-{text}.png"


def draw_overlay(
    picture: NDArray[np.uint8],
    expression: str,
    *,
    mask: NDArray[np.bool_],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    instance_masks: NDArray[np.bool_],
    points: NDArray[np.float64],
) -> Image.Image:
    """Draw one answer.

    Args:
        picture: (H, W, 3) RGB.
        expression: the phrase, written beneath the picture.
        mask: (H, W) the answer's mask; its outline is drawn in white.
        boxes: (N, 4) xyxy in pixels.
        scores: (N,) in [0, 1].
        instance_masks: (N, H, W) masks of the boxes' queries, tinted in the box's colour.
        points: (N, 2) x, y in pixels.
    """
    height, width = picture.shape[:2]
    colours = pick_colours(len(boxes))
    canvas = picture.astype(np.float32)
    tinted = np.zeros((height, width), dtype=bool)
    for instance, colour in zip(instance_masks, colours, strict=True):
        canvas[instance] = (1 - _OPACITY) * canvas[instance] + _OPACITY * np.asarray(colour, dtype=np.float32)
        tinted |= instance
    rest = mask & ~tinted
    canvas[rest] = (1 - _OPACITY) * canvas[rest] + _OPACITY * np.asarray(_UNITED, dtype=np.float32)
    canvas[trace_outline(mask)] = _UNITED
    image = Image.fromarray(canvas.round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    stroke = max(1, round(min(height, width) / 240))
    font = ImageFont.load_default(size=max(10, round(min(height, width) / 28)))
    for box, score, point, colour in zip(boxes, scores, points, colours, strict=True):
        draw.rectangle([float(value) for value in box], outline=colour, width=2 * stroke)
        _write_label(draw, (float(box[0]), float(box[1])), f"{score:.2f}", colour, font)
        x, y = (float(value) for value in point)
        radius = 3 * stroke
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour, outline=(0, 0, 0))
    return _add_caption(image, expression if len(boxes) else f"{expression}  (no target)", font)


def pick_colours(count: int) -> list[tuple[int, int, int]]:
    """Colours that are told apart, the same for the same count."""
    colours = [colorsys.hsv_to_rgb((0.58 + 0.381966 * number) % 1, 0.85, 1.0) for number in range(count)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colours]


def trace_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) pixels of a mask that touch its outside; the picture's border counts as inside."""
    inner = np.pad(mask, 1, mode="edge")
    return mask & ~(inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:])


def _write_label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = draw.textbbox(corner, text, font=font)
    # A label above the picture's edge would be cut off: then it goes inside the box.
    shift = 0.0 if top - (bottom - top) < 0 else -(bottom - top) - 6
    draw.rectangle([left - 2, top + shift - 2, right + 2, bottom + shift + 2], fill=colour)
    draw.text((corner[0], corner[1] + shift), text, fill=(0, 0, 0), font=font)


def _add_caption(image: Image.Image, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    draw = ImageDraw.Draw(image)
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, font=font) > image.width - 12:
            lines.append(line)
            longer = word
        line = longer
    block = "\n".join([*lines, line])
    _, top, _, bottom = draw.multiline_textbbox((0, 0), block, font=font)
    caption = Image.new("RGB", (image.width, image.height + int(bottom - top) + 14), _CAPTION_FILL)
    caption.paste(image, (0, 0))
    ImageDraw.Draw(caption).multiline_text((6, image.height + 6 - top), block, fill=(255, 255, 255), font=font)
    return caption
