"""The order of the training data does not depend on world size, steps or workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.sampling import (
    ExampleIndex,
    epoch_permutation,
    sample_batch,
    sample_indices,
    split_by_rank,
)

totals = st.integers(1, 120)
seeds = st.integers(0, 2**40)
WORLD_SIZES = (1, 2, 3, 8)
counts = st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=4)


@settings(deadline=None)
@given(totals, seeds, st.integers(0, 50))
def test_an_epoch_holds_every_expression_once(total: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_permutation(total, seed, epoch)) == list(range(total))


def test_the_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(epoch_permutation(60, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_the_order_stays_the_same_in_all_versions() -> None:
    assert epoch_permutation(10, 7, 0).tolist() == [6, 3, 4, 9, 0, 2, 8, 7, 5, 1]
    assert epoch_permutation(10, 7, 1).tolist() == [1, 3, 2, 7, 8, 4, 5, 9, 0, 6]


def test_every_expression_is_equally_likely_at_every_position() -> None:
    orders = np.array([epoch_permutation(5, 0, epoch) for epoch in range(2000)])
    shares = np.array([[np.mean(orders[:, position] == index) for index in range(5)] for position in range(5)])
    assert np.abs(shares - 0.2).max() < 0.05


def test_the_order_of_an_epoch_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        epoch_permutation(10, 0, 0)[0] = 3


@settings(deadline=None)
@given(totals, seeds, st.integers(0, 400), st.lists(st.integers(1, 50), max_size=6))
def test_taking_examples_bit_by_bit_is_taking_them_at_once(total: int, seed: int, start: int, sizes: list[int]) -> None:
    whole = sample_indices(total, seed=seed, start=start, count=sum(sizes))
    starts = np.cumsum([start, *sizes])
    parts = [
        sample_indices(total, seed=seed, start=int(at), count=size) for at, size in zip(starts, sizes, strict=False)
    ]
    assert whole.tolist() == [index for part in parts for index in part.tolist()]


@settings(deadline=None)
@given(totals, seeds, st.integers(1, 3), st.integers(1, 40))
def test_steps_of_any_size_see_every_expression_once_per_epoch(
    total: int, seed: int, epochs: int, batch_size: int
) -> None:
    steps = -(-total * epochs // batch_size)
    seen = np.concatenate(
        [sample_batch(total, seed=seed, start=step * batch_size, batch_size=batch_size) for step in range(steps)]
    )[: total * epochs]
    assert all(sorted(epoch) == list(range(total)) for epoch in seen.reshape(epochs, total).tolist())


@settings(deadline=None)
@given(totals, seeds, st.integers(0, 300), st.integers(1, 8), st.integers(0, 30))
def test_ranks_split_a_step_evenly_and_completely(
    total: int, seed: int, start: int, world_size: int, extra: int
) -> None:
    size = world_size + extra
    whole = sample_batch(total, seed=seed, start=start, batch_size=size)
    shares = [
        sample_batch(total, seed=seed, start=start, batch_size=size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert sorted(np.concatenate(shares)) == sorted(whole)
    lengths = [len(share) for share in shares]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@settings(deadline=None)
@given(totals, seeds, st.integers(0, 10**12), st.integers(1, 20))
def test_the_example_at_a_position_depends_on_seed_and_epoch_alone(
    total: int, seed: int, start: int, count: int
) -> None:
    expected = [epoch_permutation(total, seed, at // total)[at % total] for at in range(start, start + count)]
    assert sample_indices(total, seed=seed, start=start, count=count).tolist() == expected


@settings(deadline=None)
@given(totals, seeds, st.sampled_from(WORLD_SIZES), st.integers(1, 4), st.integers(1, 3))
def test_all_ranks_together_see_every_expression_once_per_epoch(
    total: int, seed: int, world_size: int, per_rank: int, epochs: int
) -> None:
    batch_size = world_size * per_rank
    seen: list[int] = []
    for step in range(-(-total * epochs // batch_size)):
        shares = share_step(total, seed, step, batch_size, world_size)
        assert {len(share) for share in shares} == {per_rank}
        # The ranks take turns, so that this is the order of one process.
        seen += [index for turn in zip(*shares, strict=True) for index in turn]
    for epoch in range(epochs):
        assert seen[epoch * total : (epoch + 1) * total] == epoch_permutation(total, seed, epoch).tolist()


@settings(deadline=None)
@given(
    totals, seeds, st.integers(0, 10**9), st.lists(st.sampled_from(WORLD_SIZES), min_size=1, max_size=5),
)  # fmt: skip
def test_a_training_that_is_resumed_at_any_step_by_other_processes_sees_what_would_have_come(
    total: int, seed: int, first: int, world_sizes: list[int]
) -> None:
    for step, world_size in enumerate(world_sizes, start=first):
        found = [index for share in share_step(total, seed, step, 24, world_size) for index in share]
        (expected,) = share_step(total, seed, step, 24, 1)
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("start", [0, 10**7, 10**12 - 3])
def test_a_step_costs_the_orders_of_the_epochs_that_it_touches_at_any_position(
    start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[int] = []
    monkeypatch.setattr(np, "argsort", count_calls(np.argsort, orders))
    total = 1009
    sample_indices(total, seed=2**33 + start, start=start, count=16)
    assert len(orders) == 1 + (start // total != (start + 15) // total)


def count_calls(function: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    """The function, which appends the length of its first argument at each call."""

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(len(arguments[0]))
        return function(*arguments, **keywords)

    return counted


def share_step(total: int, seed: int, step: int, batch_size: int, world_size: int) -> list[list[int]]:
    """What each rank takes of a step."""
    return [
        sample_batch(
            total, seed=seed, start=step * batch_size, batch_size=batch_size, rank=rank, world_size=world_size
        ).tolist()
        for rank in range(world_size)
    ]


def test_a_training_goes_on_with_another_world_size_as_if_undisturbed() -> None:
    def run(start: int, steps: int, world_size: int) -> list[list[int]]:
        return [
            sorted(
                index
                for rank in range(world_size)
                for index in sample_batch(
                    37, seed=3, start=start + 8 * step, batch_size=8, rank=rank, world_size=world_size
                ).tolist()
            )
            for step in range(steps)
        ]

    assert run(0, 5, 4) + run(40, 9, 3) == run(0, 14, 1)


def test_no_rank_is_left_without_examples() -> None:
    with pytest.raises(ValueError, match="batch of 2 cannot be shared by 3 processes"):
        split_by_rank(np.arange(2), 0, 3)


def test_a_split_without_expressions_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match="hold no expressions"):
        sample_batch(0, seed=0, start=0, batch_size=4)


@settings(deadline=None)
@given(counts)
def test_every_index_is_located(counts: list[list[int]]) -> None:
    places = [
        (part, record, expression)
        for part, data_set in enumerate(counts)
        for record, count in enumerate(data_set)
        for expression in range(count)
    ]
    indices = ExampleIndex([np.array(data_set, dtype=np.int64) for data_set in counts])
    assert len(indices) == len(places)
    found = indices.locate(np.arange(len(places)))
    assert list(zip(*(column.tolist() for column in found), strict=True)) == places


def test_one_index_is_located_as_well_as_many() -> None:
    indices = ExampleIndex([np.array([2, 0, 3]), np.array([1])])
    assert [int(column) for column in indices.locate(np.int64(4))] == [0, 2, 2]


@pytest.mark.parametrize("index", [-1, 6])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match="go from 0 to 5"):
        ExampleIndex([np.array([2, 0, 3]), np.array([1])]).locate(np.array([0, index]))
