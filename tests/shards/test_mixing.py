"""Sets in stated ratios: exact in every block, and each expression once before any of its set repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.errors import DataError, SettingsError
from shards.mixing import Mixture, reduce_ratios
from shards.sampling import sample_indices, split_by_rank

seeds = st.integers(0, 2**40)
starts = st.one_of(st.integers(0, 300), st.integers(0, 10**9))
mixtures = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=4).map(
    lambda sets: Mixture(sizes=tuple(size for size, _ in sets), weights=tuple(weight for _, weight in sets))
)


def list_sets(mixture: Mixture, indices: NDArray[Any]) -> list[int]:
    """The set of every index."""
    sets: list[int] = np.searchsorted(np.cumsum(mixture.sizes), indices, side="right").tolist()
    return sets


@settings(deadline=None)
@given(mixtures, seeds, st.integers(0, 10**7))
def test_every_block_holds_each_set_as_often_as_its_ratio_says(mixture: Mixture, seed: int, block: int) -> None:
    size = mixture.block_size
    sets = list_sets(mixture, mixture.sample(seed=seed, start=block * size, count=size))
    assert tuple(np.bincount(sets, minlength=len(mixture.sizes))) == mixture.weights


@settings(deadline=None)
@given(mixtures, seeds, st.integers(1, 400))
def test_each_expression_comes_once_before_any_of_its_set_repeats(mixture: Mixture, seed: int, count: int) -> None:
    indices = mixture.sample(seed=seed, start=0, count=count)
    sets = np.array(list_sets(mixture, indices))
    first = 0
    for number, size in enumerate(mixture.sizes):
        seen = indices[sets == number]
        for epoch in range(0, len(seen), size):
            part = seen[epoch : epoch + size]
            assert len(set(part)) == len(part)
            assert set(part) <= set(range(first, first + size))
        first += size


@settings(deadline=None)
@given(mixtures, seeds, starts, st.lists(st.integers(1, 50), max_size=5))
def test_a_mixture_continues_at_any_position(mixture: Mixture, seed: int, start: int, sizes: list[int]) -> None:
    whole = mixture.sample(seed=seed, start=start, count=sum(sizes))
    parts = []
    for size in sizes:
        parts += mixture.sample(seed=seed, start=start, count=size).tolist()
        start += size
    assert whole.tolist() == parts


@settings(deadline=None)
@given(mixtures, seeds, starts, st.integers(0, 60))
def test_counts_before_a_position_are_those_of_the_examples(
    mixture: Mixture, seed: int, start: int, count: int
) -> None:
    before, after = (mixture.count_examples(position, seed=seed) for position in (start, start + count))
    sets = list_sets(mixture, mixture.sample(seed=seed, start=start, count=count))
    assert sum(before) == start
    assert np.bincount(sets, minlength=len(mixture.sizes)).tolist() == np.subtract(after, before).tolist()


@settings(deadline=None)
@given(mixtures, seeds, starts, st.sampled_from([1, 2, 3, 8]))
def test_ranks_share_a_step_of_a_mixture(mixture: Mixture, seed: int, start: int, world_size: int) -> None:
    whole = mixture.sample(seed=seed, start=start, count=24)
    shares = [split_by_rank(whole, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares)) == sorted(whole)


def test_two_ranks_of_two_equal_sets_see_both_sets() -> None:
    mixture = Mixture(sizes=(500, 500), weights=(1, 1))
    sets = np.array(list_sets(mixture, mixture.sample(seed=1, start=0, count=1000)))
    assert all(0.4 < share.mean() < 0.6 for share in (sets[::2], sets[1::2]))


def test_sets_of_one_size_have_orders_of_their_own() -> None:
    mixture = Mixture(sizes=(30, 30), weights=(1, 1))
    indices = mixture.sample(seed=3, start=0, count=60)
    first, second = indices[indices < 30], indices[indices >= 30] - 30
    assert sorted(first) == sorted(second) == list(range(30))
    assert first.tolist() != second.tolist()


@settings(deadline=None)
@given(st.integers(1, 50), seeds, starts)
def test_a_set_alone_has_the_order_that_it_has_without_a_ratio(size: int, seed: int, start: int) -> None:
    mixture = Mixture(sizes=(size,), weights=reduce_ratios([2.5]))
    expected = sample_indices(size, seed=seed, start=start, count=20)
    assert mixture.sample(seed=seed, start=start, count=20).tolist() == expected.tolist()


def test_the_order_of_a_mixture_stays_the_same_in_all_versions() -> None:
    mixture = Mixture(sizes=(5, 3), weights=(2, 1))
    assert mixture.sample(seed=7, start=0, count=12).tolist() == [3, 4, 6, 0, 2, 7, 5, 1, 1, 3, 5, 2]


@pytest.mark.parametrize(
    ("ratios", "weights"),
    [([2, 1], (2, 1)), ([0.5, 0.25], (2, 1)), ([0.7, 0.3], (7, 3)), ([3], (1,)), ([1e-3, 1], (1, 1000))],
)
def test_ratios_become_the_smallest_whole_numbers(ratios: list[float], weights: tuple[int, ...]) -> None:
    assert reduce_ratios(ratios) == weights


def test_ratios_that_are_no_positive_numbers_are_refused() -> None:
    for ratio in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="numbers above 0"):
            reduce_ratios([1.0, ratio])


def test_ratios_with_too_many_digits_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"1:999983 in whole numbers.*fewer digits"):
        reduce_ratios([1, 999_983])


def test_a_set_without_expressions_cannot_take_its_turn() -> None:
    with pytest.raises(DataError, match="hold no expressions"):
        Mixture(sizes=(4, 0), weights=(1, 1)).sample(seed=0, start=0, count=8)
