"""Somebody's own pictures as examples, and their answers drawn on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.batch import Example
from pipelines.images import read_picture, resize_picture
from pipelines.postprocess import find_instance_masks
from pipelines.report.overlay import draw_overlay
from pipelines.text import tokenize_expressions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from pipelines.loader import Frame
    from pipelines.postprocess import Answer
    from pipelines.raw import RawOutput
    from pipelines.settings import PostprocessSettings


class PictureData:
    """Every text asked of every picture, picture by picture.

    Ids are FILE_NAME/NUMBER, the number being that of the text, from 0.
    """

    def __init__(self, files: Sequence[Path], texts: Sequence[str], frame: Frame) -> None:
        self.files, self.texts, self.frame = list(files), list(texts), frame
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
            id=f"{self.files[place].name}/{text}",
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
        # Two pictures may differ in their suffix alone.
        return f"{file.stem}{file.suffix.replace('.', '-')}-{text}.png", overlay
