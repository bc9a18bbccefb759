"""A result drawn on its image: masks, boxes with scores, the reference points of the queries, and the expression."""

from __future__ import annotations

import colorsys
import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipelines.config.settings import PostprocessSettings
from pipelines.data.datasets import ImageFolderDataset
from pipelines.data.image_decoding import read_image
from pipelines.data.image_text import FolderImageTexts
from pipelines.prediction.postprocess import GroundingResult, postprocess_instance_masks
from pipelines.prediction.raw_output import RawOutput

if TYPE_CHECKING:
    from pipelines.prediction.zero_shot import Detections

_OPACITY = 0.45
_MASK_COLOR = (255, 255, 255)
_CAPTION_COLOR = (24, 24, 24)
# Bytes: the longest file name on most file systems is 255, less the digest, index and extension.
_LONGEST_NAME = 200


def draw_result(
    data: ImageFolderDataset, index: int, raw: RawOutput, result: GroundingResult, *, settings: PostprocessSettings
) -> tuple[str, Image.Image]:
    """The file name and the overlay of the result for one example of the user's own images."""
    image, text = divmod(index, len(data.texts))
    overlay = draw_overlay(
        read_image(data.files[image]),
        data.texts[text],
        mask=result.mask,
        boxes=result.boxes,
        scores=result.scores,
        instance_masks=postprocess_instance_masks(raw, result.queries, settings),
        points=result.points,
    )
    return name_overlay(data.names[image], text), overlay


def draw_detections(data: FolderImageTexts, index: int, found: Detections) -> tuple[str, Image.Image]:
    """The file name and the overlay of what a zero-shot model found for one example of the user's own images.

    The words that boxes were found by stand in brackets behind the expression.
    """
    image, text = divmod(index, len(data.image_texts))
    words = [label for label in dict.fromkeys(found.labels) if label.strip()]
    nothing = np.zeros((len(found.boxes), *found.size), dtype=bool)
    overlay = draw_overlay(
        read_image(data.images.files[image]),
        f"{data.image_texts[text]}  [{', '.join(words)}]" if words else data.image_texts[text],
        mask=np.zeros(found.size, dtype=bool) if found.mask is None else found.mask,
        boxes=found.boxes,
        scores=found.scores,
        instance_masks=nothing if found.masks is None else found.masks,
    )
    return name_overlay(data.names[image], text), overlay


def name_overlay(image: str, text: int) -> str:
    """The file name of the overlay for the name of an image and the index of a text."""
    # Two images may differ in their ending alone.
    stem, dot, ending = image.rpartition(".")
    name = f"{stem}-{ending}" if dot else image
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(image.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _LONGEST_NAME - 10].decode(errors='ignore')}-{digest}"
    return f"{name}-{text}.png"


def draw_overlay(
    image: NDArray[np.uint8],
    expression: str,
    *,
    mask: NDArray[np.bool_],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    instance_masks: NDArray[np.bool_],
    points: NDArray[np.float64] | None = None,
) -> Image.Image:
    """Draw one result.

    Args:
        image: (H, W, 3) RGB.
        expression: written below the image.
        mask: (H, W) the result's mask; its outline is drawn in white.
        boxes: (N, 4) xyxy in pixels.
        scores: (N,) in [0, 1].
        instance_masks: (N, H, W) masks of the boxes' queries, tinted in the box's color.
        points: (N, 2) x, y in pixels; None: the model has none.
    """
    height, width = image.shape[:2]
    colors = pick_colors(len(boxes))
    canvas = image.astype(np.float32)
    tinted = np.zeros((height, width), dtype=bool)
    for instance, color in zip(instance_masks, colors, strict=True):
        canvas[instance] = (1 - _OPACITY) * canvas[instance] + _OPACITY * np.asarray(color, dtype=np.float32)
        tinted |= instance
    rest = mask & ~tinted
    canvas[rest] = (1 - _OPACITY) * canvas[rest] + _OPACITY * np.asarray(_MASK_COLOR, dtype=np.float32)
    canvas[trace_outline(mask)] = _MASK_COLOR
    overlay = Image.fromarray(canvas.round().astype(np.uint8))
    draw = ImageDraw.Draw(overlay)
    stroke = max(1, round(min(height, width) / 240))
    font = ImageFont.load_default(size=max(10, round(min(height, width) / 28)))
    for index, (box, score, color) in enumerate(zip(boxes, scores, colors, strict=True)):
        draw.rectangle([float(value) for value in box], outline=color, width=2 * stroke)
        _write_label(draw, (float(box[0]), float(box[1])), f"{score:.2f}", color, font)
        if points is None:
            continue
        x, y = (float(value) for value in points[index])
        radius = 3 * stroke
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color, outline=(0, 0, 0))
    return _add_caption(overlay, expression if len(boxes) else f"{expression}  (no target)", font)


def pick_colors(count: int) -> list[tuple[int, int, int]]:
    """Distinguishable RGB colors, the same for the same count."""
    colors = [colorsys.hsv_to_rgb((0.58 + 0.381966 * index) % 1, 0.85, 1.0) for index in range(count)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colors]


def trace_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) pixels of a mask that touch its outside; the image's border counts as inside."""
    inner = np.pad(mask, 1, mode="edge")
    return mask & ~(inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:])


def _write_label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = draw.textbbox(corner, text, font=font)
    # A label above the image's edge would be cut off: then it goes inside the box.
    shift = 0.0 if top - (bottom - top) < 0 else -(bottom - top) - 6
    draw.rectangle([left - 2, top + shift - 2, right + 2, bottom + shift + 2], fill=color)
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
    caption = Image.new("RGB", (image.width, image.height + int(bottom - top) + 14), _CAPTION_COLOR)
    caption.paste(image, (0, 0))
    ImageDraw.Draw(caption).multiline_text((6, image.height + 6 - top), block, fill=(255, 255, 255), font=font)
    return caption
