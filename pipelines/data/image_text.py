"""Images as they are with an expression each, for models that prepare both themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.data.image_decoding import decode_image, read_image
from pipelines.data.image_queries import CheckedImages
from shards.reader import ShardReader
from shards.sampling import ExampleIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageText:
    """One expression with its image."""

    id: str
    """DATASET/REF_ID/SENT_ID, or FILE_NAME/TEXT_INDEX of the user's own images."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    text: str
    """The expression as annotated."""


class ImageTextDataset(Protocol):
    """Images with expressions by index; neighbors with the same image share the array."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageText: ...

    def texts(self) -> Iterator[tuple[str, str]]:
        """Id and text of every expression, in order."""
        ...


class ShardImageTexts:
    """The expressions of one split of prepared shards, in order."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self._index = ExampleIndex([reader.index.expressions])
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self._index)

    def __getitem__(self, index: int) -> ImageText:
        """The expression of an index with its image.

        Raises:
            DataError: its image or record is damaged.
        """
        _, position, row = self._index.locate(np.asarray(index))
        record = self.reader.record(int(position))
        if self._last is None or self._last[0] != int(position):
            self._last = int(position), decode_image(self.reader.image(int(position)), record.file_name)
        expression = record.expressions[int(row)]
        return ImageText(id=expression.id, image=self._last[1], text=expression.text)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Id and text of every expression, in order."""
        for record in self.reader.records():
            for expression in record.expressions:
                yield expression.id, expression.text


class FolderImageTexts:
    """What is looked for in the user's own images, image by image."""

    def __init__(self, images: CheckedImages) -> None:
        self.images = images
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        """Number of pairs of image and text."""
        return len(self.images.pairs)

    def __getitem__(self, index: int) -> ImageText:
        """The text of an index with its image.

        Raises:
            DataError: the image cannot be read.
        """
        image, text = self.images.pairs[index]
        if self._last is None or self._last[0] != image:
            self._last = image, read_image(self.images.files[image])
        return ImageText(id=self.images.name_pair(index), image=self._last[1], text=self.images.texts[text])

    def texts(self) -> Iterator[tuple[str, str]]:
        """Index and text of every text, once."""
        return ((str(index), text) for index, text in enumerate(self.images.texts))
