"""The benchmarks' metrics, by data set: outcomes of single expressions in, ratios of sums out. NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.evaluation.metrics.grefcoco import grefcoco_ratios
from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio
from pipelines.evaluation.metrics.refcoco import refcoco_ratios
from pipelines.evaluation.metrics.refzom import refzom_ratios
from pipelines.evaluation.metrics.rrefcoco import rrefcoco_ratios

METRICS: dict[str, Callable[[Outcomes], dict[str, Ratio]]] = {
    "grefcoco": grefcoco_ratios,
    "ref-zom": refzom_ratios,
    "rrefcoco": rrefcoco_ratios,
    "rrefcoco+": rrefcoco_ratios,
    "rrefcocog": rrefcoco_ratios,
    "refcoco": refcoco_ratios,
    "refcoco+": refcoco_ratios,
    "refcocog": refcoco_ratios,
}

# The metric that a training is judged by.
PRIMARY_METRIC = {
    "grefcoco": "gIoU",
    "ref-zom": "mIoU",
    "rrefcoco": "rIoU",
    "rrefcoco+": "rIoU",
    "rrefcocog": "rIoU",
    "refcoco": "mIoU",
    "refcoco+": "mIoU",
    "refcocog": "mIoU",
}

# What boxes alone decide, and what the flag alone decides; masks decide the rest.
BOX_METRICS = frozenset({"F1score", "F1score-gIoU", "Acc@0.5"})
FLAG_METRICS = frozenset({"N-acc", "T-acc", "Acc", "mRR"})

DEFINITIONS = {
    "gIoU": "mean mask IoU over expressions; an empty target scores 1 if it is flagged, else 0",
    "cIoU": "sum of intersections ÷ sum of unions over expressions",
    "oIoU": "sum of intersections ÷ sum of unions over expressions with a target",
    "mIoU": "mean mask IoU over expressions with a target; for R-RefCOCO first over each ref, then over refs",
    "Pr@X": "share of expressions with a target whose mask IoU is at least X",
    "N-acc": "share of empty targets that are flagged as such",
    "T-acc": "share of expressions with a target that are not flagged as empty",
    "Acc": "share of empty targets that are flagged as such",
    "F1score": "share of expressions whose boxes match the targets one to one, IoU ≥ 0.5 (the paper)",
    "F1score-gIoU": "the same by generalized IoU ≥ 0.5 (the benchmark's own code)",
    "mRR": "share of a ref's empty phrases that are flagged, mean over refs",
    "rIoU": "a ref's intersections ÷ (its unions + pixels predicted for its unflagged empty phrases), mean over refs",
    "Acc@0.5": "share of expressions whose best box has IoU ≥ 0.5 with the target's box",
}


def metric_ratios(dataset: str, outcomes: Outcomes, *, boxes: bool, masks: bool) -> dict[str, Ratio]:
    """The metrics of a data set as ratios of sums; those of what predictions do not give are 0 ÷ 0: not measured.

    Args:
        dataset: a key of `METRICS`.
        outcomes: of N expressions.
        boxes: whether the predictions give boxes.
        masks: whether the predictions give masks.
    """
    nothing = Ratio(np.zeros(len(outcomes)), np.zeros(len(outcomes)))

    def is_given(name: str) -> bool:
        return name in FLAG_METRICS or (boxes if name in BOX_METRICS else masks)

    return {name: term if is_given(name) else nothing for name, term in METRICS[dataset](outcomes).items()}


def describe_metric(name: str) -> str:
    """What a metric of a score document measures, in one clause."""
    return DEFINITIONS.get(name) or DEFINITIONS["Pr@X"].replace("X", name.removeprefix("Pr@"))
