"""Predictions beside the expressions that they answer, in the order of the shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.prediction.prediction_file import PREDICTIONS, Prediction, read_predictions
from shards.errors import DataError, join_first
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord


def check_mask_size(record: ImageRecord, prediction: Prediction) -> None:
    """Pass if a prediction's mask, if it has one, has the size of its picture.

    Raises:
        DataError: it has another.
    """
    size, wanted = prediction.mask["size"] if prediction.mask else None, [record.height, record.width]
    if size in (None, wanted):
        return
    what = f"the mask of {prediction.id} has size {size}, its picture {wanted}"
    if size == wanted[::-1]:
        what += ": height and width are swapped"
        raise DataError(what, remedy="write size as [height, width], and encode masks of height × width")
    raise DataError(what, remedy="give masks at the original picture's size")


_SHOWN = 3


def locate_predictions(path: Path) -> Path:
    """The prediction file: the path itself, or the file of a folder that `igvg predict` made."""
    return path / PREDICTIONS if path.is_dir() else path


def align_predictions(file: Path, reader: ShardReader) -> Iterator[tuple[ImageRecord, Expression, Prediction]]:
    """Every expression of a split with its prediction, in the order of the shards.

    Raises:
        DataError: ids are unknown, missing or given twice; names the first of them.
    """
    predictions = read_predictions(file)
    waiting: dict[str, Prediction] = {}
    done: set[str] = set()
    missing: list[str] = []
    twice: list[str] = []
    for record in reader.records():
        for expression in record.expressions:
            while expression.id not in waiting:
                prediction = next(predictions, None)
                if prediction is None:
                    break
                if prediction.id in waiting or prediction.id in done:
                    twice.append(prediction.id)
                else:
                    waiting[prediction.id] = prediction
            if expression.id in waiting:
                yield record, expression, waiting.pop(expression.id)
                done.add(expression.id)
            else:
                missing.append(expression.id)
    unknown = [*waiting]
    for prediction in predictions:
        (twice if prediction.id in done or prediction.id in waiting else unknown).append(prediction.id)
    if twice:
        ids = list(dict.fromkeys(twice))
        what = f"{join_first(ids, _SHOWN)} {'is' if len(ids) == 1 else 'are'} given twice"
        raise DataError(what, file=file, remedy="keep one of its lines" if len(ids) == 1 else "keep one line of each")
    if unknown:
        what = f"{join_first(unknown, _SHOWN)}: not in split '{reader.split}' of {reader.folder}"
        raise DataError(what, file=file, remedy="score against the split that was predicted")
    if missing:
        raise DataError(
            f"no prediction for {join_first(missing, _SHOWN)}", file=file, remedy="predict every expression once"
        )
