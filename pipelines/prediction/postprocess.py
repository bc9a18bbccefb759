"""From the network's output to the final answer in the original picture (paper, section D.2).

Scores are weighted with existence and thresholded; the chosen queries' boxes are the answer's boxes, and their masks
united with the global mask are its mask. No torch here, so that thresholds are swept from stored outputs alone.

Masks take the published way back: logits are upsampled bilinearly between aligned corners to the square that the
network saw, thresholded there, and stretched to the original picture by nearest neighbours. Only masks that count are
upsampled.

Letters: Q queries, N chosen queries, S side of the network's square, H, W the original picture's size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.raw_output import RawOutput, object_probabilities
from shards.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingResult:
    """What an expression refers to, in pixels of the original picture."""

    id: str
    queries: NDArray[np.int64]
    """(N,) the chosen queries, in their own order, or with NMS from the best score down."""
    boxes: NDArray[np.float64]
    """(N, 4) x0, y0, x1, y1, inside the picture."""
    scores: NDArray[np.float64]
    """(N,) in [0, 1]."""
    points: NDArray[np.float64]
    """(N, 2) x, y of the queries' points."""
    mask: NDArray[np.bool_]
    """(H, W); where no query is chosen it is kept as it is, not emptied."""

    @property
    def no_target(self) -> bool:
        """Whether nothing is referred to: no query's score is above the threshold."""
        return len(self.queries) == 0


def postprocess(raw: RawOutput, settings: PostprocessSettings) -> GroundingResult:
    """Decide what the expression refers to.

    Args:
        raw: the network's output for one expression.
        settings: thresholds and sources.

    Raises:
        SettingsError: the score threshold is so low that it chooses queries whose masks were not kept.
    """
    height, width = raw.original_size
    boxes = scale_boxes(raw.boxes, height, width)
    scores = score_queries(raw, existence_weighting=settings.existence_weighting)
    queries = select_queries(boxes, scores, settings)
    sources = [] if settings.mask_source == "instance" else [raw.global_mask_logits]
    if settings.mask_source != "global":
        sources += select_mask_logits(raw, queries)
    mask = np.zeros((raw.image_size, raw.image_size), dtype=bool)
    for logits in sources:
        mask |= logits_to_mask(logits, raw.image_size, settings.mask_threshold)
    return GroundingResult(
        id=raw.id,
        queries=queries,
        boxes=boxes[queries],
        scores=scores[queries],
        points=raw.points[queries].astype(np.float64) * (width, height),
        mask=resize_nearest(mask, height, width),
    )


def postprocess_instance_masks(
    raw: RawOutput, answer: GroundingResult, settings: PostprocessSettings
) -> NDArray[np.bool_]:
    """Masks (N, H, W) of the chosen queries one by one, for drawing.

    Raises:
        SettingsError: as `postprocess`.
    """
    masks = np.zeros((len(answer.queries), *raw.original_size), dtype=bool)
    for row, logits in enumerate(select_mask_logits(raw, answer.queries)):
        masks[row] = resize_nearest(logits_to_mask(logits, raw.image_size, settings.mask_threshold), *raw.original_size)
    return masks


def score_queries(raw: RawOutput, *, existence_weighting: bool) -> NDArray[np.float64]:
    """Scores (Q,) in [0, 1]: object probability, times the probability that a target exists.

    NOTE: existence is trained as softmax over two logits, but weighs as the sigmoid of the first alone, as published.
    """
    scores = object_probabilities(raw.class_logits)
    return scores / (1 + math.exp(-float(raw.existence_logits[0].clip(-80, 80)))) if existence_weighting else scores


def scale_boxes(boxes_cxcywh: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """Boxes (Q, 4) in fractions of the picture to x0, y0, x1, y1 in its pixels, clipped to it."""
    centre, half = boxes_cxcywh[:, :2].astype(np.float64), boxes_cxcywh[:, 2:].astype(np.float64) / 2
    corners = np.concatenate((centre - half, centre + half), axis=1).clip(0, 1)
    scaled: NDArray[np.float64] = corners * (width, height, width, height)
    return scaled


def select_queries(
    boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float64], settings: PostprocessSettings
) -> NDArray[np.int64]:
    """The queries (N,) that score above the threshold, have a box with an area, and survive NMS if that is on.

    Suppressing after the threshold gives what suppressing before it gives: only better boxes suppress.
    """
    has_area = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)
    queries = np.flatnonzero((scores > settings.score_threshold) & has_area)
    if settings.nms:
        queries = queries[non_max_suppression(boxes_xyxy[queries], scores[queries], settings.nms_iou)]
    return queries


def non_max_suppression(boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float64], iou: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: the survivors' positions, from the best score down.

    A box falls if its IoU with a better survivor is above `iou`; of equal scores the first is better.
    """
    low = np.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
    overlap = (high - low).clip(min=0).prod(axis=-1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=-1)
    covers = overlap > iou * (areas[:, None] + areas[None, :] - overlap)
    survivors: list[int] = []
    for candidate in np.argsort(-scores, kind="stable"):
        if not covers[survivors, candidate].any():
            survivors.append(int(candidate))
    return np.array(survivors, dtype=np.int64)


def logits_to_mask(logits: NDArray[np.float16], size: int, threshold: float) -> NDArray[np.bool_]:
    """Pixels (size, size) where the upsampled logits (h, w) give a probability of at least `threshold`."""
    return binarize(resize_bilinear(logits.astype(np.float32), size), threshold)


def binarize(logits: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Where logits (h, w) give a probability of at least `threshold`."""
    if threshold in (0.0, 1.0):
        return np.full(logits.shape, threshold == 0.0)
    inside: NDArray[np.bool_] = logits >= math.log(threshold / (1 - threshold))
    return inside


def resize_bilinear(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Bilinear interpolation of (h, w) to (size, size) between aligned corners."""
    low, high, share = _place_pixels(values.shape[0], size)
    rows = values[low] + (values[high] - values[low]) * share[:, None]
    low, high, share = _place_pixels(values.shape[1], size)
    # Whole rows are gathered faster than columns.
    turned = np.ascontiguousarray(rows.T)
    enlarged = turned[low] + (turned[high] - turned[low]) * share[:, None]
    return np.ascontiguousarray(enlarged.T)


def resize_nearest(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Nearest-neighbour resize to (height, width): source index = floor(target index × old ÷ new), as published."""
    rows, columns = np.arange(height) * mask.shape[0] // height, np.arange(width) * mask.shape[1] // width
    stretched: NDArray[np.bool_] = mask[:, columns][rows]
    return stretched


def select_mask_logits(raw: RawOutput, queries: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.float16]]:
    """The mask logits (h, w) of some queries.

    Raises:
        SettingsError: a query's mask was not kept.
    """
    places = {int(query): place for place, query in enumerate(raw.mask_queries)}
    if missing := [int(query) for query in queries if int(query) not in places]:
        score = float(object_probabilities(raw.class_logits)[missing].max())
        raise SettingsError(
            f"the mask of a query that scores {score:.3f} was not kept with the raw outputs; raise score_threshold "
            f"above that, or predict again with it"
        )
    return [raw.instance_mask_logits[places[int(query)]] for query in queries]


@functools.lru_cache(maxsize=16)
def _place_pixels(cells: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `size` pixels its two neighbours among `cells` aligned at both ends, and the share of the second."""
    places = np.arange(size) * ((cells - 1) / max(1, size - 1))
    low = np.minimum(places.astype(np.int64), cells - 1)
    return low, np.minimum(low + 1, cells - 1), (places - low).astype(np.float32)
