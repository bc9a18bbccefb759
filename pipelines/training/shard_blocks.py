"""The block shuffle of a training: the blocks of its shards, and what of them is kept on this machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from pipelines.data.batch import Batch
from pipelines.data.datasets import GroundingDataset
from shards.block_shuffle import ShardBlocks
from shards.progress import log
from shards.reader import ShardReader
from shards.remote_blocks import HeldShards
from shards.remote_cache import LIMIT_VARIABLE
from shards.remote_folders import open_cache
from shards.remote_shards import RemoteShard

Shards = Sequence[RemoteShard | None]


@dataclass(frozen=True, kw_only=True)
class BlockStreams:
    """The streams of a training, one or one for each set of a mixture, and the shards of each in order."""

    streams: tuple[ShardBlocks, ...]
    shards: tuple[Shards, ...]
    """None for a shard that is on this machine anyway."""

    def list_ahead(self, positions: Sequence[int], ends: Sequence[int], *, seed: int) -> list[RemoteShard]:
        """The remote shards of the present and the next block of each stream, from its position to its end."""
        chosen = [
            [shards[index] for index in stream.list_ahead(position, end, seed=seed)]
            for stream, shards, position, end in zip(self.streams, self.shards, positions, ends, strict=True)
        ]
        # What is needed first comes first: the streams take turns.
        turns = max(map(len, chosen), default=0)
        ordered = [row[turn] for turn in range(turns) for row in chosen if turn < len(row)]
        return [shard for shard in ordered if shard is not None]


def split_into_blocks(block_shards: int, data: GroundingDataset, set_parts: Sequence[int]) -> BlockStreams:
    """The blocks of a training's shards; logs if the cache cannot hold two of them.

    Args:
        block_shards: shards of a block.
        data: what is trained on.
        set_parts: for each stream, how many of the splits of `data` it has, in order.
    """
    parts = iter(zip(data.readers, data.shard_sizes, strict=True))
    streams, shards = [], []
    for stream, count in enumerate(set_parts):
        own = list(islice(parts, count))
        sizes = tuple(int(size) for _, part_sizes in own for size in part_sizes)
        streams.append(ShardBlocks(shard_sizes=sizes, block_shards=block_shards, stream=stream))
        shards.append([shard for reader, part in own for shard in _list_shards(reader, len(part))])
    _compare_with_cache(shards, block_shards)
    return BlockStreams(streams=tuple(streams), shards=tuple(shards))


def _list_shards(reader: ShardReader, count: int) -> Shards:
    return reader.remote_shards or [None] * count


def _compare_with_cache(shards: Sequence[Shards], block_shards: int) -> None:
    """Log if the two blocks that are needed at a time may not fit into the cache."""
    sizes = [sorted((shard.size for shard in filter(None, each)), reverse=True) for each in shards]
    largest = sum(sum(each[: 2 * block_shards]) for each in sizes)
    _warn_of_small_cache(
        largest, f"two blocks of {block_shards} shards take up to",
        f"more than once an epoch; set {LIMIT_VARIABLE} higher or shuffle_block_shards lower",
    )  # fmt: skip


def compare_with_cache(readers: Sequence[ShardReader]) -> None:
    """Log if the cache cannot hold all shards of a training without blocks, which needs every shard at any time."""
    _warn_of_small_cache(
        sum(shard.size for reader in readers for shard in reader.remote_shards), "the shards of the training take",
        f"again for almost every example; set {LIMIT_VARIABLE} to more than that, or shuffle_block_shards to read them "
        "in blocks",
    )  # fmt: skip


def _warn_of_small_cache(needed: int, what: str, consequence: str) -> None:
    if needed and needed > (limit := open_cache().limit):
        log(
            f"Warning: {what} {needed:,} bytes, and the cache of remote shards has {limit:,}: shards may be fetched "
            f"{consequence}"
        )


def hold_blocks(
    batches: Generator[Batch, None, None], first_step: int, list_ahead: Callable[[int], list[RemoteShard]]
) -> Generator[Batch, None, None]:
    """The batches from a step on; meanwhile the shards that `list_ahead` names for a step stay in the cache."""
    with closing(batches), closing(HeldShards()) as held:
        for step, batch in enumerate(batches, start=first_step):
            held.hold(list_ahead(step))
            yield batch
