"""Shards → examples → batches, in the order of the plan.

Every example is reached by its number, so the order is the plan's alone: worker processes only decode ahead, and a
process takes its share of each batch without talking to the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.batch import Batch, collate
from pipelines.data.datasets import ExampleDataset
from pipelines.data.tokenizer import PAD_ID
from shards.workers import map_ordered


def load_batches(
    data: ExampleDataset, shares: Iterable[Sequence[int] | NDArray[np.int64]], *, workers: int
) -> Generator[Batch, None, None]:
    """Batches of the given example numbers, in their order whatever the number of workers; close it to end these.

    Args:
        data: the examples.
        shares: the numbers of each batch.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        DataError, OSError: an example cannot be read.
        WorkerError: a worker died.
    """
    batches = map_ordered(
        partial(_read_batch, data),
        (list(map(int, share)) for share in shares),
        # More than there are processors read no faster.
        workers=min(workers, count_cpus()),
        remedy="run the same command again, it goes on; --set workers=0 reads without other processes",
        initialize=_limit_threads,
    )
    pins = torch.cuda.is_available()
    with contextlib.closing(batches):
        for batch in batches:
            yield batch.pin_memory() if pins else batch


def count_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_batch(data: ExampleDataset, numbers: list[int]) -> Batch:
    return collate([data[number] for number in numbers], pad_id=PAD_ID)


def _limit_threads() -> None:
    # Each worker would else start as many threads as there are cores.
    torch.set_num_threads(1)
