"""Examples by index: of prepared shards, or of image files and texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.data.batch import Example
from pipelines.data.image_cache import ImageCache
from pipelines.data.image_decoding import read_image
from pipelines.data.image_queries import CheckedImages
from pipelines.data.image_transforms import mask_source_indices
from pipelines.data.processor import Processor
from pipelines.data.truncation import describe_findings, find_lossy_expressions
from shards import masks
from shards.errors import DataError
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord, Instance
from shards.sampling import ExampleIndex

Part = tuple[Path, str]
"""A folder of shards and one of its splits."""


class ExampleDataset(Protocol):
    """Examples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def read(self, indices: Sequence[int]) -> list[Example]:
        """The examples of some indices."""

    def describe(self) -> dict[str, Any]:
        """The counts and notes on the data for the artifact of a prediction."""


class GroundingDataset:
    """The examples of one or several splits, in shard order.

    `part_sizes` are the expressions of each split, `shard_sizes` those of each of its shards.

    Args:
        parts: the splits, in order.
        processor: prepares images and expressions.
        mask_size: side of the target masks in pixels; 0: no target masks.
        left_out: for each split which of its records have no examples, (N,); empty: all have.

    `caches`, if it is not empty, holds the resized images of each split; what is not in them is decoded.
    """

    def __init__(
        self, parts: Sequence[Part], processor: Processor, *, mask_size: int, left_out: Sequence[NDArray[np.bool_]] = ()
    ) -> None:
        self.processor, self.mask_size = processor, mask_size
        self.caches: list[ImageCache] = []
        self.readers = [ShardReader(folder, split) for folder, split in parts]
        self._left_out = left_out
        counts = [reader.index.expressions for reader in self.readers]
        if left_out:
            # The index passes over records without expressions.
            counts = [np.where(without, 0, count) for without, count in zip(left_out, counts, strict=True)]
        self._index = ExampleIndex(counts)
        self.part_sizes = [int(count.sum()) for count in counts]
        self.shard_sizes = [
            np.bincount(reader.index.shard_indices, count, len(reader.index.shards)).astype(np.int64)
            for reader, count in zip(self.readers, counts, strict=True)
        ]
        self._last: tuple[tuple[int, int], ImageRecord, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self._index)

    def __getitem__(self, index: int) -> Example:
        """The example of an index.

        Raises:
            DataError: its image or record is damaged.
        """
        return self.read([index])[0]

    def read(self, indices: Sequence[int]) -> list[Example]:
        """The examples of some indices; as each alone, but their expressions are tokenized together.

        Raises:
            DataError: an image or a record is damaged.
        """
        parts, positions, rows = (each.tolist() for each in self._index.locate(np.asarray(indices, dtype=np.int64)))
        read = [self._read_record(part, position) for part, position in zip(parts, positions, strict=True)]
        chosen = [record.expressions[row] for (record, _), row in zip(read, rows, strict=True)]
        tokens = self.processor.tokenize([expression.text for expression in chosen])
        examples = []
        for part, position, (record, image), expression, input_ids in zip(
            parts, positions, read, chosen, tokens, strict=True
        ):
            try:
                examples.append(self._make_example(record, image, expression, input_ids))
            except DataError as error:
                file, key = self.readers[part].shard_file(position), self.readers[part].index.keys[position]
                raise DataError(error.what, file=file, record=f"key {key}", remedy="prepare the split again") from error
        return examples

    def _read_record(self, part: int, position: int) -> tuple[ImageRecord, NDArray[np.uint8]]:
        """A record and its resized image."""
        # Neighboring expressions share their image: in shard order each image is decoded once.
        if self._last is None or self._last[0] != (part, position):
            record = self.readers[part].record(position)
            image = self.caches[part].read(position) if self.caches else None
            if image is None:
                image = self.processor.read(self.readers[part].image(position), record.file_name)
            self._last = (part, position), record, image
        return self._last[1:]

    def _make_example(
        self, record: ImageRecord, image: NDArray[np.uint8], expression: Expression, input_ids: list[int]
    ) -> Example:
        # NOTE: as in DETR's loader (datasets/coco.py) and ReLA's, crowd regions are not matched; an expression that
        # refers to crowd regions alone still has a target.
        instances = record.mask_targets(expression)
        boxes = np.array([instance.box for instance in instances], dtype=np.float32).reshape(-1, 4)
        corners = boxes / np.array([record.width, record.height] * 2, dtype=np.float32)
        return Example(
            id=expression.id,
            image=image,
            input_ids=input_ids,
            original_size=(record.height, record.width),
            boxes=np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1),
            masks=self._resize_masks(record, instances),
            unmasked=tuple(target for target, instance in enumerate(instances) if instance.mask is None),
            crowds=len(expression.instances) - len(instances),
        )

    def find_expression(self, index: int) -> tuple[ImageRecord, Expression]:
        """The expression of an index and its record; the image is not read.

        Raises:
            DataError: the record is damaged.
        """
        part, position, row = self._locate(index)
        record = self.readers[part].record(position)
        return record, record.expressions[row]

    def expressions(self) -> Iterator[tuple[str, str]]:
        """The id and the text of every expression; no image is read."""
        return read_expressions(self.readers, self._left_out)

    def describe(self) -> dict[str, Any]:
        """How many expressions are cut at the token limit, and notes on all that lose information in tokenization."""
        tokenizer, max_tokens = self.processor.tokenizer, self.processor.max_tokens
        findings = list(find_lossy_expressions(tokenizer, self.expressions(), max_tokens))
        num_cut = sum(finding.kind == "cut" for finding in findings)
        return {"cut": num_cut, "notes": describe_findings(findings, max_tokens, each=False)}

    def _locate(self, index: int) -> tuple[int, int, int]:
        part, position, row = self._index.locate(np.asarray(index))
        return int(part), int(position), int(row)

    def _resize_masks(self, record: ImageRecord, instances: Sequence[Instance]) -> NDArray[np.bool_]:
        size = self.mask_size
        resized = np.zeros((len(instances) if size else 0, size, size), dtype=bool)
        if len(resized):
            sampler = _find_sampler(record.height, record.width, self.processor.image_size, size)
            for target, instance in enumerate(instances):
                if instance.mask is not None:
                    resized[target] = sampler.sample(instance.mask)
        return resized


class ImageFolderDataset:
    """What is looked for in the user's own images, image by image; ids are FILE_NAME/TEXT_INDEX."""

    def __init__(self, images: CheckedImages, processor: Processor) -> None:
        self.images, self.processor = images, processor
        self._input_ids = processor.tokenize(images.texts)
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        """Number of pairs of image and text."""
        return len(self.images.pairs)

    def __getitem__(self, index: int) -> Example:
        """The example of an index.

        Raises:
            DataError: the image cannot be read.
        """
        image, text = self.images.pairs[index]
        if self._last is None or self._last[0] != image:
            self._last = image, self.processor.resize(read_image(self.images.files[image]))
        return Example(
            id=self.images.name_pair(index),
            image=self._last[1],
            input_ids=self._input_ids[text],
            original_size=self.images.sizes[image],
            boxes=np.zeros((0, 4), dtype=np.float32),
            masks=np.zeros((0, 0, 0), dtype=bool),
        )

    def read(self, indices: Sequence[int]) -> list[Example]:
        """The examples of some indices.

        Raises:
            DataError: an image cannot be read.
        """
        return [self[index] for index in indices]

    def describe(self) -> dict[str, Any]:
        """The counts of images and of texts that are cut, the error of each unreadable image, and notes on both."""
        texts = [(str(index), text) for index, text in enumerate(self.images.texts)]
        findings = list(find_lossy_expressions(self.processor.tokenizer, texts, self.processor.max_tokens))
        return {
            "images": len(self.images.files),
            "unreadable": self.images.unreadable,
            "cut": sum(found.kind == "cut" for found in findings),
            "notes": [*self.images.remarks, *describe_findings(findings, self.processor.max_tokens, each=True)],
        }


def read_texts(parts: Sequence[Part], left_out: Sequence[NDArray[np.bool_]] = ()) -> Iterator[str]:
    """The texts of all expressions, in shard order."""
    return (text for _, text in read_expressions((ShardReader(folder, split) for folder, split in parts), left_out))


def read_expressions(
    readers: Iterable[ShardReader], left_out: Sequence[NDArray[np.bool_]] = ()
) -> Iterator[tuple[str, str]]:
    """The id and the text of all expressions, in shard order; `left_out` as in `GroundingDataset`."""
    for part, reader in enumerate(readers):
        for index in range(len(reader)):
            if left_out and left_out[part][index]:
                continue
            for expression in reader.record(index).expressions:
                yield expression.id, expression.text


@lru_cache(maxsize=1024)
def _find_sampler(height: int, width: int, image_size: int, mask_size: int) -> masks.MaskSampler:
    rows, columns = (mask_source_indices(side, image_size, mask_size) for side in (height, width))
    return masks.MaskSampler(height, width, rows, columns)
