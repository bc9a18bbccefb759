"""Predictions as small masks, from which metrics can be computed by hand or by brute force."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipelines.evaluation.evaluator import evaluate_prediction
from pipelines.evaluation.metrics.outcomes import Outcome
from pipelines.prediction.prediction import Prediction
from shards.masks import encode_mask, rle_to_box
from shards.record import Expression, ImageRecord, Instance

SIDE = 4


def make_outcome(
    *, targets: int = 1, predicted_empty: bool = False, predicted: int = 0, target: int = 0, intersection: int = 0,
    ref: int = 1, match: bool = False, match_giou: bool = False, hit: bool = False,
) -> Outcome:  # fmt: skip
    """An outcome given by its pixel counts."""
    return Outcome(
        ref_id=ref, targets=targets, predicted_empty=predicted_empty, predicted_px=predicted, target_px=target,
        intersection_px=intersection, boxes_match=match, boxes_match_giou=match_giou, best_box_hits=hit,
    )  # fmt: skip


@dataclass
class DrawnPrediction:
    """A predicted mask, the masks of the targets and `no_target`; pixels, not run lengths."""

    mask: NDArray[np.bool_]
    targets: list[NDArray[np.bool_]]
    predicted_empty: bool
    ref: int = 1
    boxes: list[list[float]] = field(default_factory=list)

    @property
    def target(self) -> NDArray[np.bool_]:
        """Pixels of any target."""
        return np.any(self.targets, axis=0) if self.targets else np.zeros_like(self.mask)

    @property
    def intersection(self) -> int:
        return int((self.mask & self.target).sum())

    @property
    def union(self) -> int:
        return int((self.mask | self.target).sum())

    @property
    def iou(self) -> float:
        """0 where both are empty."""
        return self.intersection / self.union if self.union else 0.0

    def evaluate(self) -> Outcome:
        """The outcome, computed on run lengths."""
        height, width = self.mask.shape
        instances = tuple(
            Instance(ann_id=index, category_id=1, box=rle_to_box(encode_mask(mask)), mask=encode_mask(mask))
            for index, mask in enumerate(self.targets)
        )
        expression = Expression(id="x/1/1", text="x", instances=tuple(range(len(instances))), ref_id=self.ref)
        record = ImageRecord(
            image_id=1, file_name="x.jpg", width=width, height=height, instances=instances, expressions=(expression,)
        )
        prediction = Prediction(
            id="x/1/1", boxes=self.boxes, scores=None, mask=encode_mask(self.mask), no_target=self.predicted_empty
        )
        return evaluate_prediction(record, expression, prediction)


_pixels = arrays(np.bool_, (SIDE, SIDE))
prediction_lists = st.lists(
    st.builds(
        DrawnPrediction,
        mask=_pixels,
        targets=st.lists(_pixels, max_size=2),
        predicted_empty=st.booleans(),
        ref=st.integers(1, 3),
    ),
    min_size=1,
    max_size=8,
)
"""Predictions with all edge cases: empty masks on either side, `no_target` that contradicts the mask."""


def percent(numerator: float, denominator: float) -> float | None:
    return 100 * numerator / denominator if denominator else None
