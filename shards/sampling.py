"""The order of the training data: a pure function of seed, examples seen so far, rank and world size.

Expressions have the indices 0 … total - 1 in shard order, over all data sets one after the other. The training data are
an endless sequence of epochs, each a permutation of all indices. A step takes the next `batch_size` of them, and each
rank a part of these. So every step is full, every rank runs every step, every expression is seen once per epoch, and a
training can be resumed at any step with any world size and any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError


class ExampleIndex:
    """Maps indices of the expressions of several data sets, one after the other, to their records.

    Args:
        counts: for each data set, how many expressions each of its records has, (N,).
    """

    def __init__(self, counts: Sequence[NDArray[np.int64]]) -> None:
        sizes = [len(count) for count in counts]
        joined = np.concatenate([np.zeros(0, dtype=np.int64), *counts])
        self._record_ends = np.cumsum(joined)
        self._set_starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        """Number of expressions of all data sets."""
        return int(self._record_ends[-1]) if len(self._record_ends) else 0

    def locate(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The data set, the record in it, and the expression in that record, of indices of any shape.

        Returns:
            Three arrays of the shape of `indices`.

        Raises:
            IndexError: an index is out of range.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices of expressions go from 0 to {len(self) - 1}")
        # Records without expressions end where they start: side="right" skips them.
        rows = np.searchsorted(self._record_ends, indices, side="right")
        sets = np.searchsorted(self._set_starts, rows, side="right") - 1
        starts = np.concatenate([[0], self._record_ends])[rows]
        return sets.astype(np.int64), (rows - self._set_starts[sets]).astype(np.int64), indices - starts


def epoch_permutation(total: int, seed: int, epoch: int, stream: int = 0) -> NDArray[np.int64]:
    """(total,) all indices in the order of one epoch; read-only.

    The sets of a mixture have streams 0, 1, …, so that sets of the same size have orders of their own.

    Raises:
        DataError: there are no expressions.
    """
    return _cached_permutations(stream)(total, seed, epoch)


@cache
def _cached_permutations(stream: int) -> Callable[[int, int, int], NDArray[np.int64]]:
    """The orders of a stream; each stream keeps two of them, because a step may span the end of an epoch."""
    return lru_cache(maxsize=2)(partial(_permute, stream))


def _permute(stream: int, total: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch of a stream.

    Sorting the bit generator's raw stream instead of `Generator.permutation` gives the same order in all versions of
    NumPy.

    Raises:
        DataError: there are no expressions.
    """
    if total < 1:
        raise DataError("the shards hold no expressions", remedy="prepare a split that has some")
    entropy = np.random.SeedSequence([seed, epoch], spawn_key=(stream,) if stream else ())
    keys = np.random.PCG64(entropy).random_raw(total)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def sample_indices(total: int, *, seed: int, start: int, count: int, stream: int = 0) -> NDArray[np.int64]:
    """(count,) indices at the positions start … start + count - 1 of a stream's endless sequence of epochs."""
    parts = [np.zeros(0, dtype=np.int64)]
    while count > 0:
        epoch, offset = divmod(start, max(total, 1))
        part = epoch_permutation(total, seed, epoch, stream)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts)


def split_by_rank(indices: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """The part of a step that one rank takes: parts are disjoint and complete, and their sizes differ by one at most.

    Raises:
        ValueError: a rank would get nothing.
    """
    if len(indices) < world_size:
        raise ValueError(f"a batch of {len(indices)} cannot be shared by {world_size} processes")
    return indices[rank::world_size]


def sample_batch(
    total: int, *, seed: int, start: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> NDArray[np.int64]:
    """The indices of one rank's part of a step.

    Args:
        total: number of expressions.
        seed: decides the order, together with the epoch.
        start: examples seen before the step, over all ranks.
        batch_size: examples of the step, over all ranks.
        rank: of this process.
        world_size: number of processes.

    Raises:
        DataError: there are no expressions.
        ValueError: the batch is smaller than the world size.
    """
    return split_by_rank(sample_indices(total, seed=seed, start=start, count=batch_size), rank, world_size)
