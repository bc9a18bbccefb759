"""Two sets of predictions for the same expressions: their scores, and where they differ most."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.evaluator import SplitOutcomes
from pipelines.evaluation.metrics.bootstrap import estimate_differences
from pipelines.evaluation.metrics.grefcoco import grefcoco_ratios
from pipelines.evaluation.metrics.outcomes import Outcomes, safe_divide, summarize
from shards.datasets import find_family

TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two sets of predictions, with its metrics in percent."""

    predictions: str
    metrics: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An expression and its score, in [0, 1], under both sets of predictions."""

    id: str
    text: str
    a: float
    b: float


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """Two sets of predictions for the same split."""

    dataset: str
    split: str
    expressions: int
    resolution: int
    a: Side
    b: Side
    differences: dict[str, float | None]
    """B less A, in percent."""
    intervals: dict[str, list[float] | None] | None = None
    """95 % bootstrap intervals of the differences."""
    expressions_better_in: dict[str, int]
    """Expressions that score higher in `a`, in `b`, and in `neither`."""
    differing: list[Difference]
    """The expressions that differ most, the largest difference first."""

    def to_json(self) -> dict[str, Any]:
        """What `igvg compare --format json` prints; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def compare_outcomes(
    names: tuple[str, str], sides: tuple[SplitOutcomes, SplitOutcomes], settings: ScoreSettings, *, most: int = 10
) -> ComparisonReport:
    """The scores of two sets of predictions for the same expressions, and the second less the first.

    Args:
        names: what the sets of predictions are called.
        sides: their outcomes, of the same split in the same order.
        settings: as of `igvg score`.
        most: number of expressions to list, by descending difference.
    """
    ratios = [side.ratios(side.outcomes) for side in sides]
    metrics = [summarize(side) for side in ratios]
    intervals = None
    if settings.bootstrap:
        image_ids, samples, seed = sides[0].outcomes.image_id, settings.bootstrap, settings.seed
        intervals = estimate_differences(ratios[0], ratios[1], image_ids, samples=samples, seed=seed)
    masks, boxes = (all(getattr(side, name) for side in sides) for name in ("has_masks", "has_boxes"))
    scores = [score_expressions(side.outcomes, side.dataset, masks=masks, boxes=boxes) for side in sides]
    change = scores[1] - scores[0]
    order = np.argsort(-np.abs(change), kind="stable")[:most]
    return ComparisonReport(
        dataset=sides[0].dataset,
        split=settings.split,
        expressions=len(sides[0].ids),
        resolution=settings.resolution,
        a=Side(predictions=names[0], metrics=metrics[0]),
        b=Side(predictions=names[1], metrics=metrics[1]),
        differences={name: _subtract(metrics[1][name], metrics[0][name]) for name in metrics[0]},
        intervals=intervals,
        expressions_better_in={
            "a": int((change < -TOLERANCE).sum()),
            "b": int((change > TOLERANCE).sum()),
            "neither": int((np.abs(change) <= TOLERANCE).sum()),
        },
        differing=[
            Difference(id=sides[0].ids[row], text=sides[0].texts[row], a=float(scores[0][row]), b=float(scores[1][row]))
            for row in order[np.abs(change[order]) > TOLERANCE].tolist()
        ],
    )


def score_expressions(
    outcomes: Outcomes, dataset: str, *, masks: bool = True, boxes: bool = True
) -> NDArray[np.float64]:
    """The score (N,) of each expression in [0, 1]: its mask IoU; for an empty target, 1 if it is predicted empty.

    In gRefCOCO a target that is predicted empty scores 0; in other data sets its mask decides. Without masks, be it
    predicted ones or those of targets, a target scores 1 if its boxes match; without boxes either, if it is not
    predicted empty.
    """
    if not masks or outcomes.unmasked.any():
        correct = ~outcomes.predicted_empty
        if boxes:
            correct = outcomes.best_box_hits if find_family(dataset) == "refcoco" else outcomes.boxes_match
        return np.where(outcomes.empty, outcomes.predicted_empty, correct).astype(np.float64)
    if find_family(dataset) == "grefcoco":
        return grefcoco_ratios(outcomes)["gIoU"].numerator.astype(np.float64)
    return np.where(outcomes.empty, outcomes.predicted_empty, safe_divide(outcomes.intersection_px, outcomes.union_px))


def _subtract(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
