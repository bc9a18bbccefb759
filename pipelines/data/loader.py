"""Batches of a data set, read ahead by worker processes.

Examples are read by index, so their order does not depend on the number of workers, and ranks need no communication.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.batch import Batch, collate
from pipelines.data.datasets import ExampleDataset
from pipelines.data.tokenizer import PAD_ID
from pipelines.runtime.memory import keep_freed_memory
from shards.workers import map_ordered

ResultT = TypeVar("ResultT")

# A batch of 16 examples at 320 pixels has 9 MB; larger ones than this are copied through pipes.
_SHARED_BYTES = 1 << 26


def load_batches(
    data: ExampleDataset, batch_indices: Iterable[Sequence[int] | NDArray[np.int64]], *, workers: int
) -> Generator[Batch, None, None]:
    """The batches of these indices, read ahead by `workers` processes (0: by this one), which end with the generator.

    Raises:
        DataError, OSError: an example cannot be read.
        WorkerError: a worker died.
    """
    batches = read_ahead(partial(_read_batch, data), batch_indices, workers=workers)
    pin_memory = torch.cuda.is_available()
    with contextlib.closing(batches):
        for batch in batches:
            yield batch.pin_memory() if pin_memory else batch


def read_ahead(
    read: Callable[[list[int]], ResultT], batch_indices: Iterable[Sequence[int] | NDArray[np.int64]], *, workers: int
) -> Generator[ResultT, None, None]:
    """What `read` makes of the indices of each batch, in this order; closing the generator ends the workers.

    Raises:
        WorkerError: a worker died.
        Exception: whatever `read` raised.
    """
    if workers:
        # A tokenizer that has used its threads warns in every process that is forked, unless this is set.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return map_ordered(
        read,
        (list(map(int, indices)) for indices in batch_indices),
        # More workers than CPUs are not faster.
        workers=min(workers, count_cpus()),
        remedy="run the same command again, it goes on; --set workers=0 reads without other processes",
        initialize=_start_worker,
        shared_bytes=_SHARED_BYTES,
    )


def count_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_batch(data: ExampleDataset, indices: list[int]) -> Batch:
    return collate(data.read(indices), pad_id=PAD_ID)


def _start_worker() -> None:
    # Otherwise each worker starts as many threads as there are cores.
    torch.set_num_threads(1)
    keep_freed_memory()
