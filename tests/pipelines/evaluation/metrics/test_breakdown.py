"""The metrics of each group of a split, worked out by hand."""

from __future__ import annotations

import pytest

from pipelines.evaluation.metrics.benchmarks import METRICS
from pipelines.evaluation.metrics.breakdown import break_down
from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes
from tests.support.drawn_predictions import make_outcome


def make(targets: int, intersection: int = 0, *, target_px: int = 10, predicted_empty: bool = False) -> Outcome:
    """An outcome in an image of 100 pixels."""
    outcome = make_outcome(
        targets=targets, predicted_empty=predicted_empty, predicted=intersection, target=target_px if targets else 0,
        intersection=intersection,
    )  # fmt: skip
    return outcome._replace(image_px=100)


def test_each_group_is_scored_as_a_split_of_its_own() -> None:
    outcomes = stack_outcomes([make(0, predicted_empty=True), make(1, 5), make(2, 10), make(2, 0), make(7, 10)])
    parts = break_down(outcomes, METRICS["grefcoco"])
    assert {name: part["expressions"] for name, part in parts["kind"].items()} == {
        "empty": 1, "single": 1, "multiple": 3
    }  # fmt: skip
    assert {name: part["metrics"]["gIoU"] for name, part in parts["kind"].items()} == {
        "empty": 100.0, "single": 50.0, "multiple": pytest.approx(200 / 3)
    }  # fmt: skip
    assert {name: part["expressions"] for name, part in parts["targets"].items()} == {"0": 1, "1": 1, "2": 2, "5+": 1}
    assert parts["kind"]["empty"]["metrics"]["T-acc"] is None


@pytest.mark.parametrize(("pixels", "name"), [(1, "small"), (2, "medium"), (14, "medium"), (15, "large")])
def test_a_targets_size_is_its_fraction_of_the_image(pixels: int, name: str) -> None:
    parts = break_down(stack_outcomes([make(1, target_px=pixels), make(0)]), METRICS["refcoco"])
    assert {key: part["expressions"] for key, part in parts["size"].items()} == {name: 1}


def test_a_group_without_empty_targets_has_no_robust_iou() -> None:
    outcomes = stack_outcomes([make(0), make(1, 5), make(2, 5)])
    parts = break_down(outcomes, METRICS["rrefcoco"])["kind"]
    assert parts["single"]["metrics"]["rIoU"] is None
    assert parts["single"]["metrics"]["mIoU"] == 50
