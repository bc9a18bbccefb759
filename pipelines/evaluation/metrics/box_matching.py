"""Matching of predicted and target boxes in generalized referring expression comprehension (GREC)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLD = 0.5


def count_matches(iou: NDArray[np.float64]) -> int:
    """Number of pairs in a greedy matching: the best remaining pair is matched while it reaches `IOU_THRESHOLD`.

    The benchmark's own procedure (gRefCOCO, mdetr/datasets/refexp.py); it may find fewer pairs than optimal matching.

    Args:
        iou: (P, T) IoU or generalized IoU of predictions and targets; not modified.
    """
    remaining = iou.copy()
    matches = 0
    while remaining.size and remaining.max() >= IOU_THRESHOLD:
        row, column = np.unravel_index(remaining.argmax(), remaining.shape)
        remaining[row], remaining[:, column] = -np.inf, -np.inf
        matches += 1
    return matches


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
