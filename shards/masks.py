"""Masks as run-length encodings (RLE): conversion from polygons and pixels, union, intersection, area and resizing.

The only file that imports `pycocotools.mask`; everything here runs in its C code or in NumPy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from shards.errors import DataError, to_line
from shards.record import Box, Expression, ImageRecord, Rle

_MAX_COORDINATE = 1e6
_MAX_OUTLINE = 1e7
# Rows.
_BAND = 256


def encode_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """The union of a COCO annotation's polygons, or its RLE, compressed.

    Args:
        segmentation: a list of flat [x, y, x, y, …] polygons in pixels (those with fewer than three points are
            dropped, as COCO's consumers do), or an RLE dict, compressed or not (crowd regions).
        height: pixels of the image.
        width: pixels of the image.

    Raises:
        DataError: neither of the two, or an RLE of another size.
    """
    if isinstance(segmentation, dict):
        return _encode_rle(segmentation, height, width)
    if not isinstance(segmentation, (list, tuple)):
        raise DataError(f"segmentation is of type {type(segmentation).__name__}, neither polygons nor run lengths")
    polygons = []
    for polygon in segmentation:
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"a polygon that is not a flat list of numbers: {to_line(str(error))}") from error
        if points.ndim != 1 or not np.isfinite(points).all():
            raise DataError("a polygon that is not a flat list of finite numbers")
        if (np.abs(points) > _MAX_COORDINATE).any():
            # COCO's C code allocates memory by their distance, …
            raise DataError("a polygon with points far beyond any image")
        if len(points) >= 6 and len(points) % 2 == 0:
            if np.abs(np.diff(points.reshape(-1, 2), axis=0, append=points[None, :2])).sum() > _MAX_OUTLINE:
                # … and by the length of the outline.
                raise DataError("a polygon whose outline is far longer than any image's")
            polygons.append(points.tolist())
    if not polygons:
        return encode_mask(np.zeros((height, width), dtype=bool))
    return _to_text(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def _encode_rle(segmentation: dict[str, Any], height: int, width: int) -> Rle:
    try:
        size, counts = [int(side) for side in segmentation["size"]], segmentation["counts"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"run lengths without size and counts: {to_line(str(error))}") from error
    if size != [height, width]:
        raise DataError(f"run lengths of size {to_line(str(size))} in an image of [{height}, {width}]")
    try:
        return validate_rle(counts, height, width)
    except ValueError as error:
        raise DataError(str(error)) from error


def validate_rle(counts: Any, height: int, width: int) -> Rle:
    """Run lengths from elsewhere, compressed or as a list, as a mask that COCO's C code can read and merge safely.

    NOTE: at a run of no pixels after the first, which encoding pixels never makes, `merge` stops early or writes past
    its memory. Decoding is safe, so such masks are decoded and encoded again.

    Raises:
        ValueError: they are neither, or do not add up to the image's pixels.
    """
    pixels = height * width
    if isinstance(counts, (list, tuple)):
        if not all(type(run) is int and 0 <= run <= pixels for run in counts) or sum(counts) != pixels:
            raise ValueError(f"run lengths that do not add up to the {pixels} pixels of the image")
        rle = _to_text(coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width))
        return rle if all(counts[1:]) else encode_mask(decode_mask(rle))
    text = counts.encode("ascii", errors="replace") if isinstance(counts, str) else counts
    if not isinstance(text, bytes):
        raise ValueError("run lengths that are neither a string nor a list of whole numbers")
    runs = decode_rle_counts(text)
    if runs.min(initial=0) < 0 or int(runs.sum()) != pixels:
        raise ValueError(f"run lengths that do not add up to the {pixels} pixels of the image")
    rle = {"size": [height, width], "counts": text.decode("ascii")}
    return rle if runs[1:].all() else encode_mask(decode_mask(rle))


def decode_rle_counts(text: bytes) -> NDArray[np.int64]:
    """The run lengths of a compressed string; they may be negative or of a wrong sum.

    Each number is cut into groups of five bits, the lowest first, one character each from "0" on; bit 5 says that
    another group follows, bit 4 of the last group is the sign. From the fourth run on, the difference to the run two
    before is stored.

    Raises:
        ValueError: a character that does not occur in such strings, or the string breaks off.
    """
    groups = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(groups):
        return groups
    more = groups & 0x20
    if groups.min() < 0 or groups.max() > 0x3F or more[-1]:
        raise ValueError("run lengths that are no compressed string of COCO's, or break off")
    ends = np.flatnonzero(more == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 6:
        raise ValueError("run lengths with a number beyond any image's size")
    offsets = np.arange(len(groups)) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & 0x1F) << (5 * offsets), starts)
    values -= np.where(groups[ends] & 0x10, 1 << (5 * lengths), 0)
    runs: NDArray[np.int64] = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """Run lengths of a (H, W) mask."""
    return _to_text(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def encode_image(image: Image.Image) -> Rle:
    """Run lengths of the pixels of an image of one channel that are not 0.

    Row by row, a band at a time: an image as large as Pillow reads then takes twice its own memory, not five times.
    """
    mask = np.zeros((image.height, image.width), dtype=np.uint8, order="F")
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(image.height, top + _BAND)))
        mask[top : top + _BAND] = np.asarray(band) != 0
    return _to_text(coco_mask.encode(mask))


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """The (H, W) mask of run lengths."""
    decoded: NDArray[np.bool_] = coco_mask.decode(rle).astype(bool)
    return decoded


class MaskSampler:
    """Takes pixels of masks of one size off their run lengths, without decoding them.

    Runs go down the columns, one after the other. The run that ends at pixel (row, column) ends, in the sampled mask,
    after all sampled pixels before it: those of the columns before `column`, and those above `row` in it.

    Args:
        height: rows of the masks.
        width: columns of the masks.
        rows: the rows to take, ascending, each from 0 to `height` - 1; the same may occur several times.
        columns: likewise the columns, each from 0 to `width` - 1.
    """

    def __init__(self, height: int, width: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        self.height, self.width, self.shape = height, width, (len(rows), len(columns))
        # A column that occurs several times is made once, and repeated at the end.
        distinct, repeats = np.unique(columns, return_inverse=True)
        self._num_distinct, self._repeats = len(distinct), repeats if len(distinct) < len(columns) else None
        self._rows_before = np.searchsorted(rows, np.arange(height))
        # Beyond the last column: the last run but one ends there if the last one is empty.
        columns_before = np.searchsorted(distinct, np.arange(width + 2))
        self._sampled = np.diff(columns_before)
        self._pixels_before = columns_before * len(rows)

    def sample(self, rle: Rle) -> NDArray[np.bool_]:
        """`decode_mask(rle)[rows[:, None], columns]`, in the memory order of Fortran.

        Raises:
            DataError: the run lengths do not add up to the pixels of the mask.
        """
        try:
            runs = decode_rle_counts(rle["counts"].encode("ascii", errors="replace"))
        except ValueError as error:
            raise DataError(str(error)) from error
        ends = np.cumsum(runs)
        if not len(ends) or runs.min() < 0 or ends[-1] != self.height * self.width:
            raise DataError(f"run lengths that do not add up to the {self.height * self.width} pixels of the image")
        column, row = np.divmod(ends[:-1], self.height)
        runs[:-1] = self._pixels_before[column] + self._sampled[column] * self._rows_before[row]
        runs[-1] = self._num_distinct * self.shape[0]
        runs[1:] -= runs[:-1].copy()
        inside = np.zeros(len(runs), dtype=bool)
        inside[1::2] = True
        mask = np.repeat(inside, runs).reshape(self._num_distinct, self.shape[0])
        return (mask if self._repeats is None else mask[self._repeats]).T


def merge_rles(rles: Sequence[Rle], height: int, width: int) -> Rle:
    """The union of any number of masks of one image; of none, the empty mask."""
    if not rles:
        return {"size": [height, width], "counts": _empty_counts(height, width)}
    return rles[0] if len(rles) == 1 else _to_text(coco_mask.merge(list(rles)))


def merge_target_masks(record: ImageRecord, expression: Expression) -> Rle | None:
    """The ground-truth mask of an expression, the union of its `mask_targets`; None if one of these has no mask."""
    found = [instance.mask for instance in record.mask_targets(expression)]
    known = [mask for mask in found if mask is not None]
    return merge_rles(known, record.height, record.width) if len(known) == len(found) else None


@functools.lru_cache(maxsize=4096)
def _empty_counts(height: int, width: int) -> str:
    single_run = {"size": [height, width], "counts": [height * width]}
    return _to_text(coco_mask.frPyObjects(single_run, height, width))["counts"]


def intersect_rles(rles: Sequence[Rle]) -> Rle:
    """The intersection of at least one mask."""
    return _to_text(coco_mask.merge(list(rles), intersect=True))


def rle_area(rle: Rle) -> int:
    """Pixels inside the mask."""
    return int(coco_mask.area(rle))


def rle_to_box(rle: Rle) -> Box:
    """The box around a mask, x0, y0, x1, y1 in pixels; all zeros for an empty mask."""
    x, y, width, height = (float(value) for value in coco_mask.toBbox(rle))
    return x, y, x + width, y + height


def box_to_rle(box: Box, height: int, width: int) -> Rle:
    """The mask of all pixels that a box x0, y0, x1, y1 in pixels touches."""
    x0, y0 = math.floor(box[0]), math.floor(box[1])
    x1, y1 = max(math.ceil(box[2]), x0 + 1), max(math.ceil(box[3]), y0 + 1)
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return encode_mask(mask)


def nearest_indices(old_size: int, new_size: int) -> NDArray[np.int64]:
    """The source index of each row when `old_size` rows are resized to `new_size` by nearest neighbors, (new_size,).

    It is floor(index × old_size ÷ new_size), as in the published evaluations.
    """
    return np.arange(new_size, dtype=np.int64) * old_size // new_size


def resize_nearest(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask of any size, resized to (height, width) by nearest neighbors."""
    rows, columns = nearest_indices(mask.shape[0], height), nearest_indices(mask.shape[1], width)
    resized: NDArray[np.bool_] = mask[:, columns][rows]
    return resized


def resize_mask(rle: Rle, height: int, width: int) -> Rle:
    """The RLE of a mask, resized by nearest neighbors."""
    return encode_mask(resize_nearest(decode_mask(rle), height, width))


def _to_text(rle: dict[str, Any]) -> Rle:
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
