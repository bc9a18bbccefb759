"""Which expressions each process sees, and when: pure functions of a seed and the number of examples seen so far.

Expressions are numbered 0 … total - 1 in shard order, over all data sets one after the other. Training runs over an
endless row of epochs, each a permutation of all numbers; a step takes the next `batch_size` of them and the processes
deal them out. So every step is full, every process runs every step, every expression is seen once per epoch, and a
training goes on from any position with any number of processes or reading workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError


class ExampleIndex:
    """Numbers the expressions of several data sets, one after the other, and finds them again.

    Args:
        counts: for each data set, the (N,) numbers of expressions of its records.
    """

    def __init__(self, counts: Sequence[NDArray[np.int64]]) -> None:
        sizes = [len(count) for count in counts]
        joined = np.concatenate([np.zeros(0, dtype=np.int64), *counts])
        self._record_ends = np.cumsum(joined)
        self._set_starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        """Number of expressions of all data sets."""
        return int(self._record_ends[-1]) if len(self._record_ends) else 0

    def locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Data set, record in it, and expression in that record, of each number.

        Args:
            numbers: any shape, each from 0 to len - 1.

        Returns:
            Three arrays of the shape of `numbers`.

        Raises:
            IndexError: a number that no expression has.
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"expressions are numbered 0 to {len(self) - 1}")
        # Records without expressions end where they start: the right side steps over them.
        rows = np.searchsorted(self._record_ends, numbers, side="right")
        sets = np.searchsorted(self._set_starts, rows, side="right") - 1
        starts = np.concatenate([[0], self._record_ends])[rows]
        return sets.astype(np.int64), (rows - self._set_starts[sets]).astype(np.int64), numbers - starts


@lru_cache(maxsize=2)
def epoch_permutation(total: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(total,) all expression numbers in the order of one epoch; read-only.

    The bit generator's raw stream is sorted rather than `Generator.permutation` called: NumPy keeps only the former
    the same in all its versions.

    Raises:
        DataError: there is nothing to order.
    """
    if total < 1:
        raise DataError("the shards hold no expressions", remedy="prepare a split that has some")
    keys = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(total)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def sample_indices(total: int, *, seed: int, start: int, count: int) -> NDArray[np.int64]:
    """(count,) expression numbers of examples start … start + count - 1 of the endless row of epochs."""
    parts = [np.zeros(0, dtype=np.int64)]
    while count > 0:
        epoch, offset = divmod(start, max(total, 1))
        part = epoch_permutation(total, seed, epoch)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts)


def split_by_rank(numbers: NDArray[np.int64], process: int, processes: int) -> NDArray[np.int64]:
    """This process's part of a step: shares are disjoint, make up the whole, and differ by one at most.

    Raises:
        ValueError: a process would be left with nothing.
    """
    if len(numbers) < processes:
        raise ValueError(f"a batch of {len(numbers)} cannot be shared by {processes} processes")
    return numbers[process::processes]


def sample_batch(
    total: int, *, seed: int, start: int, batch_size: int, process: int = 0, processes: int = 1
) -> NDArray[np.int64]:
    """This process's expression numbers of the step that begins after `start` examples.

    Args:
        total: number of expressions.
        seed: decides the order, with the epoch.
        start: examples seen so far, by all processes together.
        batch_size: examples of the step, of all processes together.
        process: rank of this process.
        processes: how many there are.

    Raises:
        DataError: there are no expressions.
        ValueError: the batch is smaller than the number of processes.
    """
    return split_by_rank(sample_indices(total, seed=seed, start=start, count=batch_size), process, processes)


def split_in_order(total: int, process: int, processes: int) -> NDArray[np.int64]:
    """This process's run of 0 … total - 1: every number goes to one process, and none to several.

    Runs follow each other and differ by one in length at most; with fewer numbers than processes some are empty.
    Neighbours stay together because expressions of one image are numbered in a row.
    """
    return np.arange(total * process // processes, total * (process + 1) // processes, dtype=np.int64)


def batches_in_order(
    total: int, *, batch_size: int, process: int = 0, processes: int = 1
) -> Iterator[NDArray[np.int64]]:
    """This process's share of all expressions in shard order, in batches; the last one may be smaller."""
    share = split_in_order(total, process, processes)
    for first in range(0, len(share), batch_size):
        yield share[first : first + batch_size]
