"""What a zero-shot model finds for one expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.prediction.families import Size
from pipelines.prediction.prediction import Prediction
from shards.masks import encode_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The boxes of one expression, in pixels of the original image.

    Letters: N boxes; H, W the image's size in pixels.
    """

    id: str
    size: Size
    boxes: NDArray[np.float64]
    """(N, 4) x0, y0, x1, y1, inside the image and with an area."""
    scores: NDArray[np.float64]
    """(N,) in [0, 1]."""
    labels: tuple[str, ...]
    """For each box the words that it was found by; empty if the family does not say."""
    masks: NDArray[np.bool_] | None
    """(N, H, W); None if the model gives none."""
    existence: float | None = None
    """Probability that the expression refers to anything in the image; None if the model gives none."""

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """(H, W), the union of the masks."""
        if self.masks is None:
            return None
        union: NDArray[np.bool_] = np.logical_or.reduce(self.masks, axis=0)
        return union


def encode_detections(detections: Detections) -> Prediction:
    """The prediction of one expression: its mask is the union of the masks."""
    mask = detections.mask
    return Prediction(
        id=detections.id,
        boxes=detections.boxes.tolist(),
        scores=detections.scores.tolist(),
        mask=None if mask is None else encode_mask(mask),
        no_target=len(detections.boxes) == 0,
    )
