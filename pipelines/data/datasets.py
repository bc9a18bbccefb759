"""Examples of prepared shards, reached by their index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.data.batch import Example
from pipelines.data.image_transforms import decode_image, resize_image, sample_rows
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import tokenize_expressions
from shards import masks
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord, Instance
from shards.sampling import ExampleIndex

Part = tuple["Path", str]


class ExampleDataset(Protocol):
    """Examples reached by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example: ...


class GroundingDataset:
    """The examples of one or several splits, numbered in shard order.

    Args:
        parts: (folder, split) pairs, in order.
        processor: how the network sees them.
        mask_size: side of target masks; 0 leaves targets out.
    """

    def __init__(self, parts: Sequence[Part], processor: Processor, *, mask_size: int) -> None:
        self.processor, self.mask_size = processor, mask_size
        self.readers = [ShardReader(folder, split) for folder, split in parts]
        self._numbers = ExampleIndex([reader.index.expressions for reader in self.readers])
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
        ids = tokenize_expressions(self.processor.tokenizer, [expression.text], self.processor.max_tokens)[0]
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
            picture = decode_image(reader.image(position), record.file_name)
            self._last = (part, position), record, resize_image(picture, self.processor.image_size)
        _, record, resized = self._last
        return record, resized, record.expressions[expression]

    def _sample_masks(self, record: ImageRecord, instances: Sequence[Instance]) -> NDArray[np.bool_]:
        size = self.mask_size
        sampled = np.zeros((len(instances) if size else 0, size, size), dtype=bool)
        if size:
            rows = sample_rows(record.height, self.processor.image_size, size)
            columns = sample_rows(record.width, self.processor.image_size, size)
            for target, instance in enumerate(instances):
                sampled[target] = masks.decode_mask(instance.mask)[rows[:, None], columns]
        return sampled


def read_texts(parts: Sequence[Part]) -> Iterator[str]:
    """All expressions' texts, in shard order."""
    for folder, split in parts:
        for record in ShardReader(folder, split).records():
            for expression in record.expressions:
                yield expression.text
