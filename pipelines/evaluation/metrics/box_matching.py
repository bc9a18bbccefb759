"""Matching of predicted and target boxes in generalized referring expression comprehension (GREC)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLD = 0.5


def match_greedily(iou: NDArray[np.float64], threshold: float) -> list[float]:
    """The IoU of each pair of a greedy matching: the best remaining pair is matched while it reaches the threshold.

    The benchmark's own procedure (gRefCOCO, mdetr/datasets/refexp.py); it may find fewer pairs than optimal matching.

    Args:
        iou: (P, T) IoU or generalized IoU of predictions and targets; not modified.
        threshold: the lowest IoU of a pair.
    """
    remaining = iou.copy()
    pairs: list[float] = []
    while remaining.size and (best := remaining.max()) >= threshold:
        row, column = np.unravel_index(remaining.argmax(), remaining.shape)
        remaining[row], remaining[:, column] = -np.inf, -np.inf
        pairs.append(float(best))
    return pairs


def count_matches(iou: NDArray[np.float64]) -> int:
    """Number of pairs that are matched greedily, each of at least `IOU_THRESHOLD`."""
    return len(match_greedily(iou, IOU_THRESHOLD))


def match_boxes(
    boxes: NDArray[np.float64],
    targets: NDArray[np.float64],
    iou: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> bool:
    """Whether the F1 score is 1: every predicted box matches a target, and every target a predicted box.

    A target that is annotated twice counts twice, as in the benchmark's code.

    Args:
        boxes: (P, 4) xyxy in pixels.
        targets: (T, 4) xyxy in pixels.
        iou: `box_iou` or `generalized_box_iou`.
    """
    return len(boxes) == len(targets) and count_matches(iou(boxes, targets)) == len(targets)
