"""Kinds of outcomes, on an image of 8 × 12 pixels with two boxes as instances, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.evaluation.outcome_kinds import OutcomeKind, classify_prediction, region_iou
from pipelines.evaluation.score_report import build_report
from pipelines.prediction.alignment import align_predictions
from pipelines.prediction.prediction import Prediction
from shards.masks import merge_rles, rle_area
from shards.reader import ShardReader
from tests.support.drawn_boxes import Box, box_lists
from tests.support.drawn_shards import BOXES, HEIGHT, WIDTH, fill, make_record, write_lines, write_shards

Boxes = list[tuple[int, int, int, int]]
# The indices of the expressions about no instance, the first, the second, and both.
NONE, FIRST, SECOND, BOTH = range(4)
LEFT, RIGHT = BOXES
ELSEWHERE = (0, 6, 2, 8)
WIDE = (0, 0, 4, 8)  # twice LEFT: IoU 0.5
WIDER = (0, 0, 5, 8)  # IoU 16 / 40
SLIVER = (0, 0, 1, 1)  # IoU 1 / 16


def classify(
    expression: int, *, boxes: Boxes | None = None, mask: Boxes | None = None, no_target: bool = False,
    dataset: str = "grefcoco", resolution: int = 0,
) -> tuple[str, float]:  # fmt: skip
    """The kind and the IoU of a prediction of filled boxes."""
    record = make_record(dataset, 1, "1.png", ((), (0,), (1,), (0, 1)))
    prediction = Prediction(
        id=record.expressions[expression].id, no_target=no_target, scores=None,
        boxes=None if boxes is None else [list(map(float, box)) for box in boxes],
        mask=None if mask is None else fill(*mask) if mask else merge_rles([], HEIGHT, WIDTH),
    )  # fmt: skip
    result = classify_prediction(record, record.expressions[expression], prediction, resolution)
    return result.kind.value, result.iou


def test_an_empty_target_is_correct_only_if_it_is_predicted_empty() -> None:
    assert classify(NONE, boxes=[], mask=[], no_target=True) == ("correct", 1)
    assert classify(NONE, boxes=[LEFT], mask=[LEFT]) == ("missed empty", 0)
    # The word of the model counts, not its mask: as N-acc does.
    assert classify(NONE, boxes=[], mask=[LEFT], no_target=True) == ("correct", 1)


def test_a_target_that_is_predicted_empty_is_false_empty() -> None:
    assert classify(FIRST, boxes=[], mask=[], no_target=True) == ("false empty", 0)
    # In gRefCOCO its mask does not count, elsewhere it does.
    assert classify(FIRST, boxes=[], mask=[LEFT], no_target=True) == ("false empty", 0)
    assert classify(FIRST, boxes=[], mask=[LEFT], no_target=True, dataset="refcoco") == ("false empty", 1)


def test_matching_boxes_and_half_of_the_union_are_correct() -> None:
    assert classify(BOTH, boxes=[RIGHT, LEFT], mask=[LEFT, RIGHT]) == ("correct", 1)
    assert classify(FIRST, boxes=[WIDE], mask=[WIDE]) == ("correct", 0.5)


def test_a_box_or_a_mask_below_half_of_the_union_is_loose() -> None:
    assert classify(FIRST, boxes=[LEFT], mask=[WIDER]) == ("loose mask", 16 / 40)
    assert classify(FIRST, boxes=[WIDER], mask=[LEFT]) == ("loose mask", 1)


def test_what_overlaps_no_target_by_a_tenth_is_the_wrong_object() -> None:
    assert classify(FIRST, boxes=[RIGHT], mask=[RIGHT]) == ("wrong object", 0)
    assert classify(BOTH, boxes=[ELSEWHERE], mask=[ELSEWHERE]) == ("wrong object", 0)
    assert classify(FIRST, boxes=[SLIVER], mask=[SLIVER]) == ("wrong object", 1 / 16)


def test_a_target_without_a_box_is_lost() -> None:
    assert classify(BOTH, boxes=[LEFT], mask=[LEFT]) == ("lost instance", 16 / 40)
    # One of the two boxes is elsewhere: lost comes before extra.
    assert classify(BOTH, boxes=[LEFT, ELSEWHERE], mask=[LEFT])[0] == "lost instance"
    # The mask is right, but no box is.
    assert classify(FIRST, boxes=[ELSEWHERE], mask=[LEFT]) == ("lost instance", 1)


def test_a_box_without_a_target_is_extra() -> None:
    assert classify(FIRST, boxes=[LEFT, RIGHT], mask=[LEFT, RIGHT]) == ("extra instance", 16 / 40)
    assert classify(FIRST, boxes=[LEFT, LEFT], mask=[LEFT]) == ("extra instance", 1)


def test_without_masks_the_area_of_the_boxes_counts() -> None:
    assert classify(NONE, boxes=[], no_target=True) == ("correct", 1)
    assert classify(BOTH, boxes=[LEFT, RIGHT]) == ("correct", 1)
    assert classify(FIRST, boxes=[WIDER]) == ("loose mask", 16 / 40)
    assert classify(BOTH, boxes=[LEFT]) == ("lost instance", 16 / 40)
    assert classify(SECOND, boxes=[LEFT, RIGHT]) == ("extra instance", 24 / 40)
    assert classify(FIRST, boxes=[RIGHT]) == ("wrong object", 0)
    assert classify(FIRST, boxes=[], no_target=True) == ("false empty", 0)


def test_without_boxes_the_mask_tells_which_targets_are_lost() -> None:
    assert classify(NONE, mask=[LEFT]) == ("missed empty", 0)
    assert classify(BOTH, mask=[LEFT, RIGHT]) == ("correct", 1)
    assert classify(BOTH, mask=[LEFT]) == ("lost instance", 16 / 40)
    # 2 and 3 of the 24 pixels of the second instance.
    assert classify(BOTH, mask=[LEFT, (6, 2, 8, 3)]) == ("lost instance", 18 / 40)
    assert classify(BOTH, mask=[LEFT, (6, 2, 9, 3)]) == ("loose mask", 19 / 40)
    assert classify(FIRST, mask=[WIDER]) == ("loose mask", 16 / 40)
    assert classify(FIRST, mask=[RIGHT]) == ("wrong object", 0)


def test_masks_may_be_compared_at_another_resolution() -> None:
    # Rows 0 and 4 and columns 0 and 6 remain: one pixel of LEFT, two of WIDER.
    assert classify(FIRST, boxes=[LEFT], mask=[WIDER], resolution=2) == ("correct", 0.5)


@pytest.mark.parametrize(
    ("boxes", "targets", "expected"),
    [
        ([(0, 0, 2, 2), (1, 1, 3, 3)], [(0, 0, 3, 3)], 7 / 9),
        ([(0, 0, 2, 2)], [(0, 0, 2, 2), (0, 0, 2, 2)], 1),
        ([(0, 0, 1, 1)], [(5, 5, 6, 6)], 0),
        ([], [(0, 0, 1, 1)], 0),
        ([(1, 1, 1, 1)], [(1, 1, 1, 1)], 0),
    ],
)
def test_the_iou_of_covered_regions_counts_every_point_once(boxes: Boxes, targets: Boxes, expected: float) -> None:
    assert region_iou(boxes, targets) == pytest.approx(expected)


@given(box_lists, box_lists)
def test_the_iou_of_covered_regions_is_that_of_painted_boxes(boxes: list[Box], targets: list[Box]) -> None:
    painted = np.zeros((2, 6, 6), dtype=bool)
    for layer, group in zip(painted, (boxes, targets), strict=True):
        for x0, y0, x1, y1 in group:
            layer[int(y0) : int(y1), int(x0) : int(x1)] = True
    union = painted.any(axis=0).sum()
    assert region_iou(boxes, targets) == (pytest.approx(painted.all(axis=0).sum() / union) if union else 0)


@pytest.mark.parametrize("dataset", ["grefcoco", "refcoco"])
def test_kinds_and_ious_agree_with_the_scores(tmp_path: Path, dataset: str) -> None:
    references = ((), (0,), (1,), (0, 1)) if dataset == "grefcoco" else ((0,), (1,), (0,), (1,))
    shards = write_shards(tmp_path, dataset, 1, references)
    found: list[Boxes] = [[LEFT], [], [WIDER], [LEFT, RIGHT]]
    lines = [
        {"id": f"{dataset}/1/{n}", "boxes": boxes, "mask": fill(*boxes), "no_target": not boxes}
        for n, boxes in enumerate(found)
    ]  # fmt: skip
    file = write_lines(tmp_path / "p.jsonl", lines)
    with ShardReader(shards, "val") as reader:
        results = [classify_prediction(*each) for each in align_predictions(file, reader)]
    metrics = build_report(evaluate_split(file, shards, "val"), ScoreSettings(split="val", bootstrap=0)).metrics
    assert 100 * sum(result.iou for result in results) / 4 == pytest.approx(
        metrics["gIoU" if dataset == "grefcoco" else "mIoU"]
    )
    if dataset == "grefcoco":
        assert sum(result.kind is OutcomeKind.CORRECT for result in results) / 4 == metrics["F1score"] / 100


def test_the_instances_have_the_areas_that_these_tests_count_with() -> None:
    assert [rle_area(fill(box)) for box in BOXES] == [16, 24]
