"""Matching of predicted and target boxes: worked out by hand, and against the published loop."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.metrics.box_matching import count_matches, match_boxes
from pipelines.prediction.box_iou import box_iou, generalized_box_iou
from tests.support.drawn_boxes import IOUS, SQUARE, Box, BoxIou, box_lists, stack

FAR: Box = (50.0, 50.0, 60.0, 60.0)

# Greedy matching


def test_the_best_overlap_is_matched_first_although_another_order_finds_more_matches() -> None:
    # Best matching: 0.8 and 0.6; greedy takes 0.9 and is left with 0.1.
    assert count_matches(np.array([[0.9, 0.8], [0.6, 0.1]])) == 1


def test_every_box_and_every_target_is_matched_once() -> None:
    assert count_matches(np.array([[0.9, 0.8], [0.85, 0.7]])) == 2
    assert count_matches(np.array([[0.9], [0.9], [0.9]])) == 1


def test_an_overlap_that_just_reaches_the_threshold_is_matched() -> None:
    assert count_matches(np.array([[0.5]])) == 1
    assert count_matches(np.array([[np.nextafter(0.5, 0)]])) == 0


def test_ties_are_matched_one_to_one() -> None:
    assert count_matches(np.full((3, 3), 0.75)) == 3


def test_without_boxes_there_are_no_matches() -> None:
    assert count_matches(np.zeros((0, 3))) == 0
    assert count_matches(np.zeros((3, 0))) == 0


def test_the_table_is_not_modified() -> None:
    overlap = np.array([[0.9, 0.1]])
    count_matches(overlap)
    np.testing.assert_array_equal(overlap, [[0.9, 0.1]])


@given(st.integers(0, 4), st.integers(0, 4), st.data())
def test_matching_agrees_with_the_published_loop(rows: int, columns: int, data: st.DataObject) -> None:
    # Distinct overlaps, so that the order of ties does not matter.
    values = data.draw(st.lists(st.integers(0, 1000), min_size=rows * columns, max_size=rows * columns, unique=True))
    overlap = np.array(values, dtype=np.float64).reshape(rows, columns) / 1000
    table, matches = overlap.copy(), 0
    for _ in range(min(rows, columns)):
        best = max(itertools.product(range(rows), range(columns)), key=lambda pair: table[pair])
        if table[best] < 0.5:
            break
        matches += 1
        table[best[0], :] = 0
        table[:, best[1]] = 0
    assert count_matches(overlap) == matches


# F1 = 1


@pytest.mark.parametrize("iou", IOUS)
def test_an_empty_target_needs_no_box(iou: BoxIou) -> None:
    assert match_boxes(stack(), stack(), iou)
    assert not match_boxes(stack(SQUARE), stack(), iou)


@pytest.mark.parametrize("iou", IOUS)
def test_a_target_without_a_predicted_box_fails(iou: BoxIou) -> None:
    assert not match_boxes(stack(), stack(SQUARE), iou)


@pytest.mark.parametrize("iou", IOUS)
def test_every_target_needs_its_box_in_any_order(iou: BoxIou) -> None:
    assert match_boxes(stack(FAR, SQUARE), stack(SQUARE, FAR), iou)


@pytest.mark.parametrize("iou", IOUS)
def test_a_box_too_many_or_too_few_fails(iou: BoxIou) -> None:
    assert not match_boxes(stack(SQUARE, SQUARE), stack(SQUARE), iou)
    assert not match_boxes(stack(SQUARE), stack(SQUARE, FAR), iou)


@pytest.mark.parametrize("iou", IOUS)
def test_a_target_annotated_twice_needs_two_boxes(iou: BoxIou) -> None:
    assert not match_boxes(stack(SQUARE), stack(SQUARE, SQUARE), iou)
    assert match_boxes(stack(SQUARE, SQUARE), stack(SQUARE, SQUARE), iou)


@pytest.mark.parametrize("iou", IOUS)
def test_a_box_without_area_matches_nothing(iou: BoxIou) -> None:
    assert not match_boxes(stack((3, 3, 3, 3)), stack((3, 3, 3, 3)), iou)


def test_boxes_that_overlap_just_enough_by_iou_may_fail_by_generalized_iou() -> None:
    # Two squares of 100, shifted by (18, 18): IoU 6724 / 13276 = 0.506, less 648 / 13924 of the enclosing square.
    pair = stack((0, 0, 100, 100)), stack((18, 18, 118, 118))
    assert box_iou(*pair)[0, 0] == pytest.approx(6724 / 13276)
    assert generalized_box_iou(*pair)[0, 0] == pytest.approx(6724 / 13276 - 648 / 13924)
    assert match_boxes(*pair, box_iou)
    assert not match_boxes(*pair, generalized_box_iou)


def test_an_overlap_of_one_half_matches() -> None:
    assert match_boxes(stack((0, 0, 5, 10)), stack(SQUARE), box_iou)
    assert not match_boxes(stack((0, 0, 4.99, 10)), stack(SQUARE), box_iou)


@given(box_lists, box_lists)
def test_what_matches_by_generalized_iou_matches_by_iou_if_the_matches_are_plain(
    first: list[Box], second: list[Box]
) -> None:
    if len(first) == len(second) == 1 and match_boxes(stack(*first), stack(*second), generalized_box_iou):
        assert match_boxes(stack(*first), stack(*second), box_iou)


@given(box_lists, st.randoms(use_true_random=False))
def test_boxes_match_themselves_in_any_order_if_all_have_area(predicted: list[Box], random: Any) -> None:
    predicted = [b for b in predicted if b[2] > b[0] and b[3] > b[1]]
    shuffled = random.sample(predicted, len(predicted))
    for iou in IOUS:
        assert match_boxes(stack(*shuffled), stack(*predicted), iou)
