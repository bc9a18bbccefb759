"""Shards → examples → batches, in the order of the plan.

Every example is reached by its number, so the order is the plan's alone: worker processes only decode ahead, and a
process takes its share of each batch without talking to the others.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from pipelines.batch import Batch, Example, collate
from pipelines.images import decode_picture, resize_picture, sample_rows
from pipelines.text import PAD_ID, tokenize_expressions
from shards import masks
from shards.plan import ExampleNumbers
from shards.reader import ShardReader
from shards.workers import map_ordered

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from shards.record import Expression, ImageRecord, Instance

Part = tuple["Path", str]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How the network sees an example."""

    tokenizer: Any
    """The checkpoint's tokenizer."""
    max_tokens: int
    """Tokens of an expression at most."""
    image_size: int
    """Side of the network's picture in pixels."""


class ExampleData(Protocol):
    """Examples reached by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example: ...


class GroundingData:
    """The examples of one or several splits, numbered in shard order.

    Args:
        parts: (folder, split) pairs, in order.
        frame: how the network sees them.
        mask_size: side of target masks; 0 leaves targets out.
    """

    def __init__(self, parts: Sequence[Part], frame: Frame, *, mask_size: int) -> None:
        self.frame, self.mask_size = frame, mask_size
        self.readers = [ShardReader(folder, split) for folder, split in parts]
        self._numbers = ExampleNumbers([reader.index.expressions for reader in self.readers])
        self._last: tuple[tuple[int, int], ImageRecord, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self._numbers)

    def __getitem__(self, number: int) -> Example:
        """The example of an expression's number.

        Raises:
            DataError: its picture or record is damaged.
        """
        record, picture, expression = self._find(number)
        ids = tokenize_expressions(self.frame.tokenizer, [expression.text], self.frame.max_tokens)[0]
        # NOTE: as in DETR's loader (datasets/coco.py) and ReLA's, crowd regions are no targets to match; what refers to
        # them alone still exists.
        instances = record.mask_targets(expression)
        boxes = np.array([instance.box for instance in instances], dtype=np.float32).reshape(-1, 4)
        corners = boxes / np.array([record.width, record.height] * 2, dtype=np.float32)
        return Example(
            id=expression.id,
            position=number,
            picture=picture,
            input_ids=ids,
            original_size=(record.height, record.width),
            boxes=np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1),
            masks=self._sample_masks(record, instances),
            crowds=len(expression.instances) - len(instances),
        )

    def label(self, number: int) -> tuple[ImageRecord, Expression]:
        """The expression of a number and the record it belongs to; its picture is not read.

        Raises:
            DataError: the record is damaged.
        """
        part, position, expression = (int(value) for value in self._numbers.locate(np.asarray(number)))
        record = self.readers[part].record(position)
        return record, record.expressions[expression]

    def _find(self, number: int) -> tuple[ImageRecord, NDArray[np.uint8], Expression]:
        part, position, expression = (int(value) for value in self._numbers.locate(np.asarray(number)))
        # Neighbouring expressions share their picture: in shard order it is decoded once.
        if self._last is None or self._last[0] != (part, position):
            reader = self.readers[part]
            record = reader.record(position)
            picture = decode_picture(reader.picture(position), record.file_name)
            self._last = (part, position), record, resize_picture(picture, self.frame.image_size)
        _, record, resized = self._last
        return record, resized, record.expressions[expression]

    def _sample_masks(self, record: ImageRecord, instances: Sequence[Instance]) -> NDArray[np.bool_]:
        size = self.mask_size
        sampled = np.zeros((len(instances) if size else 0, size, size), dtype=bool)
        if size:
            rows = sample_rows(record.height, self.frame.image_size, size)
            columns = sample_rows(record.width, self.frame.image_size, size)
            for target, instance in enumerate(instances):
                sampled[target] = masks.decode_mask(instance.mask)[rows[:, None], columns]
        return sampled


def load_batches(
    data: ExampleData, shares: Iterable[Sequence[int] | NDArray[np.int64]], *, workers: int
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
        workers=min(workers, count_processors()),
        remedy="run the same command again, it goes on; --set workers=0 reads without other processes",
        initialize=_limit_threads,
    )
    pins = torch.cuda.is_available()
    with contextlib.closing(batches):
        for batch in batches:
            yield batch.pin_memory() if pins else batch


def count_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_batch(data: ExampleData, numbers: list[int]) -> Batch:
    return collate([data[number] for number in numbers], pad_id=PAD_ID)


def read_texts(parts: Sequence[Part]) -> Iterator[str]:
    """All expressions' texts, in shard order."""
    for folder, split in parts:
        for record in ShardReader(folder, split).records():
            for expression in record.expressions:
                yield expression.text


def _limit_threads() -> None:
    # Each worker would else start as many threads as there are cores.
    torch.set_num_threads(1)
