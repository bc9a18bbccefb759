"""Expressions are shuffled within blocks of shards, by a pure function of seed and position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import block_shuffle
from shards.block_shuffle import ShardBlocks
from shards.errors import DataError
from shards.mixing import Mixture
from shards.sampling import split_by_rank

seeds = st.integers(0, 2**40)
shard_sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
shuffles = st.builds(
    lambda sizes, block, stream: ShardBlocks(shard_sizes=tuple(sizes), block_shards=block, stream=stream),
    shard_sizes, st.integers(1, 5), st.integers(0, 3),
)  # fmt: skip


def find_shards(blocks: ShardBlocks, indices: Sequence[int]) -> list[int]:
    """The shard of each expression."""
    found: list[int] = np.searchsorted(np.cumsum(blocks.shard_sizes), indices, side="right").tolist()
    return found


@settings(deadline=None)
@given(shuffles, seeds, st.integers(0, 10**6))
def test_an_epoch_holds_every_expression_once_block_by_block(blocks: ShardBlocks, seed: int, epoch: int) -> None:
    seen = blocks.sample(seed=seed, start=epoch * blocks.total, count=blocks.total).tolist()
    assert sorted(seen) == list(range(blocks.total))
    filled = [shard for shard, size in enumerate(blocks.shard_sizes) if size]
    used: set[int] = set()
    for block in range(-(-len(filled) // blocks.block_shards)):
        shards = blocks.list_block(seed=seed, epoch=epoch, block=block)
        assert not used & set(shards)
        used |= set(shards)
        size = sum(blocks.shard_sizes[shard] for shard in shards)
        part, seen = seen[:size], seen[size:]
        assert set(find_shards(blocks, part)) == set(shards)
    assert used == set(filled)


@settings(deadline=None)
@given(
    shuffles, seeds, st.one_of(st.integers(0, 300), st.integers(0, 10**12)), st.lists(st.integers(1, 40), max_size=5)
)
def test_blocks_continue_at_any_position(blocks: ShardBlocks, seed: int, start: int, sizes: list[int]) -> None:
    whole = blocks.sample(seed=seed, start=start, count=sum(sizes)).tolist()
    block_shuffle._order_shards.cache_clear()
    block_shuffle._permute_block.cache_clear()
    parts: list[int] = []
    for size in reversed(sizes):
        start_of_part = start + sum(sizes) - len(parts) - size
        parts = blocks.sample(seed=seed, start=start_of_part, count=size).tolist() + parts
    assert whole == parts


@settings(deadline=None)
@given(shuffles, seeds, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 40))
def test_what_is_read_now_or_next_is_known_ahead(
    blocks: ShardBlocks, seed: int, position: int, rest: int, count: int
) -> None:
    ahead = blocks.list_ahead(position, position + rest, seed=seed)
    epoch, block, offset = blocks.locate(position, seed=seed)
    if rest:
        assert set(blocks.list_block(seed=seed, epoch=epoch, block=block)) <= set(ahead)
    else:
        assert not ahead
    assert len(ahead) <= 2 * blocks.block_shards
    # The two blocks, unless the end comes first.
    present = (
        sum(blocks.shard_sizes[shard] for shard in blocks.list_block(seed=seed, epoch=epoch, block=block)) - offset
    )
    following = blocks.locate(position + present, seed=seed)
    length = present + sum(
        blocks.shard_sizes[s] for s in blocks.list_block(seed=seed, epoch=following[0], block=following[1])
    )
    if rest <= present:
        assert len(ahead) <= blocks.block_shards
    seen = blocks.sample(seed=seed, start=position, count=min(length, rest, 200)).tolist()
    assert set(find_shards(blocks, seen)) <= set(ahead)


@settings(deadline=None)
@given(shuffles, seeds, st.integers(0, 10**6), st.sampled_from([1, 2, 3, 8]))
def test_ranks_share_a_step_of_blocks(blocks: ShardBlocks, seed: int, start: int, world_size: int) -> None:
    whole = blocks.sample(seed=seed, start=start, count=24)
    shares = [split_by_rank(whole, rank, world_size) for rank in range(world_size)]
    assert [index for turn in zip(*shares, strict=True) for index in turn] == whole.tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(shard_sizes, st.integers(1, 9)), min_size=1, max_size=3), seeds, st.integers(1, 3))
def test_each_set_of_a_mixture_goes_through_its_own_blocks(
    sets: list[tuple[list[int], int]], seed: int, block_shards: int
) -> None:
    streams = tuple(
        ShardBlocks(shard_sizes=tuple(sizes), block_shards=block_shards, stream=stream)
        for stream, (sizes, _) in enumerate(sets)
    )
    sizes, weights = tuple(stream.total for stream in streams), tuple(weight for _, weight in sets)
    mixture = Mixture(sizes=sizes, weights=weights, blocks=streams)
    indices = mixture.sample(seed=seed, start=0, count=150)
    later = mixture.sample(seed=seed, start=70, count=80)
    assert indices[70:].tolist() == later.tolist()
    first = 0
    for stream in streams:
        own = indices[(indices >= first) & (indices < first + stream.total)] - first
        assert own.tolist() == stream.sample(seed=seed, start=0, count=len(own)).tolist()
        first += stream.total


def test_the_order_in_blocks_stays_the_same_in_all_versions() -> None:
    blocks = ShardBlocks(shard_sizes=(3, 0, 2, 4, 1), block_shards=2)
    assert blocks.sample(seed=7, start=0, count=20).tolist() == [
        6,
        5,
        9,
        7,
        8,
        4,
        0,
        1,
        2,
        3,
        1,
        2,
        3,
        4,
        0,
        5,
        8,
        7,
        6,
        9,
    ]
    assert blocks.list_ahead(0, 10**6, seed=7) == [4, 3, 2, 0]


def test_orders_depend_on_seed_epoch_and_stream() -> None:
    orders = {
        tuple(blocks.sample(seed=seed, start=54 * epoch, count=54).tolist())
        for blocks in (ShardBlocks(shard_sizes=(9,) * 6, block_shards=2, stream=stream) for stream in range(3))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 27


def test_every_expression_is_equally_likely_at_every_position() -> None:
    orders = ShardBlocks(shard_sizes=(2, 2, 2), block_shards=2).sample(seed=0, start=0, count=6 * 3000)
    shares = np.array([np.bincount(column, minlength=6) for column in orders.reshape(3000, 6).T]) / 3000
    assert np.abs(shares - 1 / 6).max() < 0.03


def test_a_step_costs_the_blocks_that_it_touches_at_any_position() -> None:
    blocks = ShardBlocks(shard_sizes=(50,) * 400, block_shards=4)
    for start in (0, 10**7, 10**12 - 3):
        block_shuffle._order_shards.cache_clear()
        block_shuffle._permute_block.cache_clear()
        blocks.sample(seed=start, start=start, count=16)
        assert block_shuffle._permute_block.cache_info().misses <= 2
        assert block_shuffle._order_shards.cache_info().misses <= 2


def test_shards_without_expressions_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match="hold no expressions"):
        ShardBlocks(shard_sizes=(0, 0), block_shards=2).sample(seed=0, start=0, count=4)
