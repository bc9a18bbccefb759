"""The order of several sets that are mixed in stated ratios: a pure function of the position, like `shards.sampling`.

Ratios are reduced to whole weights. Every block of as many positions as the sum of the weights holds each set as often
as its weight says, in an order of its own. Each set is an endless sequence of its own epochs, so that an expression
comes once before any expression of its set repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shards.block_shuffle import ShardBlocks
from shards.errors import SettingsError
from shards.sampling import sample_indices

_MOST_POSITIONS = 100_000
"""Positions of a block at most."""
_DRAWN_TOGETHER = 4096
"""Positions whose sets are drawn together at least, to save time."""
# Streams of random numbers: set i of a mixture has stream i, and the order of the sets has this one.
_BLOCK_KEY = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several sets in stated ratios; their expressions have consecutive indices, set by set."""

    sizes: tuple[int, ...]
    """Expressions of each set."""
    weights: tuple[int, ...]
    """Examples of each set in a block."""
    blocks: tuple[ShardBlocks, ...] = ()
    """The blocks of shards of each set, if expressions are shuffled within these; set i has stream i."""

    @property
    def block_size(self) -> int:
        """Positions of a block."""
        return sum(self.weights)

    def sample(self, *, seed: int, start: int, count: int) -> NDArray[np.int64]:
        """(count,) indices of the expressions at the positions start … start + count - 1.

        Raises:
            DataError: a set that has a turn holds no expressions.
        """
        sets = self.draw_sets(seed=seed, start=start, count=count)
        indices = np.zeros(count, dtype=np.int64)
        first = 0
        for stream, (size, seen) in enumerate(zip(self.sizes, self.count_examples(start, seed=seed), strict=True)):
            chosen = sets == stream
            turns = int(chosen.sum())
            if self.blocks:
                drawn = self.blocks[stream].sample(seed=seed, start=seen, count=turns)
            else:
                drawn = sample_indices(size, seed=seed, start=seen, count=turns, stream=stream)
            indices[chosen] = first + drawn
            first += size
        return indices

    def draw_sets(self, *, seed: int, start: int, count: int) -> NDArray[np.int64]:
        """(count,) the set at each of the positions start … start + count - 1."""
        parts = [np.zeros(0, dtype=np.int64)]
        while count > 0:
            group, offset = divmod(start, _count_blocks(self.weights) * self.block_size)
            part = _draw_group(self.weights, seed, group)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def count_examples(self, position: int, *, seed: int) -> tuple[int, ...]:
        """Examples of each set before a position."""
        blocks, rest = divmod(position, self.block_size)
        started = self.draw_sets(seed=seed, start=position - rest, count=rest)
        counts = np.bincount(started, minlength=len(self.weights)).tolist()
        return tuple(blocks * weight + count for weight, count in zip(self.weights, counts, strict=True))


def reduce_ratios(ratios: Sequence[float]) -> tuple[int, ...]:
    """The smallest whole numbers in these ratios: 0.5 and 0.25 become 2 and 1.

    Raises:
        SettingsError: a ratio is not a number above 0, or the numbers are too large to be mixed in blocks.
    """
    if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise SettingsError(f"ratios are numbers above 0, found {', '.join(f'{ratio:g}' for ratio in ratios)}")
    # The decimal digits as they were written, not the binary fraction next to them.
    exact = [Fraction(repr(float(ratio))) for ratio in ratios]
    scale = math.lcm(*(fraction.denominator for fraction in exact))
    whole = [int(fraction * scale) for fraction in exact]
    weights = tuple(each // math.gcd(*whole) for each in whole)
    if sum(weights) > _MOST_POSITIONS:
        shown = ":".join(map(str, weights))
        raise SettingsError(
            f"ratios are {shown} in whole numbers, whose sum is above {_MOST_POSITIONS:,}; write them with fewer digits"
        )
    return weights


def _count_blocks(weights: tuple[int, ...]) -> int:
    """Blocks that are drawn together."""
    return -(-_DRAWN_TOGETHER // sum(weights))


@lru_cache(maxsize=2)
def _draw_group(weights: tuple[int, ...], seed: int, group: int) -> NDArray[np.int64]:
    """(blocks × block size,) the sets at the positions of a group of blocks; read-only."""
    shape = _count_blocks(weights), sum(weights)
    generator = np.random.PCG64(np.random.SeedSequence([seed, group], spawn_key=_BLOCK_KEY))
    # As in `epoch_permutation`, the raw stream is sorted.
    order = np.argsort(generator.random_raw(shape[0] * shape[1]).reshape(shape), axis=1, kind="stable")
    sets = np.repeat(np.arange(len(weights), dtype=np.int64), weights)[order].reshape(-1)
    sets.flags.writeable = False
    return sets
