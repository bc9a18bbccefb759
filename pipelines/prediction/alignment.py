"""Predictions aligned with the expressions of a split, in the order of the shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import PREDICTIONS, read_predictions
from shards.errors import DataError, join_first
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord

_MAX_SHOWN = 3


def locate_predictions(path: Path) -> Path:
    """The prediction file: the path itself, or the file in a folder that `igvg predict` made."""
    return path / PREDICTIONS if path.is_dir() else path


def check_mask_size(record: ImageRecord, prediction: Prediction) -> None:
    """Check that a prediction's mask, if it has one, has the size of its image.

    Raises:
        DataError: it has another.
    """
    size, expected = prediction.mask["size"] if prediction.mask else None, [record.height, record.width]
    if size in (None, expected):
        return
    what = f"the mask of {prediction.id} has size {size}, its image {expected}"
    if size == expected[::-1]:
        what += ": height and width are swapped"
        raise DataError(what, remedy="write size as [height, width], and encode masks of height × width")
    raise DataError(what, remedy="give masks at the original image's size")


def align_predictions(
    file: Path, reader: ShardReader, *, partial: bool = False
) -> Iterator[tuple[ImageRecord, Expression, Prediction]]:
    """Every expression of a split with its prediction; only predictions out of order are kept in memory.

    Args:
        file: of the predictions.
        reader: of the split.
        partial: whether expressions without a prediction are left out.

    Raises:
        DataError: ids are unknown, missing (unless `partial`) or given twice; names the first of them.
    """
    predictions = read_predictions(file)
    pending: dict[str, Prediction] = {}
    done: set[str] = set()
    missing: list[str] = []
    duplicates: list[str] = []
    for record in reader.records():
        for expression in record.expressions:
            while expression.id not in pending:
                prediction = next(predictions, None)
                if prediction is None:
                    break
                if prediction.id in pending or prediction.id in done:
                    duplicates.append(prediction.id)
                else:
                    pending[prediction.id] = prediction
            if expression.id in pending:
                yield record, expression, pending.pop(expression.id)
                done.add(expression.id)
            else:
                missing.append(expression.id)
    unknown = [*pending]
    for prediction in predictions:
        (duplicates if prediction.id in done or prediction.id in pending else unknown).append(prediction.id)
    if duplicates:
        ids = list(dict.fromkeys(duplicates))
        what = f"{join_first(ids, _MAX_SHOWN)} {'is' if len(ids) == 1 else 'are'} given twice"
        raise DataError(what, file=file, remedy="keep one of its lines" if len(ids) == 1 else "keep one line of each")
    if unknown:
        what = f"{join_first(unknown, _MAX_SHOWN)}: not in split '{reader.split}' of {reader.folder}"
        raise DataError(what, file=file, remedy="score against the split that was predicted")
    if missing and not partial:
        what = f"no prediction for {join_first(missing, _MAX_SHOWN)}"
        raise DataError(
            what, file=file, remedy="predict every expression once, or score the others alone (igvg score --partial)"
        )
