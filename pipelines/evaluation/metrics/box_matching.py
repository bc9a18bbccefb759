"""Boxes of generalized referring comprehension (GREC): do predicted and target boxes match one to one?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

OVERLAP = 0.5


def pairwise_box_overlap(
    boxes: NDArray[np.float64], others: NDArray[np.float64], kind: Literal["iou", "giou"]
) -> NDArray[np.float64]:
    """Pairwise overlap (P, T) of boxes (P, 4) and (T, 4), xyxy in pixels; 0 for a pair without any area.

    `giou` is the generalized IoU (Rezatofighi et al. 2019): IoU less the share of the enclosing box that is neither.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=-1)
    areas, other_areas = ((found[:, 2:] - found[:, :2]).prod(axis=-1) for found in (boxes, others))
    union = areas[:, None] + other_areas[None] - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    if kind == "iou":
        return iou
    low = np.minimum(boxes[:, None, :2], others[None, :, :2])
    high = np.maximum(boxes[:, None, 2:], others[None, :, 2:])
    enclosing = (high - low).prod(axis=-1)
    waste: NDArray[np.float64] = np.divide(enclosing - union, enclosing, out=np.zeros_like(union), where=enclosing > 0)
    return iou - waste


def count_matches(overlap: NDArray[np.float64], threshold: float = OVERLAP) -> int:
    """Pairs of a greedy matching: again and again the best overlap of those left, while it reaches the threshold.

    The benchmark's own procedure (gRefCOCO, mdetr/datasets/refexp.py); it may find fewer pairs than the best matching.

    Args:
        overlap: (P, T); left as it is.
        threshold: of the overlap.
    """
    left = overlap.copy()
    pairs = 0
    while left.size and left.max() >= threshold:
        row, column = np.unravel_index(left.argmax(), left.shape)
        left[row], left[:, column] = -np.inf, -np.inf
        pairs += 1
    return pairs


def match_boxes(boxes: NDArray[np.float64], targets: NDArray[np.float64], kind: Literal["iou", "giou"]) -> bool:
    """Whether F1 is 1: every predicted box (P, 4) has its target (T, 4), and every target its box.

    A target that is annotated twice counts twice, as in the benchmark's code.
    """
    if len(boxes) != len(targets):
        return False
    return count_matches(pairwise_box_overlap(boxes, targets, kind)) == len(targets)
