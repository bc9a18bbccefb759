"""How random the order in blocks of shards is, next to that of the whole set.

A set of the size of gRefCOCO: 20,000 images with 14 expressions each, 500 images a shard. For each number of shards in
a block, over eight epochs: how far expressions move, how alike neighbors are, and what a batch of 16 holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards.block_shuffle import ShardBlocks
from shards.sampling import sample_indices
from tests.benchmarks.figures import Figure

SHARDS, IMAGES, EXPRESSIONS, BATCH = 40, 500, 14, 16
BLOCKS = (1, 2, 4, 8, 16)
SEED, EPOCHS = 0, 8


def measure() -> list[Figure]:
    """The figures of each block size and of the whole set."""
    total = SHARDS * IMAGES * EXPRESSIONS
    count = EPOCHS * total
    orders = {
        f"blocks of {size} of {SHARDS} shards": ShardBlocks(
            shard_sizes=(IMAGES * EXPRESSIONS,) * SHARDS, block_shards=size
        ).sample(seed=SEED, start=0, count=count)
        for size in BLOCKS
    }
    orders["the whole set"] = sample_indices(total, seed=SEED, start=0, count=count)
    return [figure for name, order in orders.items() for figure in describe(name, order.reshape(EPOCHS, total))]


def describe(name: str, epochs: NDArray[np.int64]) -> list[Figure]:
    """The figures of the orders of some epochs, (E, N)."""
    total = epochs.shape[1]
    images = epochs // EXPRESSIONS
    shards = images // IMAGES
    # 1/3 for a permutation without any structure.
    displacement = float(np.abs(epochs - np.arange(total)).mean()) / total
    correlation = float(np.mean([correlate_neighbors(epoch) for epoch in shards]))
    return [
        Figure(f"mean displacement, {name}", displacement, "of the set"),
        Figure(f"serial correlation of shards, {name}", correlation, ""),
        Figure(f"distinct shards in a batch of {BATCH}, {name}", count_distinct(shards), "shards"),
        Figure(f"distinct images in a batch of {BATCH}, {name}", count_distinct(images), "images"),
    ]


def correlate_neighbors(values: NDArray[np.int64]) -> float:
    """Pearson's correlation of the values of neighbors in the order."""
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


def count_distinct(values: NDArray[np.int64]) -> float:
    """The mean number of distinct values in the batches."""
    kept = values[:, : values.shape[1] // BATCH * BATCH]
    ordered = np.sort(kept.reshape(-1, BATCH), axis=1)
    return 1 + float((np.diff(ordered, axis=1) > 0).sum(axis=1).mean())
