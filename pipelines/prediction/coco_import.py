"""COCO results of anybody as predictions: boxes and segmentations, gathered by expression.

The files are read one entry at a time and trusted in nothing: what is wrong is named with its entry, and outlines and
run lengths are checked before any C code sees them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.prediction.coco_export import SCORE
from pipelines.prediction.json_values import (
    describe_json_error,
    expect,
    is_number,
    reject_constant,
    reject_duplicate_keys,
    shorten,
)
from pipelines.prediction.prediction_file import MAX_COORDINATE, Prediction
from shards.errors import DataError
from shards.file_kinds import describe_content, explain_unreadable
from shards.files import read_text
from shards.masks import encode_segmentation, merge_rles, rle_area
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.record import Rle

KINDS = frozenset({"bbox", "segmentation"})
"""What an entry may hold of an answer."""
_PROGRESS_STEP = 500
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoResults:
    """COCO results, and what to take of them."""

    files: Sequence[Path]
    """Each entry has `bbox` (x, y, width, height), `segmentation` (polygons or run lengths), or both; one without a
    score has score 1."""
    annotations: Path
    """COCO data set whose images carry `expression_id`."""
    threshold: float = 0
    """Entries that score less are left out; 0 leaves out none."""


@dataclass(slots=True, kw_only=True)
class ImportedResult:
    """What the entries read so far say about one expression, in pixels of its picture."""

    height: int
    width: int
    boxes: list[list[float]] = field(default_factory=list)
    """x0, y0, x1, y1 each."""
    scores: list[float] = field(default_factory=list)
    boxes_from: Path | None = None
    """The file that the boxes are from."""
    mask: Rle | None = None
    """The union of the segmentations."""
    no_target: bool | None = None
    """None where no entry says it."""


def read_results(results: CocoResults, reader: ShardReader) -> list[Prediction]:
    """The predictions that COCO results make for a split, one for each expression, in the order of the shards.

    Where no entry of any file has a box, the predictions have no boxes; likewise masks.

    Args:
        results: the files.
        reader: the split.

    Raises:
        DataError: a file is damaged, an entry is none of COCO's, or is about an image or expression that is not there,
            or the data set lacks an expression of the split.
    """
    expression_ids = read_expression_ids(results.annotations)
    answers = {
        expression.id: ImportedResult(height=record.height, width=record.width)
        for record in reader.records()
        for expression in record.expressions
    }
    kinds: set[str] = set()
    named = set(expression_ids.values())
    if missing := [expression_id for expression_id in answers if expression_id not in named]:
        what = f"no image for {len(missing)} of {len(answers)} expressions of '{reader.split}', the first {missing[0]}"
        raise DataError(
            what, file=results.annotations, remedy="use the file that belongs to the results and to this split"
        )
    for file in results.files:
        number = 0
        for number, entry in read_entries(file):
            try:
                answer = find_result(entry, expression_ids, answers)
                add_entry(entry, answer, file, results.threshold)
            except (DataError, ValueError, OverflowError) as error:
                raise DataError(describe_json_error(error), file=file, record=f"entry {number}") from error
            kinds |= {kind for kind in KINDS if entry.get(kind) not in (None, [])}
        # A file without any entry may be of either kind: it says that there is none of it.
        kinds |= set() if number else KINDS
    return [conclude(expression_id, answer, kinds or KINDS) for expression_id, answer in answers.items()]


def read_expression_ids(file: Path) -> dict[int, str]:
    """The expressions of a COCO data set by the ids of its images.

    Raises:
        DataError: it is none, an image has no expression, or an id occurs twice.
    """
    remedy = "give the annotations.json that igvg convert wrote"
    try:
        document = json.loads(_read_text(file), parse_constant=reject_constant, object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(describe_json_error(error), file=file, remedy=remedy) from error
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise DataError("has no list 'images'", file=file, remedy=remedy)
    expression_ids: dict[int, str] = {}
    seen: set[str] = set()
    for number, image in enumerate(document["images"], start=1):
        try:
            image_id = expect(_get(image, "id"), int, "id", "a whole number")
            expression_id = expect(_get(image, "expression_id"), str, "expression_id", "a string")
            if image_id in expression_ids or expression_id in seen:
                raise ValueError(f"image {image_id}, expression {shorten(expression_id)}: given twice")
        except ValueError as error:
            raise DataError(str(error), file=file, record=f"image number {number}", remedy=remedy) from error
        expression_ids[image_id] = expression_id
        seen.add(expression_id)
    return expression_ids


def read_entries(file: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSON list with their numbers from 1, one at a time: only the text is in memory as a whole.

    Raises:
        DataError: the file cannot be read, or is no such list; names the entry.
    """
    decoder = json.JSONDecoder(parse_constant=reject_constant, object_pairs_hook=reject_duplicate_keys)
    text, number = _read_text(file), 0
    mark, position = _read_mark(text, 0)
    if mark != "[":
        raise DataError("is no list", file=file, remedy="give COCO results: a list of entries with image_id and score")
    if _read_mark(text, position)[0] == "]":
        mark, position = _read_mark(text, position)
    while mark != "]":
        number += 1
        try:
            entry, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(describe_json_error(error), file=file, record=f"entry {number}") from error
        if number % _PROGRESS_STEP == 0:
            report_progress(position, len(text), file.name)
        yield number, entry
        mark, position = _read_mark(text, position)
        if mark not in ("]", ","):
            what = f"is followed by {shorten(mark)}" if mark else "is the last before the file breaks off"
            raise DataError(what, file=file, record=f"entry {number}")
    if position < len(text):
        raise DataError("goes on after the end of its list", file=file, record=f"entry {number}")


def find_result(entry: Any, expression_ids: Mapping[int, str], answers: Mapping[str, ImportedResult]) -> ImportedResult:
    """The answer that an entry adds to.

    Raises:
        ValueError: it is no object, or its image is unknown or belongs to another split.
    """
    image_id = expect(_get(entry, "image_id"), int, "image_id", "a whole number")
    if image_id not in expression_ids:
        raise ValueError(f"image {image_id} is not among the images of the annotations")
    expression_id = expression_ids[image_id]
    if expression_id not in answers:
        raise ValueError(f"image {image_id} is expression {shorten(expression_id)}, which is not in this split")
    return answers[expression_id]


def add_entry(entry: dict[str, Any], answer: ImportedResult, file: Path, threshold: float) -> None:
    """Add an entry's box, segmentation and `no_target` to what is known, unless it scores below the threshold.

    Raises:
        ValueError: one of them is malformed, or contradicts what is known.
        OverflowError: a number beyond double precision.
        DataError: the segmentation is none, or has another size than the picture.
    """
    score = entry.get("score", SCORE)
    if not is_number(score):
        raise ValueError(f"score {shorten(score)} is not a finite number")
    if threshold and score < threshold:
        return
    box, segmentation = entry.get("bbox"), entry.get("segmentation")
    # Writers of masks alone often leave an empty box.
    if box in (None, []) and segmentation is None:
        raise ValueError("has neither 'bbox' nor 'segmentation'")
    if box not in (None, []):
        if answer.boxes_from not in (None, file):
            raise ValueError(f"{answer.boxes_from} holds boxes of this image, too; give one of the two files")
        answer.boxes.append(parse_box(box))
        answer.scores.append(score)
        answer.boxes_from = file
    if segmentation is not None:
        mask = encode_segmentation(segmentation, answer.height, answer.width)
        masks = [mask] if answer.mask is None else [answer.mask, mask]
        answer.mask = merge_rles(masks, answer.height, answer.width)
    if "no_target" in entry:
        no_target = expect(entry["no_target"], bool, "no_target", "true or false")
        if answer.no_target not in (None, no_target):
            raise ValueError(f"no_target is {shorten(no_target)}, in an entry before it is not")
        answer.no_target = no_target


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
        raise ValueError(f"bbox {shorten(bbox)} lies beyond any picture; boxes are in pixels")
    return box


def conclude(expression_id: str, answer: ImportedResult, kinds: Set[str] = KINDS) -> Prediction:
    """The prediction of an expression with boxes, a mask or both; without any entry it says that there is no target."""
    mask = answer.mask or merge_rles([], answer.height, answer.width)
    no_target = answer.no_target
    if no_target is None:
        no_target = not answer.boxes and rle_area(mask) == 0
    return Prediction(
        id=expression_id,
        boxes=answer.boxes if "bbox" in kinds else None,
        scores=answer.scores if "bbox" in kinds else None,
        mask=mask if "segmentation" in kinds else None,
        no_target=no_target,
    )


def _get(entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"{shorten(entry)} is not a JSON object")
    if key not in entry:
        raise ValueError(f"has no '{key}'")
    return entry[key]


def _read_text(file: Path) -> str:
    wanted, remedy = "COCO's JSON", "give the file as it was written, in UTF-8"
    text = read_text(file, wanted, remedy)
    if not text.lstrip().startswith(("[", "{")) and describe_content(file) is not None:
        raise explain_unreadable(file, wanted, "it begins with no list and no object", remedy)
    return text


def _read_mark(text: str, start: int) -> tuple[str, int]:
    """The next character that is no space, and where the next after it begins; at the end, no character."""
    position = _skip_space(text, start)
    return text[position : position + 1], _skip_space(text, position + 1)


def _skip_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start
