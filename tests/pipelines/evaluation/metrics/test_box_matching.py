"""Boxes of generalized referring comprehension, worked out by hand and by brute force."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.evaluation.metrics.box_matching import count_matches, match_boxes, pairwise_box_overlap

Kind = Literal["iou", "giou"]
KINDS: tuple[Kind, ...] = ("iou", "giou")


def stack(*boxes: tuple[float, float, float, float]) -> NDArray[np.float64]:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


SQUARE = (0.0, 0.0, 10.0, 10.0)
FAR = (50.0, 50.0, 60.0, 60.0)

# Boxes with whole coordinates, zero areas and duplicates among them.
box = st.tuples(*[st.integers(0, 6)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
boxes = st.lists(box, max_size=4)


@pytest.mark.parametrize(
    ("other", "iou", "giou"),
    [
        (SQUARE, 1, 1),
        ((5, 0, 15, 10), 1 / 3, 1 / 3),  # the enclosing box 15 × 10 holds nothing else
        ((5, 5, 15, 15), 25 / 175, 25 / 175 - 50 / 225),
        ((10, 0, 20, 10), 0, 0),  # side by side
        ((10, 10, 20, 20), 0, -200 / 400),  # corner to corner
        ((2, 2, 4, 4), 0.04, 0.04),  # inside
        ((90, 0, 100, 10), 0, -800 / 1000),
        ((3, 3, 3, 3), 0, 0),  # no area, inside
        ((3, 3, 3, 8), 0, 0),
    ],
)
def test_overlap_of_two_boxes(other: tuple[float, ...], iou: float, giou: float) -> None:
    pair = stack(SQUARE), np.array([other], dtype=np.float64)
    assert pairwise_box_overlap(*pair, "iou")[0, 0] == pytest.approx(iou)
    assert pairwise_box_overlap(*pair, "giou")[0, 0] == pytest.approx(giou)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_boxes_without_area_overlap_by_zero(kind: Kind) -> None:
    assert pairwise_box_overlap(stack((3, 3, 3, 3)), stack((3, 3, 3, 3)), kind)[0, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 2), (3, 0)])
def test_no_boxes_make_an_empty_table(kind: Kind, rows: int, columns: int) -> None:
    assert pairwise_box_overlap(stack(*[SQUARE] * rows), stack(*[SQUARE] * columns), kind).shape == (rows, columns)


@given(boxes, boxes)
def test_overlap_agrees_with_counted_pixels(first: list[Any], second: list[Any]) -> None:
    iou, giou = (pairwise_box_overlap(stack(*first), stack(*second), kind) for kind in KINDS)
    for (row, one), (column, two) in itertools.product(enumerate(first), enumerate(second)):
        canvas = np.zeros((2, 6, 6), dtype=bool)
        for layer, (x0, y0, x1, y1) in zip(canvas, (one, two), strict=True):
            layer[y0:y1, x0:x1] = True
        shared, union = int(canvas.all(axis=0).sum()), int(canvas.any(axis=0).sum())
        hull = (max(one[2], two[2]) - min(one[0], two[0])) * (max(one[3], two[3]) - min(one[1], two[1]))
        expected = shared / union if union else 0.0
        assert iou[row, column] == pytest.approx(expected)
        assert giou[row, column] == pytest.approx(expected - ((hull - union) / hull if hull else 0))


# Greedy matching


def test_the_best_overlap_is_matched_first_although_another_order_finds_more_pairs() -> None:
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


def test_without_boxes_there_are_no_pairs() -> None:
    assert count_matches(np.zeros((0, 3))) == 0
    assert count_matches(np.zeros((3, 0))) == 0


def test_a_threshold_of_zero_does_not_match_a_box_twice() -> None:
    assert count_matches(np.zeros((2, 2)), threshold=0) == 2


def test_the_overlaps_stay_as_they_are() -> None:
    overlap = np.array([[0.9, 0.1]])
    count_matches(overlap)
    np.testing.assert_array_equal(overlap, [[0.9, 0.1]])


@given(st.integers(0, 4), st.integers(0, 4), st.data())
def test_matching_agrees_with_the_published_loop(rows: int, columns: int, data: st.DataObject) -> None:
    # Distinct overlaps, so that the order of ties does not matter.
    values = data.draw(st.lists(st.integers(0, 1000), min_size=rows * columns, max_size=rows * columns, unique=True))
    overlap = np.array(values, dtype=np.float64).reshape(rows, columns) / 1000
    table, pairs = overlap.copy(), 0
    for _ in range(min(rows, columns)):
        best = max(itertools.product(range(rows), range(columns)), key=lambda place: table[place])
        if table[best] < 0.5:
            break
        pairs += 1
        table[best[0], :] = 0
        table[:, best[1]] = 0
    assert count_matches(overlap) == pairs


# F1 = 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_target_wants_no_box(kind: Kind) -> None:
    assert match_boxes(stack(), stack(), kind)
    assert not match_boxes(stack(SQUARE), stack(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_without_a_predicted_box_fails(kind: Kind) -> None:
    assert not match_boxes(stack(), stack(SQUARE), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_target_wants_its_box_in_any_order(kind: Kind) -> None:
    assert match_boxes(stack(FAR, SQUARE), stack(SQUARE, FAR), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_too_many_or_too_few_fails(kind: Kind) -> None:
    assert not match_boxes(stack(SQUARE, SQUARE), stack(SQUARE), kind)
    assert not match_boxes(stack(SQUARE), stack(SQUARE, FAR), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_annotated_twice_wants_two_boxes(kind: Kind) -> None:
    assert not match_boxes(stack(SQUARE), stack(SQUARE, SQUARE), kind)
    assert match_boxes(stack(SQUARE, SQUARE), stack(SQUARE, SQUARE), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_without_area_matches_nothing(kind: Kind) -> None:
    assert not match_boxes(stack((3, 3, 3, 3)), stack((3, 3, 3, 3)), kind)


def test_boxes_that_overlap_just_enough_by_iou_may_fail_by_generalized_iou() -> None:
    # Two squares of 100, shifted by (18, 18): IoU 6724 / 13276 = 0.506, less 648 / 13924 of the enclosing square.
    pair = stack((0, 0, 100, 100)), stack((18, 18, 118, 118))
    assert pairwise_box_overlap(*pair, "iou")[0, 0] == pytest.approx(6724 / 13276)
    assert pairwise_box_overlap(*pair, "giou")[0, 0] == pytest.approx(6724 / 13276 - 648 / 13924)
    assert match_boxes(*pair, "iou")
    assert not match_boxes(*pair, "giou")


def test_an_overlap_of_one_half_matches() -> None:
    assert match_boxes(stack((0, 0, 5, 10)), stack(SQUARE), "iou")
    assert not match_boxes(stack((0, 0, 4.99, 10)), stack(SQUARE), "iou")


@given(boxes, boxes)
def test_what_matches_by_generalized_iou_matches_by_iou_if_the_pairs_are_plain(
    first: list[Any], second: list[Any]
) -> None:
    if len(first) == len(second) == 1 and match_boxes(stack(*first), stack(*second), "giou"):
        assert match_boxes(stack(*first), stack(*second), "iou")


@given(boxes, st.randoms(use_true_random=False))
def test_boxes_match_themselves_in_any_order_if_all_have_area(found: list[Any], random: Any) -> None:
    found = [b for b in found if b[2] > b[0] and b[3] > b[1]]
    shuffled = random.sample(found, len(found))
    for kind in KINDS:
        assert match_boxes(stack(*shuffled), stack(*found), kind)
