"""Pairwise overlap of boxes in NumPy.

Boxes are x0, y0, x1, y1; the results are tables (N, M) for N and M boxes. `pipelines.model.box_ops` has the same
operations in PyTorch, for training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]


def intersection_and_union(boxes1: Boxes, boxes2: Boxes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas (N, M) of the intersection and of the union of boxes (N, 4) and (M, 4)."""
    top_left = np.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    bottom_right = np.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    intersection: NDArray[np.float64] = (bottom_right - top_left).clip(min=0).prod(axis=-1)
    area1, area2 = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (boxes1, boxes2))
    return intersection, area1[:, None] + area2[None] - intersection


def box_iou(boxes1: Boxes, boxes2: Boxes) -> NDArray[np.float64]:
    """IoU (N, M) in [0, 1] of boxes (N, 4) and (M, 4); 0 for a pair without any area."""
    intersection, union = intersection_and_union(boxes1, boxes2)
    return _divide(intersection, union)


def generalized_box_iou(boxes1: Boxes, boxes2: Boxes) -> NDArray[np.float64]:
    """Generalized IoU (N, M) in (-1, 1] of boxes (N, 4) and (M, 4) (Rezatofighi et al. 2019).

    It is the IoU less the fraction of the enclosing box that is in neither; 0 for a pair without any area.
    """
    intersection, union = intersection_and_union(boxes1, boxes2)
    top_left = np.minimum(boxes1[:, None, :2], boxes2[None, :, :2])
    bottom_right = np.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    enclosing = (bottom_right - top_left).prod(axis=-1)
    return _divide(intersection, union) - _divide(enclosing - union, enclosing)


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(
        numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0
    )
    return ratio
