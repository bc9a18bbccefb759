import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.model.query_generation import select_points, select_text_tokens


def select_points_slowly(scores: list[list[float]], count: int, weight: float) -> list[int]:
    """The Dist-Score Point Selector for one map, cell by cell."""
    height, width = len(scores), len(scores[0])
    selected: list[int] = []
    for _ in range(count):
        values = {}
        for cell in range(height * width):
            if cell not in selected:
                row, column = divmod(cell, width)
                near = min((math.dist((row, column), divmod(other, width)) for other in selected), default=0.0)
                values[cell] = 1 / (1 + math.exp(-scores[row][column])) + weight * near / math.hypot(height, width)
        # max returns the first of equals, and cells are in row-major order.
        selected.append(max(values, key=values.__getitem__))
    return selected


# Examples stay the same from run to run: two cells may differ by less than float32 tells apart.
@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(2, 7), st.sampled_from([0.0, 0.003, 0.5]))
def test_points_are_those_of_the_algorithm(seed: int, height: int, width: int, weight: float):
    maps = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    found = select_points(maps, 4, weight)
    assert found.tolist() == [select_points_slowly(scores.tolist(), 4, weight) for scores in maps]


def test_points_on_an_even_map_spread_to_the_far_corners_first():
    assert select_points(torch.zeros(1, 5, 5), 4, 0.003).tolist() == [[0, 24, 4, 20]]


def test_without_a_distance_term_points_are_the_best_cells_first_of_equals_first():
    scores = torch.tensor([[[0.1, 0.3, 0.3], [0.2, 0.3, 0.0]]])
    assert select_points(scores, 6, 0.0).tolist() == [[1, 2, 4, 3, 0, 5]]


def test_every_cell_can_be_selected_once():
    assert sorted(select_points(torch.rand(1, 3, 3), 9, 0.003)[0].tolist()) == list(range(9))


def select_text_tokens_slowly(
    features: Tensor, tokens: int, count: int, score: str
) -> tuple[Tensor, list[bool], list[int]]:
    """The Score Text Selector (paper, algorithm 2) for one text."""
    valid = features[:tokens]
    if tokens >= count:
        scores = valid.norm(dim=1) if score == "l2" else valid.mean(dim=1)
        order = sorted(range(tokens), key=lambda position: -scores[position].item())[:count]
        return valid[order], [True] * count, order
    padded = torch.cat((valid, torch.zeros(count - tokens, features.shape[1])))
    return padded, [position < tokens for position in range(count)], list(range(count))


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 9999), st.sampled_from(["l2", "mean"]))
def test_text_tokens_are_those_of_the_algorithm_whatever_the_lengths(lengths: list[int], seed: int, score: str):
    longest = max(lengths)
    features = torch.randn(len(lengths), longest, 6, generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    found = select_text_tokens(features, mask, 5, score)
    for number, tokens in enumerate(lengths):
        selected, valid, order = select_text_tokens_slowly(features[number], tokens, 5, score)
        assert torch.equal(found.features[number], selected)
        assert found.mask[number].tolist() == valid
        assert found.indices[number].tolist() == order


def test_the_two_scores_select_different_tokens():
    features = torch.tensor([[[-3.0, -3.0], [1.0, 1.0], [0.0, 0.5]]])
    mask = torch.ones(1, 3, dtype=torch.long)
    assert select_text_tokens(features, mask, 2, "l2").indices.tolist() == [[0, 1]]
    assert select_text_tokens(features, mask, 2, "mean").indices.tolist() == [[1, 2]]


def test_gradients_reach_the_selected_tokens_only():
    features = torch.tensor([[[3.0], [1.0], [2.0], [9.0]]], requires_grad=True)
    select_text_tokens(features, torch.tensor([[1, 1, 1, 0]]), 2, "l2").features.sum().backward()
    assert features.grad.flatten().tolist() == [1, 0, 1, 0]
