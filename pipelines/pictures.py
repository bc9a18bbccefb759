"""Somebody's own pictures as examples, and their answers drawn on them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.batch import Example
from pipelines.image_folder import name_images
from pipelines.images import read_picture, resize_picture
from pipelines.phrases import describe_findings, find_lossy
from pipelines.postprocess import find_instance_masks
from pipelines.report.overlay import draw_overlay
from pipelines.text import tokenize_expressions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from pipelines.image_folder import CheckedImages
    from pipelines.loader import Frame
    from pipelines.postprocess import Answer
    from pipelines.raw import RawOutput
    from pipelines.settings import PostprocessSettings


# Bytes of a file's name on most file systems, less what is added to it.
_LONGEST_NAME = 200


class PictureData:
    """Every text asked of every picture, picture by picture.

    Ids are FILE_NAME/NUMBER, the number being that of the text, from 0.
    """

    def __init__(self, images: CheckedImages, texts: Sequence[str], frame: Frame) -> None:
        self.images, self.files, self.texts, self.frame = images, images.files, list(texts), frame
        self.names = name_images(self.files)
        self._ids = tokenize_expressions(frame.tokenizer, self.texts, frame.max_tokens)
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
            picture = read_picture(self.files[place])
            size = picture.shape[0], picture.shape[1]
            self._last = place, size, resize_picture(picture, self.frame.image_size)
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

    def draw(
        self, number: int, raw: RawOutput, answer: Answer, settings: PostprocessSettings
    ) -> tuple[str, Image.Image]:
        """The file name and picture of an overlay."""
        place, text = divmod(number, len(self.texts))
        file = self.files[place]
        overlay = draw_overlay(
            read_picture(file),
            self.texts[text],
            mask=answer.mask,
            boxes=answer.boxes,
            scores=answer.scores,
            instance_masks=find_instance_masks(raw, answer, settings),
            points=answer.points,
        )
        return name_overlay(self.names[place], text), overlay

    def describe(self) -> dict[str, Any]:
        """What the artifact says of the pictures and texts, beside how many answers there are."""
        phrases = [(str(number), text) for number, text in enumerate(self.texts)]
        findings = list(find_lossy(self.frame.tokenizer, phrases, self.frame.max_tokens))
        return {
            "images": len(self.files),
            "unreadable": self.images.unreadable,
            "cut": sum(found.kind == "cut" for found in findings),
            "notes": [*self.images.remarks, *describe_findings(findings, self.frame.max_tokens, each=True)],
        }


def name_overlay(image: str, text: int) -> str:
    """The file name of the drawn answer about an image and the number of a text."""
    # Two images may differ in their ending alone.
    stem, dot, ending = image.rpartition(".")
    name = f"{stem}-{ending}" if dot else image
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(image.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _LONGEST_NAME - 10].decode(errors='ignore')}-{digest}"
    return f"{name}-{text}.png"
