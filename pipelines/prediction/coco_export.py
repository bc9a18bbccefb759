"""Predictions as COCO's files, for pycocotools and viewers: every expression of a split becomes an "image" of its own.

Image ids count the expressions from 1 in the order of the shards. COCO's categories are unrelated to expressions, so
all predictions have the same category: evaluate with `useCats = 0`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from pipelines.prediction.alignment import align_predictions, check_mask_size
from pipelines.prediction.prediction import BoxRange, Prediction
from shards.errors import DataError
from shards.files import replace_file
from shards.masks import rle_area
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord

ANNOTATIONS, BOXES, SEGMENTATIONS = "annotations.json", "boxes.json", "segmentations.json"
CATEGORY = 1
"""The category of all predictions."""
DEFAULT_SCORE = 1.0
"""The score of a prediction without one."""
_PROGRESS_STEP = 200


def write_annotations(file: Path, reader: ShardReader) -> int:
    """Write the ground truth of a split as a COCO data set, one entry at a time; returns the number of targets.

    Images have the expression's text as `caption`, its id as `expression_id`, and the image's own id as `original_id`.
    Annotations are the expressions' targets: `bbox` x, y, width, height and `area` in pixels, `segmentation` compressed
    run lengths (where only the box is known an empty list, and `area` is that of the box), `iscrowd` 1 for crowd
    regions that are no part of the ground-truth mask (pycocotools ignores matches with them).
    """
    count, categories = 0, {CATEGORY}
    with replace_file(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        info = {"description": f"split '{reader.split}': every expression is an image; evaluate with useCats = 0"}
        stream.write(f'{{"info": {json.dumps(info)},\n"images": ')
        with write_list(stream) as append:
            for image_id, record, expression in _enumerate_expressions(reader):
                append(_image_entry(image_id, record, expression))
        stream.write(',\n"annotations": ')
        with write_list(stream) as append:
            for image_id, record, expression in _enumerate_expressions(reader):
                mask_targets = record.mask_targets(expression)
                for instance in record.targets(expression):
                    count += 1
                    categories.add(instance.category_id)
                    append({
                        "id": count,
                        "image_id": image_id,
                        "category_id": instance.category_id,
                        "bbox": box_xyxy_to_xywh(instance.box),
                        "area": rle_area(instance.mask) if instance.mask else box_area(instance.box),
                        "iscrowd": int(instance not in mask_targets),
                        "segmentation": instance.mask or [],
                    })  # fmt: skip
        named = [{"id": category, "name": f"category {category}"} for category in sorted(categories)]
        stream.write(f',\n"categories": {json.dumps(named)}}}\n')
    return count


def write_results(
    boxes: Path, segmentations: Path, predictions: Path, reader: ShardReader
) -> tuple[dict[str, int], list[str]]:
    """Write predictions as COCO results, one entry at a time: one per box, and one per mask that has pixels.

    If `no_target` contradicts boxes and mask, it is stored with the expression's segmentation, even one without pixels,
    or without masks with its first box. Without masks, `no_target` false is lost where there is no box; a warning
    counts these. If the predictions have no boxes or no masks, that file is not written.

    Returns:
        The number of boxes and of segmentations, as far as they are predicted; and warnings.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size.
    """
    counts, box_range = {"boxes": 0, "segmentations": 0}, BoxRange()
    predicted, lost = {"boxes": True, "segmentations": True}, 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(replace_file(file)) for file in (boxes, segmentations)]
        streams = [stack.enter_context(file.open("w", encoding="utf-8")) for file in files]
        append_box, append_segmentation = (stack.enter_context(write_list(stream)) for stream in streams)
        for image_id, (record, _, prediction) in enumerate(align_predictions(predictions, reader), start=1):
            try:
                check_mask_size(record, prediction)
            except DataError as error:
                raise DataError(error.what, file=predictions, remedy=error.remedy) from error
            box_range.add(prediction)
            predicted = {"boxes": prediction.boxes is not None, "segmentations": prediction.mask is not None}
            lost += not (predicted["segmentations"] or prediction.boxes or prediction.no_target)
            for entry in box_entries(image_id, prediction):
                append_box(entry)
                counts["boxes"] += 1
            if segmentation := segmentation_entry(image_id, prediction):
                append_segmentation(segmentation)
                counts["segmentations"] += 1
            if image_id % _PROGRESS_STEP == 0:
                report_progress(image_id, reader.index.num_expressions)
    for name, file in (("boxes", boxes), ("segmentations", segmentations)):
        if not predicted[name]:
            file.unlink()
    warnings = box_range.warnings(predictions)
    if lost:
        what = f"{lost} predictions without a box say that there is a target (no_target false)"
        warnings.append(
            f"Warning: {predictions}: {what}; COCO results cannot say so, and read back they say there is none"
        )
    return {name: count for name, count in counts.items() if predicted[name]}, warnings


def box_area(box: Sequence[float]) -> float:
    """Pixels of a box x0, y0, x1, y1."""
    return (box[2] - box[0]) * (box[3] - box[1])


def box_xyxy_to_xywh(box: Sequence[float]) -> list[float]:
    """A box x0, y0, x1, y1 as COCO's x, y, width, height."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return [x0, y0, x1 - x0, y1 - y0]


def _enumerate_expressions(reader: ShardReader) -> Iterator[tuple[int, ImageRecord, Expression]]:
    pairs = ((record, expression) for record in reader.records() for expression in record.expressions)
    for image_id, (record, expression) in enumerate(pairs, start=1):
        yield image_id, record, expression


def _image_entry(image_id: int, record: ImageRecord, expression: Expression) -> dict[str, Any]:
    return {
        "id": image_id,
        "file_name": record.file_name,
        "width": record.width,
        "height": record.height,
        "caption": expression.text,
        "expression_id": expression.id,
        "original_id": record.image_id,
    }


def box_entries(image_id: int, prediction: Prediction) -> list[dict[str, Any]]:
    """The COCO results of the boxes."""
    boxes = prediction.boxes or []
    entries: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": CATEGORY, "bbox": box_xyxy_to_xywh(box), "score": score}
        for box, score in zip(boxes, prediction.scores or [DEFAULT_SCORE] * len(boxes), strict=True)
    ]
    if prediction.mask is None and entries and prediction.no_target:
        entries[0] |= {"no_target": True}
    return entries


def segmentation_entry(image_id: int, prediction: Prediction) -> dict[str, Any] | None:
    """The COCO result of the mask; None if there is nothing to say."""
    if prediction.mask is None:
        return None
    pixels = rle_area(prediction.mask)
    entry = {
        "image_id": image_id,
        "category_id": CATEGORY,
        "segmentation": prediction.mask,
        "score": max(prediction.scores or [DEFAULT_SCORE]),
    }
    if prediction.no_target != (not prediction.boxes and not pixels):
        return entry | {"no_target": prediction.no_target}
    return entry if pixels else None


@contextlib.contextmanager
def write_list(stream: TextIO) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write a JSON list, one entry per line, by calls of the yielded function; no entry stays in memory."""
    separator = "\n"

    def append(entry: dict[str, Any]) -> None:
        nonlocal separator
        stream.write(separator + json.dumps(entry, separators=(",", ":"), allow_nan=False))
        separator = ",\n"

    stream.write("[")
    yield append
    stream.write("]")
