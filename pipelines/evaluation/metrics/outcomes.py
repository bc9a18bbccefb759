"""What is measured about single expressions, and metrics as ratios of sums over them.

Letters: N expressions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.masks import intersect_rles, resize_mask, rle_area
from shards.record import Rle

UNKNOWN_PX = -1
"""The pixels of a ground-truth mask that is not known, as only boxes of targets are."""


class Outcome(NamedTuple):
    """How the prediction for one expression compares with the ground truth."""

    ref_id: int
    targets: int
    """Number of target instances, with crowd regions; 0 for an empty target."""
    predicted_empty: bool
    """Whether the prediction says that there is no target."""
    predicted_px: int
    target_px: int
    """`UNKNOWN_PX` if a target has no mask."""
    intersection_px: int
    boxes_match: bool
    """Predicted and target boxes match one to one by IoU ≥ 0.5; for an empty target: no box is predicted."""
    boxes_match_giou: bool
    """The same by generalized IoU ≥ 0.5."""
    best_box_hits: bool
    """The box with the highest score and the first target's box have IoU ≥ 0.5."""
    image_id: int = 0
    image_px: int = 0
    """Pixels of the image, at the resolution of the other pixel counts."""
    crowds: int = 0
    """Number of targets that are no part of the ground-truth mask: gRefCOCO's crowd regions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """The outcomes of a split as columns (N,); the fields are those of `Outcome`."""

    ref_id: NDArray[np.int64]
    targets: NDArray[np.int64]
    predicted_empty: NDArray[np.bool_]
    predicted_px: NDArray[np.int64]
    target_px: NDArray[np.int64]
    intersection_px: NDArray[np.int64]
    boxes_match: NDArray[np.bool_]
    boxes_match_giou: NDArray[np.bool_]
    best_box_hits: NDArray[np.bool_]
    image_id: NDArray[np.int64]
    image_px: NDArray[np.int64]
    crowds: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self.targets)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """(N,) whether the expression has no target."""
        empty: NDArray[np.bool_] = self.targets == 0
        return empty

    @property
    def crowd_only(self) -> NDArray[np.bool_]:
        """(N,) whether all targets are crowd regions: there are ground-truth boxes, and the mask is empty."""
        crowd_only: NDArray[np.bool_] = (self.targets > 0) & (self.crowds == self.targets)
        return crowd_only

    @property
    def unmasked(self) -> NDArray[np.bool_]:
        """(N,) whether the ground-truth mask is not known, as only the box of a target is."""
        unmasked: NDArray[np.bool_] = self.target_px == UNKNOWN_PX
        return unmasked

    @property
    def union_px(self) -> NDArray[np.int64]:
        """(N,) pixels of the union of prediction and target."""
        union: NDArray[np.int64] = self.predicted_px + self.target_px - self.intersection_px
        return union

    def select(self, selected: NDArray[np.bool_]) -> Outcomes:
        """The outcomes of the expressions where `selected` (N,) is true."""
        return Outcomes(**{field.name: getattr(self, field.name)[selected] for field in fields(self)})


_FLAGS = frozenset({"predicted_empty", "boxes_match", "boxes_match_giou", "best_box_hits"})
DTYPES: dict[str, type[np.generic]] = {name: np.bool_ if name in _FLAGS else np.int64 for name in Outcome._fields}


def stack_outcomes(outcomes: Sequence[Outcome]) -> Outcomes:
    """Single outcomes as columns."""
    columns = zip(*outcomes, strict=True) if outcomes else [()] * len(DTYPES)
    return Outcomes(**{
        name: np.array(column, dtype=dtype) for (name, dtype), column in zip(DTYPES.items(), columns, strict=True)
    })  # fmt: skip


def count_mask_pixels(predicted: Rle, target: Rle | None, resolution: int = 0) -> tuple[int, int, int]:
    """Pixels of the prediction, of the target and of their intersection; both masks have the image's size.

    Without a ground-truth mask those of the target are `UNKNOWN_PX`.

    If `resolution` is not 0, both are first resized to this side length (nearest neighbor), as in the published
    evaluations.
    """
    if resolution:
        predicted = resize_mask(predicted, resolution, resolution)
        target = target and resize_mask(target, resolution, resolution)
    predicted_px = rle_area(predicted)
    if target is None:
        return predicted_px, UNKNOWN_PX, 0
    target_px = rle_area(target)
    if not (predicted_px and target_px):
        return predicted_px, target_px, 0
    return predicted_px, target_px, rle_area(intersect_rles([predicted, target]))


class Ratio(NamedTuple):
    """A metric as a ratio of sums: what each expression (N,) adds to the numerator and to the denominator."""

    numerator: NDArray[np.generic]
    denominator: NDArray[np.generic]


def safe_divide(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> NDArray[np.float64]:
    """Elementwise ratio, 0 where the denominator is 0: an empty union has IoU 0, as in the benchmarks' code."""
    ratio: NDArray[np.float64] = np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator != 0)
    return ratio


def summarize(ratios: Mapping[str, Ratio]) -> dict[str, float | None]:
    """Metrics in percent; None where the denominator is 0."""
    sums = {name: (ratio.numerator.sum(), ratio.denominator.sum()) for name, ratio in ratios.items()}
    return {
        name: None if denominator == 0 else float(100 * numerator / denominator)
        for name, (numerator, denominator) in sums.items()
    }


def precision_ratios(
    iou: NDArray[np.float64], counted: NDArray[np.bool_], thresholds: Sequence[float]
) -> dict[str, Ratio]:
    """Pr@X for each threshold X: the fraction of the counted expressions (N,) whose IoU is at least X."""
    return {f"Pr@{threshold}": Ratio(counted & (iou >= threshold), counted) for threshold in thresholds}
