"""Boxes xyxy as tests draw them, and the two kinds of IoU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.prediction.box_iou import box_iou, generalized_box_iou

Box = tuple[float, float, float, float]
BoxIou = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
IOUS: tuple[BoxIou, ...] = (box_iou, generalized_box_iou)
SQUARE: Box = (0.0, 0.0, 10.0, 10.0)


def stack(*boxes: Box) -> NDArray[np.float64]:
    """Boxes as an array (N, 4)."""
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


# Boxes with whole coordinates, zero areas and duplicates among them.
box = st.tuples(*[st.integers(0, 6)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
box_lists = st.lists(box, max_size=4)
