"""Which held-out examples are scored between epochs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.validation import choose_indices, name_folder


@pytest.mark.parametrize(
    ("total", "limit", "numbers"),
    [(5, 0, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (6, 3, [0, 2, 4]), (5, 2, [0, 2]), (0, 4, [])],
)
def test_numbers_are_spread_evenly(total: int, limit: int, numbers: list[int]) -> None:
    assert choose_indices(total, limit).tolist() == numbers


@given(total=st.integers(0, 100_000), limit=st.integers(0, 2000))
def test_no_number_is_chosen_twice_or_out_of_range(total: int, limit: int) -> None:
    numbers = choose_indices(total, limit)
    assert len(numbers) == min(limit or total, total)
    assert all(before < after for before, after in itertools.pairwise(numbers))
    assert not len(numbers) or 0 <= numbers[0] <= numbers[-1] < total


def test_two_folders_of_one_name_are_told_apart() -> None:
    first, second = Path("a/grefcoco"), Path("b/grefcoco")
    assert name_folder(first, {}) == "grefcoco"
    assert name_folder(second, {"grefcoco": {}}) == "b/grefcoco"
