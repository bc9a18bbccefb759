"""Predictions grouped by image, of a split or of one's own images, for files that describe one image each."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pipelines.prediction.alignment import align_predictions, check_mask_size
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import read_predictions
from shards.errors import DataError
from shards.reader import ShardReader

_MAX_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePredictions:
    """The predictions for all expressions of one image."""

    file_name: str
    size: tuple[int, int] | None
    """Height and width in pixels; None of one's own images whose predictions are boxes alone."""
    texts: tuple[str, ...]
    """The expressions."""
    predictions: tuple[Prediction, ...]
    """One for each of `texts`."""


def group_split(file: Path, reader: ShardReader) -> Iterator[ImagePredictions]:
    """The predictions for a split, image by image, in the order of the shards.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size.
    """
    for _, group in groupby(align_predictions(file, reader), key=lambda aligned: id(aligned[0])):
        aligned = list(group)
        record = aligned[0][0]
        for _, _, prediction in aligned:
            try:
                check_mask_size(record, prediction)
            except DataError as error:
                raise DataError(error.what, file=file, remedy=error.remedy) from error
        yield ImagePredictions(
            file_name=record.file_name,
            size=(record.height, record.width),
            texts=tuple(expression.text for _, expression, _ in aligned),
            predictions=tuple(prediction for *_, prediction in aligned),
        )


def group_own_images(file: Path, texts: Sequence[str]) -> Iterator[ImagePredictions]:
    """The predictions of `igvg predict --image`, whose ids are FILE_NAME/TEXT_INDEX.

    Raises:
        DataError: a prediction is damaged, has another id, or the masks of an image differ in size.
    """

    def find_image(prediction: Prediction) -> str:
        return prediction.id.rpartition("/")[0]

    for name, group in groupby(read_predictions(file), key=find_image):
        predictions = tuple(group)
        sizes = {
            (prediction.mask["size"][0], prediction.mask["size"][1])
            for prediction in predictions
            if prediction.mask is not None
        }
        if len(sizes) > 1:
            raise DataError(f"{name} has masks of several sizes", file=file, remedy="predict it again")
        yield ImagePredictions(
            file_name=name,
            size=sizes.pop() if sizes else None,
            texts=tuple(_find_text(prediction, texts, file) for prediction in predictions),
            predictions=predictions,
        )


def _find_text(prediction: Prediction, texts: Sequence[str], file: Path) -> str:
    index = prediction.id.rpartition("/")[2]
    if not (index.isascii() and index.isdecimal() and int(index) < len(texts)):
        what = f"{prediction.id} is no id of igvg predict --image with {len(texts)} texts"
        raise DataError(what, file=file, remedy="give the folder as igvg predict left it")
    return texts[int(index)]


class FileNames:
    """File names for names and ids: safe on every file system, and unique also where case is ignored."""

    def __init__(self, extension: str) -> None:
        self.extension = extension
        self._taken: set[str] = set()

    def choose(self, name: str) -> str:
        """The file name for a name; another one if it was chosen before."""
        safe = "".join(char if char.isalnum() or char in "._-+" else "-" for char in name).strip(".")
        stem, copies = safe.encode(errors="ignore")[:_MAX_BYTES].decode(errors="ignore") or "-", 1
        unique = stem
        while unicodedata.normalize("NFC", unique).casefold() in self._taken:
            copies += 1
            unique = f"{stem}~{copies}"
        self._taken.add(unicodedata.normalize("NFC", unique).casefold())
        return f"{unique}.{self.extension}"
