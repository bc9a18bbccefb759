"""The metrics of each data set: functions from outcomes to ratios of sums, and what each metric measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pipelines.evaluation.metrics.grefcoco import grefcoco_ratios
from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio
from pipelines.evaluation.metrics.refcoco import refcoco_ratios
from pipelines.evaluation.metrics.refzom import refzom_ratios
from pipelines.evaluation.metrics.rrefcoco import rrefcoco_ratios
from shards.datasets import DatasetName, find_family

_FAMILIES: dict[str, tuple[Callable[[Outcomes], dict[str, Ratio]], str]] = {
    "grefcoco": (grefcoco_ratios, "gIoU"),
    "ref-zom": (refzom_ratios, "mIoU"),
    "rrefcoco": (rrefcoco_ratios, "rIoU"),
    "refcoco": (refcoco_ratios, "mIoU"),
}
METRICS = {name.value: _FAMILIES[name.family][0] for name in DatasetName}
PRIMARY_METRIC = {name.value: _FAMILIES[name.family][1] for name in DatasetName}
"""The metric by which validation selects the best checkpoint."""


def find_metrics(dataset: str) -> Callable[[Outcomes], dict[str, Ratio]]:
    """The metrics of a data set; those of gRefCOCO for a data set of one's own."""
    return _FAMILIES[find_family(dataset)][0]


# Metrics that depend on boxes alone, and on `no_target` alone; all others depend on masks.
BOX_METRICS = frozenset({"F1score", "F1score-gIoU", "Acc@0.5"})
NO_TARGET_METRICS = frozenset({"N-acc", "T-acc", "Acc", "mRR"})

DEFINITIONS = {
    "gIoU": "mean mask IoU over expressions; an empty target scores 1 if it is predicted empty, else 0",
    "cIoU": "sum of intersections ÷ sum of unions over expressions",
    "oIoU": "sum of intersections ÷ sum of unions over expressions with a target",
    "mIoU": "mean mask IoU over expressions with a target; for R-RefCOCO first over each ref, then over refs",
    "Pr@X": "fraction of expressions with a target whose mask IoU is at least X",
    "N-acc": "fraction of empty targets that are predicted empty",
    "T-acc": "fraction of expressions with a target that are not predicted empty",
    "Acc": "fraction of empty targets that are predicted empty",
    "F1score": "fraction of expressions whose boxes match the targets one to one, IoU ≥ 0.5 (the paper)",
    "F1score-gIoU": "the same by generalized IoU ≥ 0.5 (the benchmark's own code)",
    "mRR": "fraction of a ref's negative expressions that are predicted empty, mean over refs",
    "rIoU": (
        "a ref's intersections ÷ (its unions + pixels predicted for its negative expressions that are not predicted "
        "empty), mean over refs"
    ),
    "Acc@0.5": "fraction of expressions whose best box has IoU ≥ 0.5 with the target's box",
}


def metric_ratios(dataset: str, outcomes: Outcomes, *, has_boxes: bool, has_masks: bool) -> dict[str, Ratio]:
    """The metrics of a data set as ratios of sums.

    A metric of what is not predicted is 0 ÷ 0; so are those of masks where an expression has a target without a mask.
    """
    has_masks = has_masks and not outcomes.unmasked.any()
    zeros = Ratio(np.zeros(len(outcomes)), np.zeros(len(outcomes)))

    def is_measured(name: str) -> bool:
        return name in NO_TARGET_METRICS or (has_boxes if name in BOX_METRICS else has_masks)

    return {name: ratio if is_measured(name) else zeros for name, ratio in find_metrics(dataset)(outcomes).items()}


def primary_score(dataset: str, metrics: Mapping[str, float | None]) -> float:
    """The value of the metric by which checkpoints are compared, 0 if there is none."""
    return metrics.get(primary_name(dataset, metrics)) or 0.0


def primary_name(dataset: str, metrics: Mapping[str, float | None]) -> str:
    """The metric by which checkpoints are compared; without ground-truth masks one of boxes."""
    names = (_FAMILIES[find_family(dataset)][1], *sorted(BOX_METRICS))
    return next((name for name in names if metrics.get(name) is not None), names[0])


def describe_metric(name: str) -> str:
    """What a metric measures, in one clause."""
    return DEFINITIONS.get(name) or DEFINITIONS["Pr@X"].replace("X", name.removeprefix("Pr@"))
