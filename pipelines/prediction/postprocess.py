"""Post-processing: from the network's output to boxes, scores and a mask in the original image (paper, section D.2).

Class scores are weighted with existence and thresholded. The boxes of the selected queries are the predicted boxes; the
union of their masks and the global mask is the predicted mask. Nothing here needs torch, so that settings can be swept
over stored outputs.

Masks are resized as published: bilinear upsampling with aligned corners to the square that the network saw, threshold,
then nearest-neighbor resizing to the original image. Only masks that are used are upsampled.

Letters: Q queries; N selected queries; S side of the network's square image; H, W the original image's size; h, w the
size of mask logits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.box_iou import intersection_and_union
from pipelines.prediction.raw_output import RawOutput, object_probabilities
from shards.errors import SettingsError
from shards.masks import resize_nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingResult:
    """The boxes and the mask of one expression, in pixels of the original image."""

    id: str
    queries: NDArray[np.int64]
    """(N,) indices of the selected queries, ascending, or with NMS by descending score."""
    boxes: NDArray[np.float64]
    """(N, 4) x0, y0, x1, y1, inside the image."""
    scores: NDArray[np.float64]
    """(N,) in [0, 1]."""
    points: NDArray[np.float64]
    """(N, 2) x, y of the queries' reference points."""
    mask: NDArray[np.bool_]
    """(H, W); it may have pixels although no query is selected."""

    @property
    def no_target(self) -> bool:
        """Whether no query is selected."""
        return len(self.queries) == 0


def postprocess(raw: RawOutput, settings: PostprocessSettings) -> GroundingResult:
    """Boxes, scores and mask of one expression.

    Raises:
        SettingsError: the score threshold is so low that it selects queries whose masks were not kept.
    """
    height, width = raw.original_size
    boxes = scale_boxes(raw.boxes, height, width)
    scores = score_queries(raw, existence_weighting=settings.existence_weighting)
    queries = select_queries(boxes, scores, settings)
    mask = merge_square_masks(raw, queries, settings)
    return GroundingResult(
        id=raw.id,
        queries=queries,
        boxes=boxes[queries],
        scores=scores[queries],
        points=raw.points[queries].astype(np.float64) * (width, height),
        mask=resize_nearest(mask, height, width),
    )


def merge_square_masks(raw: RawOutput, queries: NDArray[np.int64], settings: PostprocessSettings) -> NDArray[np.bool_]:
    """The result's mask for some queries (N,), in the square image (S, S) that the network saw.

    Raises:
        SettingsError: as `postprocess`.
    """
    sources = [] if settings.mask_source == "instance" else [raw.global_mask_logits]
    if settings.mask_source != "global":
        sources += select_mask_logits(raw, queries)
    mask = np.zeros((raw.image_size, raw.image_size), dtype=bool)
    for logits in sources:
        mask |= logits_to_mask(logits, raw.image_size, settings.mask_threshold)
    return mask


def square_instance_masks(
    raw: RawOutput, queries: NDArray[np.int64], settings: PostprocessSettings
) -> NDArray[np.bool_]:
    """One mask (N, S, S) in the square image that the network saw for each selected query (N,).

    Raises:
        SettingsError: as `postprocess`.
    """
    masks = np.zeros((len(queries), raw.image_size, raw.image_size), dtype=bool)
    for mask, logits in zip(masks, select_mask_logits(raw, queries), strict=True):
        mask[:] = logits_to_mask(logits, raw.image_size, settings.mask_threshold)
    return masks


def postprocess_instance_masks(
    raw: RawOutput, queries: NDArray[np.int64], settings: PostprocessSettings
) -> NDArray[np.bool_]:
    """One mask (N, H, W) for each selected query (N,).

    Raises:
        SettingsError: as `postprocess`.
    """
    masks = np.zeros((len(queries), *raw.original_size), dtype=bool)
    for mask, square in zip(masks, square_instance_masks(raw, queries, settings), strict=True):
        mask[:] = resize_nearest(square, *raw.original_size)
    return masks


def score_queries(raw: RawOutput, *, existence_weighting: bool) -> NDArray[np.float64]:
    """Scores (Q,) in [0, 1]: object probability, if weighted times the probability that a target exists.

    NOTE: existence is trained as softmax over two logits, but the weight is the sigmoid of the first alone, as
    published.
    """
    scores = object_probabilities(raw.class_logits)
    return scores / _existence_divisor(raw) if existence_weighting else scores


def existence_probability(raw: RawOutput) -> float:
    """The probability that a target exists, with which scores are weighted."""
    return 1 / _existence_divisor(raw)


def _existence_divisor(raw: RawOutput) -> float:
    return 1 + math.exp(-float(raw.existence_logits[0].clip(-80, 80)))


def scale_boxes(boxes_cxcywh: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """Boxes (Q, 4) cxcywh in fractions of the image to xyxy in its pixels, clipped to it."""
    center, half_size = boxes_cxcywh[:, :2].astype(np.float64), boxes_cxcywh[:, 2:].astype(np.float64) / 2
    corners = np.concatenate((center - half_size, center + half_size), axis=1).clip(0, 1)
    scaled: NDArray[np.float64] = corners * (width, height, width, height)
    return scaled


def select_queries(
    boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float64], settings: PostprocessSettings
) -> NDArray[np.int64]:
    """Indices (N,) of the queries that score above the threshold, have a box with an area, and survive NMS if it is on.

    NMS after the threshold gives the same as NMS before it: a box is suppressed only by one with a higher score.
    """
    has_area = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)
    queries = np.flatnonzero((scores > settings.score_threshold) & has_area)
    if settings.nms:
        queries = queries[non_max_suppression(boxes_xyxy[queries], scores[queries], settings.nms_iou)]
    return queries


def non_max_suppression(
    boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float64], iou_threshold: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression of boxes (Q, 4) with scores (Q,): the kept indices by descending score.

    A box is suppressed if its IoU with a kept box of a higher score is above the threshold; of equal scores the first
    counts as higher.
    """
    intersection, union = intersection_and_union(boxes_xyxy, boxes_xyxy)
    overlaps = intersection > iou_threshold * union
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not overlaps[kept, index].any():
            kept.append(int(index))
    return np.array(kept, dtype=np.int64)


def logits_to_mask(logits: NDArray[np.float16], size: int, threshold: float) -> NDArray[np.bool_]:
    """Pixels (size, size) where the upsampled logits (h, w) give a probability of at least `threshold`."""
    return binarize(resize_bilinear(logits.astype(np.float32), size), threshold)


def binarize(logits: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Where logits give a probability of at least `threshold`; nowhere for 1, everywhere for 0."""
    if threshold in (0.0, 1.0):
        return np.full(logits.shape, threshold == 0.0)
    mask: NDArray[np.bool_] = logits >= math.log(threshold / (1 - threshold))
    return mask


def resize_bilinear(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Bilinear interpolation of (h, w) to (size, size) with aligned corners."""
    low, high, weight = _bilinear_indices(values.shape[0], size)
    rows = values[low] + (values[high] - values[low]) * weight[:, None]
    low, high, weight = _bilinear_indices(values.shape[1], size)
    # Gathering whole rows is faster than gathering columns.
    columns = np.ascontiguousarray(rows.T)
    resized = columns[low] + (columns[high] - columns[low]) * weight[:, None]
    return np.ascontiguousarray(resized.T)


def select_mask_logits(raw: RawOutput, queries: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.float16]]:
    """The mask logits (h, w) of some queries.

    Raises:
        SettingsError: a query's mask was not kept.
    """
    rows = {int(query): row for row, query in enumerate(raw.mask_queries)}
    if missing := [int(query) for query in queries if int(query) not in rows]:
        score = float(object_probabilities(raw.class_logits)[missing].max())
        raise SettingsError(
            f"the mask of a query that scores {score:.3f} was not kept with the raw outputs; raise score_threshold "
            f"above that, or predict again with it"
        )
    return [raw.instance_mask_logits[rows[int(query)]] for query in queries]


@functools.lru_cache(maxsize=16)
def _bilinear_indices(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `new` pixels its two neighbors among `old` pixels, corners aligned, and the weight of the second."""
    positions = np.arange(new) * ((old - 1) / max(1, new - 1))
    low = np.minimum(positions.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), (positions - low).astype(np.float32)
