"""Masks as run lengths: from polygons, to and from pixels, united, measured and resized.

The only file that imports `pycocotools.mask`; everything here runs in its C code or in NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from shards.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shards.record import Box, Rle


def encode_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """The union of a COCO annotation's polygons, or its RLE, compressed.

    Args:
        segmentation: a list of flat [x, y, x, y, …] polygons in pixels (those with fewer than three points are
            dropped, as COCO's consumers do), or an RLE dict, compressed or not (crowd regions).
        height: pixels of the picture.
        width: pixels of the picture.

    Raises:
        DataError: neither of the two, or an RLE of another size.
    """
    if isinstance(segmentation, dict):
        return _encode_rle(segmentation, height, width)
    if not isinstance(segmentation, (list, tuple)):
        raise DataError(f"segmentation is a {type(segmentation).__name__}, neither polygons nor run lengths")
    polygons = []
    for polygon in segmentation:
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"a polygon that is not a flat list of numbers: {error}") from error
        if points.ndim != 1 or not np.isfinite(points).all():
            raise DataError("a polygon that is not a flat list of finite numbers")
        if len(points) >= 6 and len(points) % 2 == 0:
            polygons.append(points.tolist())
    if not polygons:
        return encode_mask(np.zeros((height, width), dtype=bool))
    return _to_text(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def _encode_rle(segmentation: dict[str, Any], height: int, width: int) -> Rle:
    try:
        size, counts = [int(side) for side in segmentation["size"]], segmentation["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"run lengths without size and counts: {error}") from error
    if size != [height, width]:
        raise DataError(f"run lengths of size {size} in a picture of [{height}, {width}]")
    if isinstance(counts, (list, tuple)):
        if sum(counts) != height * width or min(counts, default=0) < 0:
            raise DataError(f"run lengths that add up to {sum(counts)} of {height * width} pixels")
        return _to_text(coco_mask.frPyObjects({"size": size, "counts": list(counts)}, height, width))
    return {"size": size, "counts": counts.decode("ascii") if isinstance(counts, bytes) else str(counts)}


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """Run lengths of a (H, W) mask."""
    return _to_text(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def encode_masks(masks: NDArray[np.bool_]) -> list[Rle]:
    """Run lengths of (N, H, W) masks, N in a list."""
    if len(masks) == 0:
        return []
    return [_to_text(rle) for rle in coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))]


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """The (H, W) mask of run lengths."""
    decoded: NDArray[np.bool_] = coco_mask.decode(rle).astype(bool)
    return decoded


def unite_masks(rles: Sequence[Rle], height: int, width: int) -> Rle:
    """The union of any number of masks of one picture; of none, the empty mask."""
    if not rles:
        return encode_mask(np.zeros((height, width), dtype=bool))
    return rles[0] if len(rles) == 1 else _to_text(coco_mask.merge(list(rles)))


def intersect_masks(rles: Sequence[Rle]) -> Rle:
    """The intersection of at least one mask."""
    return _to_text(coco_mask.merge(list(rles), intersect=True))


def measure_area(rle: Rle) -> int:
    """Pixels inside the mask."""
    return int(coco_mask.area(rle))


def enclose_mask(rle: Rle) -> Box:
    """The box around a mask, x0, y0, x1, y1 in pixels; all zeros for an empty mask."""
    x, y, width, height = (float(value) for value in coco_mask.toBbox(rle))
    return x, y, x + width, y + height


def resize_mask(rle: Rle, height: int, width: int) -> Rle:
    """Nearest-neighbour resize as the published evaluations do: source index = floor(target index × old ÷ new)."""
    mask = decode_mask(rle)
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    return encode_mask(mask[rows[:, None], columns[None, :]])


def _to_text(rle: dict[str, Any]) -> Rle:
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
