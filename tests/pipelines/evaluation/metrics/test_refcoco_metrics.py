"""RefCOCO's metrics, worked out by hand and by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from pipelines.evaluation.evaluator import evaluate_prediction
from pipelines.evaluation.metrics.benchmarks import DEFINITIONS, METRICS, PRIMARY_METRIC, describe_metric
from pipelines.evaluation.metrics.outcomes import Outcome, count_mask_pixels, stack_outcomes, summarize
from pipelines.evaluation.metrics.refcoco import refcoco_ratios
from pipelines.prediction.prediction import Prediction
from shards.masks import encode_mask
from shards.record import Expression, ImageRecord, Instance
from tests.support.drawn_predictions import DrawnPrediction, make_outcome, percent, prediction_lists

HALF = make_outcome(predicted=10, target=5, intersection=5)
FULL = make_outcome(predicted=8, target=8, intersection=8, hit=True)


def score(*outcomes: Outcome) -> dict[str, float | None]:
    return summarize(refcoco_ratios(stack_outcomes(outcomes)))


def hits(boxes: list[list[float]], scores: list[float] | None, *targets: tuple[float, float, float, float]) -> bool:
    """Whether the best box hits the target, in an image of 20 × 20."""
    mask = encode_mask(np.zeros((20, 20), dtype=bool))
    instances = tuple(Instance(ann_id=n, category_id=1, box=box, mask=mask) for n, box in enumerate(targets))
    expression = Expression(id="refcoco/1/1", text="x", instances=tuple(range(len(instances))), ref_id=1)
    record = ImageRecord(
        image_id=1, file_name="x.jpg", width=20, height=20, instances=instances, expressions=(expression,)
    )
    prediction = Prediction(id="refcoco/1/1", boxes=boxes, scores=scores, mask=mask, no_target=False)
    return evaluate_prediction(record, expression, prediction).best_box_hits


def test_the_keys_are_those_of_the_contract() -> None:
    keys = "mIoU oIoU Pr@0.5 Pr@0.6 Pr@0.7 Pr@0.8 Pr@0.9 Acc@0.5"
    assert list(score(HALF)) == keys.split()


def test_miou_is_the_mean_and_oiou_the_ratio_of_sums() -> None:
    scores = score(HALF, FULL)
    assert scores["mIoU"] == pytest.approx(75)
    assert scores["oIoU"] == pytest.approx(100 * 13 / 18)


def test_no_target_changes_nothing() -> None:
    predicted_empty = make_outcome(predicted_empty=True, predicted=10, target=5, intersection=5)
    assert score(predicted_empty) == score(HALF)


def test_empty_masks_on_both_sides_score_zero() -> None:
    assert score(make_outcome(), FULL)["mIoU"] == 50


def test_precision_counts_an_iou_that_just_reaches_the_threshold() -> None:
    outcomes = [make_outcome(predicted=10, target=pixels, intersection=pixels) for pixels in (4, 5, 6, 7, 8)]
    scores = score(*outcomes)
    assert [scores[f"Pr@0.{n}"] for n in (5, 6, 7, 8, 9)] == [80, 60, 40, 20, 0]


def test_acc_is_the_fraction_of_expressions_whose_best_box_hits() -> None:
    assert score(HALF, HALF, FULL)["Acc@0.5"] == pytest.approx(100 / 3)


def test_without_targets_every_score_is_none() -> None:
    assert set(score(make_outcome(targets=0, predicted=3)).values()) == {None}
    assert set(score().values()) == {None}


def test_the_box_with_the_best_score_is_compared() -> None:
    boxes = [[0, 0, 4, 4], [10, 10, 14, 14]]
    assert hits(boxes, [0.2, 0.9], (10, 10, 14, 14))
    assert not hits(boxes, [0.9, 0.2], (10, 10, 14, 14))


def test_of_equal_scores_the_first_box_is_compared() -> None:
    assert hits([[0, 0, 4, 4], [10, 10, 14, 14]], [0.5, 0.5], (0, 0, 4, 4))


def test_without_scores_the_first_box_is_compared() -> None:
    assert hits([[0, 0, 4, 4], [10, 10, 14, 14]], None, (0, 0, 4, 4))


@pytest.mark.parametrize(("x1", "hit"), [(5.0, True), (4.99, False), (20.0, True)])
def test_a_box_hits_from_an_iou_of_one_half_on(x1: float, hit: bool) -> None:
    assert hits([[0, 0, x1, 10]], [1.0], (0, 0, 10, 10)) is hit


def test_without_a_box_nothing_hits() -> None:
    assert not hits([], [], (0, 0, 10, 10))
    assert not hits([], None, (0, 0, 10, 10))


def test_a_box_without_area_hits_nothing() -> None:
    assert not hits([[3, 3, 3, 3]], [1.0], (3, 3, 3, 3))


def test_an_empty_target_is_not_hit() -> None:
    assert not hits([[0, 0, 10, 10]], [1.0])


@given(prediction_lists)
def test_scores_agree_with_brute_force_on_pixels(predictions: list[DrawnPrediction]) -> None:
    scores = score(*(each.evaluate() for each in predictions))
    counted = [prediction for prediction in predictions if prediction.targets]
    intersection, union = (
        sum(prediction.intersection for prediction in counted),
        sum(prediction.union for prediction in counted),
    )
    assert scores["oIoU"] == pytest.approx(percent(intersection, union))
    assert scores["mIoU"] == pytest.approx(
        100 * np.mean([prediction.iou for prediction in counted]) if counted else None
    )
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        expected = percent(sum(prediction.iou >= threshold for prediction in counted), len(counted))
        assert scores[f"Pr@{threshold}"] == pytest.approx(expected)


@given(prediction_lists)
def test_pixels_are_counted_exactly_on_run_lengths(predictions: list[DrawnPrediction]) -> None:
    for prediction in predictions:
        counts = count_mask_pixels(encode_mask(prediction.mask), encode_mask(prediction.target))
        assert counts == (prediction.mask.sum(), prediction.target.sum(), prediction.intersection)


def test_pixels_are_counted_at_the_resolution_that_was_asked_for() -> None:
    left, upper = np.zeros((2, 4), dtype=bool), np.zeros((2, 4), dtype=bool)
    left[:, :2], upper[0] = True, True
    # 2 × 4 pixels become 6 × 6: every row three times, columns 0, 0, 1, 2, 2, 3.
    assert count_mask_pixels(encode_mask(left), encode_mask(upper), 6) == (6 * 3, 3 * 6, 3 * 3)


def test_every_data_set_has_its_metrics_and_a_primary_one_among_them() -> None:
    for dataset, ratios in METRICS.items():
        assert PRIMARY_METRIC[dataset] in ratios(stack_outcomes([]))
    assert METRICS.keys() == PRIMARY_METRIC.keys()


@pytest.mark.parametrize("dataset", METRICS)
def test_every_metric_says_what_it_measures(dataset: str) -> None:
    names: list[Any] = list(METRICS[dataset](stack_outcomes([])))
    assert all(describe_metric(name) for name in names)
    assert all(name in DEFINITIONS or name.startswith("Pr@") for name in names)


def test_a_precision_says_its_threshold() -> None:
    assert describe_metric("Pr@0.7").endswith("at least 0.7")


def test_an_expression_without_a_target_enters_no_metric_whatever_its_boxes_hit() -> None:
    empty = make_outcome(predicted=10, target=0, intersection=0, hit=True)._replace(targets=0)
    assert score(FULL, empty, HALF) == score(FULL, HALF)
