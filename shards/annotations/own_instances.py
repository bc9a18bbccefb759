"""Objects of data sets of one's own: a box, an outline, run lengths or a PNG mask; a box alone is enough."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from shards import masks
from shards.annotations.coco import Annotation, CocoImage
from shards.annotations.instances import clip_box, encode_published_mask
from shards.errors import DataError
from shards.file_kinds import explain_unreadable
from shards.image_formats import open_png_mask
from shards.record import Box, Instance, Rle

_TOLERANCE = 1.0
"""Pixels that a box may reach beyond the image; what does is cut off."""


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A PNG of the image's size; every pixel that is not 0 belongs to the object."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAnnotation(Annotation):
    """An object; `segmentation` is as in COCO, a `MaskFile`, or None where only the box is known.

    Its box is `bbox`, cut off at the edges of the image as that of published annotations, or `box`, which is refused
    where it reaches beyond them; without both it is the box around the mask.
    """

    box: Box | None = None
    """x0, y0, x1, y1 in pixels."""
    origin: str
    """The record that errors name, e.g. "line 7, target 1"."""


def build_own_instance(annotation: OwnAnnotation, image: CocoImage) -> Instance:
    """The instance that an annotation is.

    Raises:
        DataError: its box lies outside the image, its mask is malformed or covers no pixel of the image, or a `box`
            does not touch its mask.
    """
    try:
        mask = _build_mask(annotation, image)
        box = _fit_box(annotation.box, image) if annotation.box else clip_box(annotation, image)
    except (DataError, TypeError, ValueError, OverflowError) as error:
        raise DataError(str(error), record=annotation.origin) from error
    if box is None:
        if mask is None:
            raise DataError("has no box inside the image, and no mask", record=annotation.origin)
        box = masks.rle_to_box(mask)
    elif annotation.box and mask is not None and not _overlap(box, around := masks.rle_to_box(mask)):
        what = f"box {list(box)} does not touch its mask, which lies in {list(around)}"
        raise DataError(f"{what}; a box is x0, y0, x1, y1, a bbox x, y, width, height", record=annotation.origin)
    return Instance(ann_id=annotation.ann_id, category_id=annotation.category_id, box=box, mask=mask)


def _build_mask(annotation: OwnAnnotation, image: CocoImage) -> Rle | None:
    if annotation.segmentation is None:
        return None
    if isinstance(annotation.segmentation, MaskFile):
        return read_png_mask(annotation.segmentation.path, image.height, image.width)
    return encode_published_mask(annotation.segmentation, image.height, image.width)


def _fit_box(box: Box, image: CocoImage) -> Box:
    """The part of a box inside the image."""
    x0, y0, x1, y1 = box
    width, height = float(image.width), float(image.height)
    if max(box) <= 1 and min(width, height) > 1:
        raise DataError(f"box {list(box)} lies within one pixel; give pixels, not fractions of the image")
    if min(x0, y0) < -_TOLERANCE or x1 > width + _TOLERANCE or y1 > height + _TOLERANCE:
        what = f"box {list(box)} reaches beyond the image of {image.width} × {image.height} pixels"
        raise DataError(f"{what}; a box is x0, y0, x1, y1, a bbox x, y, width, height")
    fitted = max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
    if not (fitted[0] < fitted[2] and fitted[1] < fitted[3]):
        raise DataError(f"box {list(box)} lies outside the image of {image.width} × {image.height} pixels")
    return fitted


def _overlap(one: Box, two: Box) -> bool:
    return max(one[0], two[0]) < min(one[2], two[2]) and max(one[1], two[1]) < min(one[3], two[3])


def read_png_mask(file: Path, height: int, width: int) -> Rle:
    """The mask of a PNG file of one channel.

    Raises:
        DataError: it is missing or damaged, no PNG, of several channels or another size, or covers no pixel.
    """
    try:
        with warnings.catch_warnings(action="ignore"), open_png_mask(file) as image:
            size, bands = image.size, len(image.getbands())
            # Before the pixels are decoded: a file of another size may be huge.
            mask = masks.encode_image(image) if size == (width, height) and bands == 1 else None
    except Exception as error:  # a parser may raise anything on a damaged file
        unreadable = explain_unreadable(file, "a mask in PNG", error, "", kinds=("PNG",))
        raise DataError(f"mask {file.name}: {unreadable.what}") from error
    if size != (width, height):
        raise DataError(
            f"mask {file.name} has {size[0]} × {size[1]} pixels, its image {width} × {height}; give masks of its size"
        )
    if mask is None:
        raise DataError(f"mask {file.name} has {bands} channels; expected one: 0 outside of the object, else inside")
    if not masks.rle_area(mask):
        raise DataError(f"mask {file.name} covers no pixel; an expression about nothing has targets []")
    return mask
