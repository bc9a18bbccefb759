"""Which held-out examples are scored between epochs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.validation import choose_indices, name_folder


@pytest.mark.parametrize(
    ("total", "limit", "indices"),
    [(5, 0, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (6, 3, [0, 2, 4]), (5, 2, [0, 2]), (0, 4, [])],
)
def test_indices_are_spread_evenly(total: int, limit: int, indices: list[int]) -> None:
    assert choose_indices(total, limit).tolist() == indices


@given(total=st.integers(0, 100_000), limit=st.integers(0, 2000))
def test_no_index_is_chosen_twice_or_out_of_range(total: int, limit: int) -> None:
    indices = choose_indices(total, limit)
    assert len(indices) == min(limit or total, total)
    assert all(before < after for before, after in itertools.pairwise(indices))
    assert not len(indices) or 0 <= indices[0] <= indices[-1] < total


def test_two_folders_of_one_name_are_told_apart() -> None:
    first, second = Path("a/grefcoco"), Path("b/grefcoco")
    assert name_folder(first, {}) == "grefcoco"
    assert name_folder(second, {"grefcoco": {}}) == "b/grefcoco"
