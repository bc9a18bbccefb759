"""`igvg compare`: two answers to the same expressions, how far apart they score, and where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.evaluation.metrics.bootstrap import estimate_differences
from pipelines.evaluation.metrics.grefcoco import grefcoco_ratios
from pipelines.evaluation.metrics.outcomes import Outcomes, safe_divide, summarize
from shards.progress import log

TOLERANCE = 1e-9


def run(before: Path, after: Path, shards: Path, settings: ScoreSettings, *, most: int = 10) -> dict[str, Any]:
    """Score both predictions on a split and say what changed.

    Args:
        before: a prediction file, or the folder of `igvg predict`.
        after: likewise; differences are `after` less `before`.
        shards: folder that `igvg prepare` made.
        settings: as of `igvg score`.
        most: expressions to list, those that differ most first.

    Returns:
        What `igvg compare --format json` prints.

    Raises:
        DataError: either is damaged, or does not hold just the split's expressions.
    """
    sides = [evaluate_split(path, shards, settings.split, settings.resolution) for path in (before, after)]
    for warning in dict.fromkeys(warning for side in sides for warning in side.warnings):
        log(warning)
    terms = [side.ratios(side.outcomes) for side in sides]
    metrics = [summarize(side) for side in terms]
    document: dict[str, Any] = {
        "dataset": sides[0].dataset,
        "split": settings.split,
        "expressions": len(sides[0].ids),
        "resolution": settings.resolution,
        "a": {"predictions": str(before), "metrics": metrics[0]},
        "b": {"predictions": str(after), "metrics": metrics[1]},
        "differences": {name: _subtract(metrics[1][name], metrics[0][name]) for name in metrics[0]},
    }
    if settings.bootstrap:
        image_ids, samples, seed = sides[0].outcomes.image_id, settings.bootstrap, settings.seed
        document["intervals"] = estimate_differences(terms[0], terms[1], image_ids, samples=samples, seed=seed)
    masks, boxes = (all(getattr(side, name) for side in sides) for name in ("has_masks", "has_boxes"))
    scores = [score_expressions(side.outcomes, side.dataset, masks=masks, boxes=boxes) for side in sides]
    change = scores[1] - scores[0]
    document["expressions_better_in"] = {
        "a": int((change < -TOLERANCE).sum()),
        "b": int((change > TOLERANCE).sum()),
        "neither": int((np.abs(change) <= TOLERANCE).sum()),
    }
    order = np.argsort(-np.abs(change), kind="stable")[:most]
    document["differing"] = [
        {"id": sides[0].ids[row], "text": sides[0].texts[row], "a": float(scores[0][row]), "b": float(scores[1][row])}
        for row in order[np.abs(change[order]) > TOLERANCE].tolist()
    ]
    return document


def score_expressions(
    outcomes: Outcomes, dataset: str, *, masks: bool = True, boxes: bool = True
) -> NDArray[np.float64]:
    """What each expression (N,) scores, in [0, 1]: the IoU of its mask; of an empty target, whether it is flagged.

    As gRefCOCO counts them, a target that is flagged as empty scores 0; the other data sets go by its mask. Without
    masks a target scores whether its boxes are right; without boxes either, whether it is not flagged.
    """
    if not masks:
        right = outcomes.best_box_hits if dataset.startswith("refcoco") else outcomes.boxes_match
        return np.where(outcomes.empty, outcomes.predicted_empty, right if boxes else ~outcomes.predicted_empty).astype(
            np.float64
        )
    if dataset == "grefcoco":
        return grefcoco_ratios(outcomes)["gIoU"].numerator.astype(np.float64)
    return np.where(outcomes.empty, outcomes.predicted_empty, safe_divide(outcomes.intersection_px, outcomes.union_px))


def _subtract(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
