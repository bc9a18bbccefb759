"""Somebody's own pictures as examples, and their answers drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.batch import Example
from pipelines.data.image_folder import CheckedImages, name_images
from pipelines.data.image_transforms import read_image, resize_image
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import tokenize_expressions
from pipelines.data.truncation import describe_findings, find_lossy_expressions


class ImageFolderDataset:
    """Every text asked of every picture, picture by picture.

    Ids are FILE_NAME/NUMBER, the number being that of the text, from 0.
    """

    def __init__(self, images: CheckedImages, texts: Sequence[str], processor: Processor) -> None:
        self.images, self.files, self.texts, self.processor = images, images.files, list(texts), processor
        self.names = name_images(self.files)
        self._ids = tokenize_expressions(processor.tokenizer, self.texts, processor.max_tokens)
        self._last: tuple[int, tuple[int, int], NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.files) * len(self.texts)

    def __getitem__(self, number: int) -> Example:
        """The example of a number.

        Raises:
            DataError: the picture cannot be read.
        """
        place, text = divmod(number, len(self.texts))
        if self._last is None or self._last[0] != place:
            picture = read_image(self.files[place])
            size = picture.shape[0], picture.shape[1]
            self._last = place, size, resize_image(picture, self.processor.image_size)
        _, size, resized = self._last
        return Example(
            id=f"{self.names[place]}/{text}",
            position=number,
            picture=resized,
            input_ids=self._ids[text],
            original_size=size,
            boxes=np.zeros((0, 4), dtype=np.float32),
            masks=np.zeros((0, 0, 0), dtype=bool),
        )

    def describe(self) -> dict[str, Any]:
        """What the artifact says of the pictures and texts, beside how many answers there are."""
        phrases = [(str(number), text) for number, text in enumerate(self.texts)]
        findings = list(find_lossy_expressions(self.processor.tokenizer, phrases, self.processor.max_tokens))
        return {
            "images": len(self.files),
            "unreadable": self.images.unreadable,
            "cut": sum(found.kind == "cut" for found in findings),
            "notes": [*self.images.remarks, *describe_findings(findings, self.processor.max_tokens, each=True)],
        }
