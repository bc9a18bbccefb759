"""COCO results as predictions: boxes and segmentations, collected by expression.

The files may come from any program. They are read one entry at a time and every value is checked; outlines and run
lengths are validated before C code reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.prediction.coco_export import DEFAULT_SCORE
from pipelines.prediction.json_list import read_entries, read_json_text
from pipelines.prediction.json_values import STRICT, check_type, describe_json_error, is_number, shorten
from pipelines.prediction.prediction import MAX_COORDINATE, Prediction
from shards.errors import DataError
from shards.masks import encode_segmentation, merge_rles, rle_area
from shards.reader import ShardReader
from shards.record import Rle

KINDS = frozenset({"bbox", "segmentation"})
"""What an entry may hold: a box, a segmentation, or both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoResults:
    """COCO results, and which of their entries to read."""

    files: Sequence[Path]
    """Each entry has `bbox` (x, y, width, height), `segmentation` (polygons or run lengths), or both; the default score
    is 1."""
    annotations: Path
    """COCO data set whose images have `expression_id`."""
    threshold: float = 0
    """Entries of a lower score are skipped; 0 skips none."""


@dataclass(slots=True, kw_only=True)
class ImportedResult:
    """The entries read so far for one expression, in pixels of its image."""

    height: int
    width: int
    boxes: list[list[float]] = field(default_factory=list)
    """x0, y0, x1, y1 each."""
    scores: list[float] = field(default_factory=list)
    boxes_from: Path | None = None
    """The file that the boxes are from."""
    masks: list[Rle] = field(default_factory=list)
    no_target: bool | None = None
    """None if no entry has it."""


def read_results(results: CocoResults, reader: ShardReader) -> list[Prediction]:
    """The predictions of COCO results for a split, one per expression, in the order of the shards.

    If no entry of any file has a box, the predictions have no boxes; likewise masks.

    Raises:
        DataError: a file is damaged, an entry is not one of COCO's or is about an unknown image or expression, or the
            data set lacks an expression of the split.
    """
    expression_ids = read_expression_ids(results.annotations)
    imported = {
        expression.id: ImportedResult(height=record.height, width=record.width)
        for record in reader.records()
        for expression in record.expressions
    }
    kinds: set[str] = set()
    known = set(expression_ids.values())
    if missing := [expression_id for expression_id in imported if expression_id not in known]:
        what = f"no image for {len(missing)} of {len(imported)} expressions of '{reader.split}', the first {missing[0]}"
        raise DataError(
            what, file=results.annotations, remedy="use the file that belongs to the results and to this split"
        )
    for file in results.files:
        entry_number = 0
        for entry_number, entry in read_entries(file):
            try:
                result = _find_result(entry, expression_ids, imported)
                _add_entry(entry, result, file, results.threshold)
            except (DataError, ValueError, OverflowError) as error:
                raise DataError(describe_json_error(error), file=file, record=f"entry {entry_number}") from error
            kinds |= {kind for kind in KINDS if entry.get(kind) not in (None, [])}
        # An empty list may be a file of boxes or of segmentations.
        kinds |= set() if entry_number else KINDS
    return [_to_prediction(expression_id, result, kinds or KINDS) for expression_id, result in imported.items()]


def read_expression_ids(file: Path) -> dict[int, str]:
    """The expressions of a COCO data set by the ids of its images.

    Raises:
        DataError: it is not a COCO data set, an image has no expression, or an id occurs twice.
    """
    remedy = "give the annotations.json that igvg convert wrote"
    try:
        document = json.loads(read_json_text(file), **STRICT)
    except (ValueError, RecursionError) as error:
        raise DataError(describe_json_error(error), file=file, remedy=remedy) from error
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise DataError("has no list 'images'", file=file, remedy=remedy)
    expression_ids: dict[int, str] = {}
    seen: set[str] = set()
    for image_number, image in enumerate(document["images"], start=1):
        try:
            image_id = check_type(_get(image, "id"), int, "id", "a whole number")
            expression_id = check_type(_get(image, "expression_id"), str, "expression_id", "a string")
            if image_id in expression_ids or expression_id in seen:
                raise ValueError(f"image {image_id}, expression {shorten(expression_id)}: given twice")
        except ValueError as error:
            raise DataError(str(error), file=file, record=f"image number {image_number}", remedy=remedy) from error
        expression_ids[image_id] = expression_id
        seen.add(expression_id)
    return expression_ids


def _find_result(
    entry: Any, expression_ids: Mapping[int, str], imported: Mapping[str, ImportedResult]
) -> ImportedResult:
    """The expression's result that an entry belongs to.

    Raises:
        ValueError: it is no object, or its image is unknown or belongs to another split.
    """
    image_id = check_type(_get(entry, "image_id"), int, "image_id", "a whole number")
    if image_id not in expression_ids:
        raise ValueError(f"image {image_id} is not among the images of the annotations")
    expression_id = expression_ids[image_id]
    if expression_id not in imported:
        raise ValueError(f"image {image_id} is expression {shorten(expression_id)}, which is not in this split")
    return imported[expression_id]


def _add_entry(entry: dict[str, Any], result: ImportedResult, file: Path, threshold: float) -> None:
    """Add an entry's box, segmentation and `no_target` to a result, unless its score is below the threshold.

    Raises:
        ValueError: one of them is malformed, or contradicts an earlier entry.
        OverflowError: a number beyond double precision.
        DataError: the segmentation is malformed, or not of the image's size.
    """
    score = entry.get("score", DEFAULT_SCORE)
    if not is_number(score):
        raise ValueError(f"score {shorten(score)} is not a finite number")
    if threshold and score < threshold:
        return
    box, segmentation = entry.get("bbox"), entry.get("segmentation")
    # Programs that predict masks alone often write an empty box.
    if box in (None, []) and segmentation is None:
        raise ValueError("has neither 'bbox' nor 'segmentation'")
    if box not in (None, []):
        if result.boxes_from not in (None, file):
            raise ValueError(f"{result.boxes_from} holds boxes of this image, too; give one of the two files")
        result.boxes.append(parse_box(box))
        result.scores.append(score)
        result.boxes_from = file
    if segmentation is not None:
        result.masks.append(encode_segmentation(segmentation, result.height, result.width))
    if "no_target" in entry:
        no_target = check_type(entry["no_target"], bool, "no_target", "true or false")
        if result.no_target not in (None, no_target):
            raise ValueError(f"no_target is {shorten(no_target)}, but {shorten(not no_target)} in an earlier entry")
        result.no_target = no_target


def parse_box(bbox: Any) -> list[float]:
    """COCO's x, y, width, height as x0, y0, x1, y1, all in pixels.

    Raises:
        ValueError: it is no such box.
        OverflowError: a number beyond double precision.
    """
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(value) for value in bbox):
        raise ValueError(f"bbox {shorten(bbox)} is not four finite numbers x, y, width, height")
    x, y, width, height = (float(value) for value in bbox)
    if width < 0 or height < 0:
        raise ValueError(f"bbox {shorten(bbox)} has a negative size; COCO's boxes are x, y, width, height")
    box = [x, y, x + width, y + height]
    if max(map(abs, box)) > MAX_COORDINATE:
        raise ValueError(f"bbox {shorten(bbox)} lies beyond any image; boxes are in pixels")
    return box


def _to_prediction(expression_id: str, result: ImportedResult, kinds: Set[str]) -> Prediction:
    """The prediction for one expression with boxes, a mask or both; without any entry it has no target."""
    mask = merge_rles(result.masks, result.height, result.width)
    empty = not result.boxes and rle_area(mask) == 0
    return Prediction(
        id=expression_id,
        boxes=result.boxes if "bbox" in kinds else None,
        scores=result.scores if "bbox" in kinds else None,
        mask=mask if "segmentation" in kinds else None,
        no_target=empty if result.no_target is None else result.no_target,
    )


def _get(entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"{shorten(entry)} is not a JSON object")
    if key not in entry:
        raise ValueError(f"has no '{key}'")
    return entry[key]
