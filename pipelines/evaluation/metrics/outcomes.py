"""Exact counts of pixels on run lengths, and the outcome of each expression that all metrics are made from.

Letters: N expressions, P predicted boxes, T target boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.masks import intersect_rles, resize_mask, rle_area
from shards.record import Rle


class Outcome(NamedTuple):
    """How the answer about one expression compares with the truth."""

    ref_id: int
    targets: int
    """Instances that the expression refers to, crowd regions too; 0: an empty target."""
    predicted_empty: bool
    """Whether the answer says that nothing is referred to."""
    predicted_px: int
    target_px: int
    intersection_px: int
    boxes_match: bool
    """Predicted and target boxes match one to one by IoU ≥ 0.5; of an empty target: no box is predicted."""
    boxes_match_giou: bool
    """The same by generalized IoU."""
    best_box_hits: bool
    """The box with the best score and the first target's box have IoU ≥ 0.5."""
    image_id: int = 0
    image_px: int = 0
    """Pixels of the picture, at the resolution of the other counts."""
    crowds: int = 0
    """Those of the targets that are no part of the mask truth: gRefCOCO's crowd regions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """The outcomes of a split as columns (N,)."""

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
        """(N,) whether the expression refers to nothing."""
        empty: NDArray[np.bool_] = self.targets == 0
        return empty

    @property
    def crowd_only(self) -> NDArray[np.bool_]:
        """(N,) whether the expression refers to crowd regions alone: it has a box truth, and an empty mask truth."""
        alone: NDArray[np.bool_] = (self.targets > 0) & (self.crowds == self.targets)
        return alone

    @property
    def union_px(self) -> NDArray[np.int64]:
        """(N,) pixels of prediction and target together."""
        union: NDArray[np.int64] = self.predicted_px + self.target_px - self.intersection_px
        return union

    def select(self, chosen: NDArray[np.bool_]) -> Outcomes:
        """The outcomes of some expressions."""
        return Outcomes(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def stack_outcomes(outcomes: Sequence[Outcome]) -> Outcomes:
    """Single outcomes as columns."""
    columns = dict(
        zip(Outcome._fields, zip(*outcomes, strict=True) if outcomes else [()] * len(Outcome._fields), strict=True)
    )

    def count(name: str) -> NDArray[np.int64]:
        return np.array(columns[name], dtype=np.int64)

    def mark(name: str) -> NDArray[np.bool_]:
        return np.array(columns[name], dtype=np.bool_)

    return Outcomes(
        ref_id=count("ref_id"),
        targets=count("targets"),
        predicted_empty=mark("predicted_empty"),
        predicted_px=count("predicted_px"),
        target_px=count("target_px"),
        intersection_px=count("intersection_px"),
        boxes_match=mark("boxes_match"),
        boxes_match_giou=mark("boxes_match_giou"),
        best_box_hits=mark("best_box_hits"),
        image_id=count("image_id"),
        image_px=count("image_px"),
        crowds=count("crowds"),
    )


def count_mask_pixels(predicted: Rle | None, target: Rle | None, resolution: int = 0) -> tuple[int, int, int]:
    """Pixels of the prediction, of the target and of both.

    Args:
        predicted: run lengths of the picture's size; None has no pixels.
        target: likewise.
        resolution: if not 0, both masks are first scaled to so many pixels square (nearest neighbour), as the published
            evaluations do.
    """
    if resolution:
        predicted = resize_mask(predicted, resolution, resolution) if predicted else None
        target = resize_mask(target, resolution, resolution) if target else None
    predicted_px, target_px = (rle_area(mask) if mask else 0 for mask in (predicted, target))
    shared = intersect_rles([predicted, target]) if predicted and target and predicted_px and target_px else None
    return predicted_px, target_px, rle_area(shared) if shared else 0


def divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Elementwise ratio, 0 where the whole is 0: an empty union scores nothing, as in the benchmarks' code."""
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)
    return ratio


def to_percent(part: float, whole: float) -> float | None:
    """100 × part ÷ whole; None where there is nothing to measure."""
    return None if whole == 0 else float(100 * part / whole)


class Ratio(NamedTuple):
    """A metric as a ratio of sums: what each expression (N,) adds above and below the line."""

    part: NDArray[np.generic]
    whole: NDArray[np.generic]


def summarize(terms: Mapping[str, Ratio]) -> dict[str, float | None]:
    """Metrics in percent; None where there is nothing to measure."""
    return {name: to_percent(term.part.sum(), term.whole.sum()) for name, term in terms.items()}


def precision_ratios(
    iou: NDArray[np.float64], counted: NDArray[np.bool_], thresholds: Sequence[float]
) -> dict[str, Ratio]:
    """Pr@X: share of the counted expressions whose IoU is at least X, for each threshold."""
    return {f"Pr@{threshold}": Ratio(counted & (iou >= threshold), counted) for threshold in thresholds}
