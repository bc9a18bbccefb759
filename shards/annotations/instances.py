"""Annotations as instances with masks and boxes, and the reason where a segmentation gives no mask.

NOTE: a segmentation that covers no pixel is unusable, with a valid box or without. COCO's consumers drop it, too:
pycocotools cannot draw fewer than three points, ReLA's loader skips polygons of odd length or under six numbers.
"""

from __future__ import annotations

from typing import Any

from shards import masks
from shards.annotations.coco import Annotation, BoxAlone, CocoImage
from shards.errors import DataError
from shards.record import Box, Instance, Rle

_MIN_COORDINATES = 6
"""Coordinates of the smallest polygon: three points."""


def build_instance(annotation: Annotation, image: CocoImage) -> Instance:
    """The instance that an annotation is.

    Raises:
        DataError: its segmentation is malformed or covers no pixel of the image, or its box alone lies outside of it.
    """
    if isinstance(annotation.segmentation, BoxAlone):
        return _build_box(annotation, image)
    try:
        mask = encode_published_mask(annotation.segmentation, image.height, image.width)
    except (DataError, TypeError, ValueError, OverflowError) as error:
        what = f"annotation {annotation.ann_id}: {error}"
        raise DataError(what, record=f"image {image.image_id}") from error
    box = clip_box(annotation, image) or masks.rle_to_box(mask)
    return Instance(
        ann_id=annotation.ann_id, category_id=annotation.category_id, box=box, mask=mask, crowd=annotation.iscrowd
    )


def _build_box(annotation: Annotation, image: CocoImage) -> Instance:
    box = clip_box(annotation, image)
    if box is None:
        what = f"annotation {annotation.ann_id}: has no segmentation, and its box lies outside the image"
        raise DataError(what, record=f"image {image.image_id}")
    return Instance(
        ann_id=annotation.ann_id, category_id=annotation.category_id, box=box, mask=None, crowd=annotation.iscrowd
    )


def encode_published_mask(segmentation: Any, height: int, width: int) -> Rle:
    """The mask of a published segmentation, which has at least one pixel.

    Raises:
        DataError: it is malformed or covers no pixel.
    """
    if segmentation is None:
        raise DataError("segmentation is null: the object has no outline")
    if (
        isinstance(segmentation, list)
        and segmentation
        and all(isinstance(value, (int, float)) for value in segmentation)
    ):
        raise DataError("segmentation is one flat list of numbers; expected a list of polygons, each such a list")
    mask = masks.encode_segmentation(segmentation, height, width)
    if not masks.rle_area(mask):
        raise DataError(_explain_empty_mask(segmentation, height, width))
    return mask


def _explain_empty_mask(segmentation: Any, height: int, width: int) -> str:
    """Why a well-formed segmentation covers no pixel."""
    if isinstance(segmentation, dict):
        return "its run lengths hold no pixel"
    polygons = [polygon for polygon in segmentation if len(polygon)]
    if not polygons:
        return "its list of polygons is empty" if not len(segmentation) else "its polygons are empty lists"
    drawn = [polygon for polygon in polygons if len(polygon) >= _MIN_COORDINATES and len(polygon) % 2 == 0]
    if not drawn:
        if any(len(polygon) % 2 for polygon in polygons):
            return "its outline has an odd number of coordinates"
        return f"its outline has fewer than three points ({max(map(len, polygons)) // 2})"
    xs, ys = [x for polygon in drawn for x in polygon[0::2]], [y for polygon in drawn for y in polygon[1::2]]
    if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height:
        return f"its outline lies outside the image of {width} × {height} pixels"
    if not any(_shoelace_area(polygon) for polygon in drawn):
        return "its outline has no area: all points lie on one line"
    return "its outline is too small to cover a pixel"


def _shoelace_area(polygon: list[float]) -> float:
    xs, ys = polygon[0::2], polygon[1::2]
    pairs = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in pairs)) / 2


def clip_box(annotation: Annotation, image: CocoImage) -> Box | None:
    """The published box as x0, y0, x1, y1 inside the image; None if nothing of it is there."""
    if annotation.bbox is None:
        return None
    x, y, width, height = annotation.bbox
    x0, y0 = max(x, 0.0), max(y, 0.0)
    x1, y1 = min(x + width, float(image.width)), min(y + height, float(image.height))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
