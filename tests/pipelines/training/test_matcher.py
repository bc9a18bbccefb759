"""The matcher gives the cheapest pairs, whatever the order and the company."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.config.settings import MatchingSettings
from pipelines.model.box_ops import generalized_box_iou
from pipelines.training.matcher import Matches, compute_costs, hungarian_match
from shards.errors import NonFiniteError

LAYERS, QUERIES = 3, 5


def make_outputs(counts: list[int], seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return {
        "class_logits": 4 * draw(LAYERS, len(counts), QUERIES, 2) - 2,
        "boxes": 0.1 + 0.5 * draw(LAYERS, len(counts), QUERIES, 4),
        "points": draw(len(counts), QUERIES, 2),
        "target_boxes": [0.1 + 0.5 * draw(count, 4) for count in counts],
    }


def list_pairs(matches: Matches) -> list[set[tuple[int, int]]]:
    return [
        set(zip(q.tolist(), t.tolist(), strict=True)) for q, t in zip(matches.queries, matches.targets, strict=True)
    ]


def test_every_layer_and_image_gets_its_cheapest_pairs() -> None:
    counts = [2, 0, 3]
    outputs = make_outputs(counts)
    matches = hungarian_match(**outputs, settings=MatchingSettings())
    for layer in range(LAYERS):
        total = 0.0
        for image, targets in enumerate(outputs["target_boxes"]):
            cost = compute_costs(
                outputs["class_logits"][layer, image], outputs["boxes"][layer, image], outputs["points"][image],
                targets, MatchingSettings(),
            )  # fmt: skip
            total += min(
                sum(float(cost[query, target]) for target, query in enumerate(chosen))
                for chosen in itertools.permutations(range(QUERIES), len(targets))
            )
        picked = 0.0
        for query, target in list_pairs(matches)[layer]:
            image = query // QUERIES
            cost = compute_costs(
                outputs["class_logits"][layer, image], outputs["boxes"][layer, image], outputs["points"][image],
                outputs["target_boxes"][image], MatchingSettings(),
            )  # fmt: skip
            picked += float(cost[query % QUERIES, target - sum(counts[:image])])
        assert picked == pytest.approx(total, abs=1e-5)


def test_a_cost_is_the_weighted_sum_of_its_four_parts() -> None:
    settings_ = MatchingSettings(class_cost=1, box_cost=10, giou_cost=100, point_cost=1000)
    cost = compute_costs(
        torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.4, 0.7]]),
        torch.tensor([[0.6, 0.5, 0.2, 0.2]]), settings_,
    )  # fmt: skip
    # Overlap 0.1 × 0.2 of a union of 0.06, which fills the hull of 0.3 × 0.2.
    assert cost.item() == pytest.approx(-0.5 + 10 * 0.1 - 100 / 3 + 1000 * (0.2 + 0.2), abs=2e-2)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.randoms(use_true_random=False), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_permuted_targets_give_the_same_pairs(counts: list[int], random: Any, seed: int) -> None:
    outputs = make_outputs(counts, seed)
    orders = [random.sample(range(count), count) for count in counts]
    permuted = [boxes[order] for boxes, order in zip(outputs["target_boxes"], orders, strict=True)]
    starts = [sum(counts[:image]) for image in range(len(counts))]
    back = [start + place for start, order in zip(starts, orders, strict=True) for place in order]
    first = hungarian_match(**outputs, settings=MatchingSettings())
    second = hungarian_match(**{**outputs, "target_boxes": permuted}, settings=MatchingSettings())
    assert list_pairs(first) == [{(q, back[t]) for q, t in pairs} for pairs in list_pairs(second)]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_batch_is_matched_as_its_images_alone(counts: list[int], seed: int) -> None:
    outputs = make_outputs(counts, seed)
    together = hungarian_match(**outputs, settings=MatchingSettings())
    alone: list[set[tuple[int, int]]] = [set() for _ in range(LAYERS)]
    for image in range(len(counts)):
        part = slice(image, image + 1)
        matches = hungarian_match(
            outputs["class_logits"][:, part], outputs["boxes"][:, part], outputs["points"][part],
            outputs["target_boxes"][part], MatchingSettings(),
        )  # fmt: skip
        for layer, pairs in enumerate(list_pairs(matches)):
            alone[layer] |= {(q + image * QUERIES, t + sum(counts[:image])) for q, t in pairs}
    assert list_pairs(together) == alone


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_every_query_is_matched_once_or_listed_as_unmatched(counts: list[int]) -> None:
    matches = hungarian_match(**make_outputs(counts), settings=MatchingSettings())
    assert matches.queries.shape == matches.targets.shape == (LAYERS, sum(min(count, QUERIES) for count in counts))
    for queries, unmatched in zip(matches.queries, matches.unmatched, strict=True):
        assert sorted([*queries.tolist(), *unmatched.tolist()]) == list(range(len(counts) * QUERIES))


def test_without_any_target_there_are_no_pairs() -> None:
    matches = hungarian_match(**make_outputs([0, 0]), settings=MatchingSettings())
    assert matches.queries.shape == matches.targets.shape == (LAYERS, 0)
    assert matches.queries.dtype == matches.targets.dtype == matches.unmatched.dtype == torch.int64
    assert matches.unmatched.shape == (LAYERS, 2 * QUERIES)


@pytest.mark.parametrize("name", ["class_logits", "boxes", "points"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite_are_matched_in_the_same_shapes_and_said_not_to_be_finite(
    name: str, value: float
) -> None:
    outputs = make_outputs([1, 2])
    sound = hungarian_match(**outputs, settings=MatchingSettings())
    assert sound.finite
    outputs[name][..., 0, 0] = value
    matches = hungarian_match(**outputs, settings=MatchingSettings())
    assert not matches.finite
    assert matches.queries.shape == sound.queries.shape
    assert matches.unmatched.shape == sound.unmatched.shape


def test_target_boxes_that_are_not_finite_are_an_error() -> None:
    outputs = make_outputs([1, 2])
    outputs["target_boxes"][1][0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"^target boxes are not finite: the data is damaged"):
        hungarian_match(**outputs, settings=MatchingSettings())


def test_weights_that_overflow_are_not_finite_either() -> None:
    huge = dataclasses.replace(MatchingSettings(), box_cost=1e39)
    assert not hungarian_match(**make_outputs([1]), settings=huge).finite


def test_generalized_iou_of_known_boxes() -> None:
    box = torch.tensor([0.0, 0.0, 2.0, 2.0])
    others = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [3.0, 0.0, 4.0, 2.0], [2.0, 2.0, 2.0, 2.0]])
    assert torch.allclose(generalized_box_iou(box, others), torch.tensor([1.0, 1 / 3, -0.25, 0.0]), atol=1e-5)


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_generalized_iou_is_symmetric_and_bounded(values: list[float]) -> None:
    corners = torch.tensor(values, dtype=torch.float64).view(2, 2, 2).sort(dim=1).values.flatten(1)
    giou = generalized_box_iou(corners[0], corners[1])
    assert giou == generalized_box_iou(corners[1], corners[0])
    assert -1.0 <= giou.item() <= 1.0


def test_of_two_queries_at_the_same_place_the_one_that_says_target_is_matched() -> None:
    box = torch.tensor([0.5, 0.5, 0.2, 0.2])
    logits = torch.tensor([[[[0.0, 3.0], [3.0, 0.0]]]])
    matches = hungarian_match(
        logits, box.expand(1, 1, 2, 4), torch.full((1, 2, 2), 0.5), [box[None]], settings=MatchingSettings()
    )
    assert matches.queries.tolist() == [[1]]


def test_each_cost_counts_with_its_own_weight() -> None:
    """A query of half a chance, one box width right of its target, its point twice as far."""
    logits, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[0.3, 0.5, 0.2, 0.2]]])
    boxes, points = torch.tensor([[[[0.5, 0.5, 0.2, 0.2]]]]), torch.tensor([[[0.7, 0.5]]])
    # The boxes touch: no overlap, and nothing between them.
    costs = {"class_cost": -0.5, "box_cost": 0.2, "giou_cost": 0.0, "point_cost": 0.4}
    none = dict.fromkeys(costs, 0.0)
    for name, cost in costs.items():
        weights = MatchingSettings(**none | {name: 3.0})
        assert compute_costs(logits, boxes, points, target, weights).item() == pytest.approx(3 * cost, abs=1e-4)
    apart = torch.tensor([[[[0.7, 0.5, 0.2, 0.2]]]])
    weights = MatchingSettings(**none | {"giou_cost": 3.0})
    assert compute_costs(logits, apart, points, target, weights).item() == pytest.approx(3 * 0.2 / 0.6, abs=1e-3)
