"""The order of training data that are larger than the disk: expressions are shuffled within blocks of shards.

Each epoch the shards are permuted and taken in blocks, and the expressions of each block are permuted. Like
`shards.sampling` this is a pure function of seed and position. While a block is read only its shards are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError

# Below the stream's own key, which is that of the whole set's order.
_SHARD_KEY, _BLOCK_KEY = 1, 2


@dataclass(frozen=True, kw_only=True)
class ShardBlocks:
    """The shards of one stream, whose expressions have consecutive indices, shard by shard.

    Args:
        shard_sizes: expressions of each shard; those without any are in no block.
        block_shards: shards of a block; the last one of an epoch may have fewer.
        stream: as in `epoch_permutation`, so that the sets of a mixture have orders of their own.
    """

    shard_sizes: tuple[int, ...]
    block_shards: int
    stream: int = 0

    @cached_property
    def total(self) -> int:
        """Number of expressions."""
        return sum(self.shard_sizes)

    @cached_property
    def shard_starts(self) -> NDArray[np.int64]:
        """(S,) index of the first expression of each shard."""
        return np.cumsum([0, *self.shard_sizes], dtype=np.int64)[:-1]

    def sample(self, *, seed: int, start: int, count: int) -> NDArray[np.int64]:
        """(count,) indices at the positions start … start + count - 1 of the endless sequence of epochs.

        Raises:
            DataError: there are no expressions.
        """
        parts = [np.zeros(0, dtype=np.int64)]
        while count > 0:
            epoch, block, offset = self.locate(start, seed=seed)
            part = _permute_block(self, seed, epoch, block)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def locate(self, position: int, *, seed: int) -> tuple[int, int, int]:
        """The epoch, the block in it, and the offset in that block of a position.

        Raises:
            DataError: there are no expressions.
        """
        if self.total < 1:
            raise DataError("the shards hold no expressions", remedy="prepare a split that has some")
        epoch, offset = divmod(position, self.total)
        ends = _order_shards(self, seed, epoch)[1]
        block = int(np.searchsorted(ends, offset, side="right"))
        return epoch, block, offset - (int(ends[block - 1]) if block else 0)

    def list_block(self, *, seed: int, epoch: int, block: int) -> list[int]:
        """The shards of a block."""
        order = _order_shards(self, seed, epoch)[0]
        chosen: list[int] = order[block * self.block_shards : (block + 1) * self.block_shards].tolist()
        return chosen

    def list_ahead(self, position: int, end: int, *, seed: int) -> list[int]:
        """The shards of the block at a position and of the next one, in this order; none that begin at `end` or later.

        Raises:
            DataError: there are no expressions.
        """
        shards: dict[int, None] = {}
        for _, (epoch, block) in zip(range(2), self._blocks_from(position, end, seed), strict=False):
            shards |= dict.fromkeys(self.list_block(seed=seed, epoch=epoch, block=block))
        return list(shards)

    def _blocks_from(self, position: int, end: int, seed: int) -> Iterator[tuple[int, int]]:
        while position < end:
            epoch, block, _ = self.locate(position, seed=seed)
            yield epoch, block
            position = epoch * self.total + int(_order_shards(self, seed, epoch)[1][block])


@lru_cache(maxsize=64)
def _order_shards(blocks: ShardBlocks, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The shards in the order of an epoch, and the (B,) positions in the epoch where its blocks end; read-only."""
    filled = np.flatnonzero(blocks.shard_sizes)
    order = filled[_draw_order(seed, epoch, (blocks.stream, _SHARD_KEY), len(filled))]
    ends = np.cumsum(np.asarray(blocks.shard_sizes, dtype=np.int64)[order])
    last = np.append(np.arange(blocks.block_shards, len(order), blocks.block_shards), len(order)) - 1
    return order, ends[last]


@lru_cache(maxsize=16)
def _permute_block(blocks: ShardBlocks, seed: int, epoch: int, block: int) -> NDArray[np.int64]:
    """The indices of a block in their order; read-only."""
    shards = blocks.list_block(seed=seed, epoch=epoch, block=block)
    starts = blocks.shard_starts
    indices = np.concatenate([starts[shard] + np.arange(blocks.shard_sizes[shard]) for shard in shards])
    chosen = indices[_draw_order(seed, epoch, (blocks.stream, _BLOCK_KEY, block), len(indices))]
    chosen.flags.writeable = False
    return chosen


def _draw_order(seed: int, epoch: int, key: tuple[int, ...], count: int) -> NDArray[np.int64]:
    """(count,) a permutation; as in `epoch_permutation`, the raw stream is sorted."""
    generator = np.random.PCG64(np.random.SeedSequence([seed, epoch], spawn_key=key))
    return np.argsort(generator.random_raw(count), kind="stable").astype(np.int64)
