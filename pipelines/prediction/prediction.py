"""The prediction for one expression, and its line of JSON in a prediction file.

Lines may come from any model. Every value is checked, and run lengths are validated before C code reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.prediction.json_values import STRICT, check_type, describe_json_error, is_number, shorten
from pipelines.prediction.postprocess import GroundingResult
from shards.errors import DataError
from shards.files import decode_text
from shards.masks import encode_mask, rle_area, validate_rle
from shards.record import LONGEST_SIDE, Rle

REMEDY = "see docs/formats.md for what a line holds"
MAX_COORDINATE = 1e7
"""Pixels; boxes beyond are outside of every image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The final prediction for one expression, in pixels of the original image."""

    id: str
    """DATASET/REF_ID/SENT_ID."""
    boxes: list[list[float]] | None
    """x0, y0, x1, y1 each; None if the model predicts no boxes at all."""
    scores: list[float] | None
    """One per box; None if the model gives none."""
    mask: Rle | None
    """None if the model predicts no masks at all."""
    no_target: bool

    def to_json(self) -> dict[str, Any]:
        """The JSON object of a line, without the keys that the model does not predict."""
        line: dict[str, Any] = {"id": self.id}
        if self.boxes is not None:
            line |= {"boxes": self.boxes, "scores": self.scores}
        if self.mask is not None:
            line |= {"mask": self.mask}
        return line | {"no_target": self.no_target}


def encode_result(result: GroundingResult) -> Prediction:
    """The result of post-processing as a prediction, its mask as run lengths."""
    return Prediction(
        id=result.id,
        boxes=result.boxes.tolist(),
        scores=result.scores.tolist(),
        mask=encode_mask(result.mask),
        no_target=result.no_target,
    )


@dataclass(slots=True)
class BoxRange:
    """Number of boxes in some predictions, and their lowest and highest coordinate."""

    boxes: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    def add(self, prediction: Prediction) -> None:
        """Count the boxes of one more prediction."""
        for box in prediction.boxes or ():
            self.boxes += 1
            self.lowest, self.highest = min(self.lowest, *box), max(self.highest, *box)

    def warnings(self, file: Path) -> list[str]:
        """A warning if all boxes are within 0 to 1, as boxes in fractions of the image are; not if all are zeros."""
        if not (self.boxes and self.lowest >= 0 and 0 < self.highest <= 1):
            return []
        what = f"all {self.boxes} boxes lie within 0 to 1, so they look normalized"
        expected = "boxes are x0, y0, x1, y1 in pixels of the original image"
        return [f"Warning: {file}: {what}; {expected}: multiply them by its width and height"]


def parse_prediction(line: bytes, file: Path, line_number: int) -> Prediction:
    """The prediction of one line.

    Raises:
        DataError: it is none; names file and line.
    """
    record = f"line {line_number}"
    try:
        document = json.loads(decode_text(line), **STRICT)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        if "id" not in document:
            raise ValueError("has no 'id'")
        boxes, mask = _parse_boxes(document.get("boxes")), _parse_mask(document.get("mask"))
        if boxes is None and mask is None:
            raise ValueError("has neither 'boxes' nor 'mask'")
        no_target = document.get("no_target")
        if no_target is None:
            no_target = not boxes and (mask is None or rle_area(mask) == 0)
        return Prediction(
            id=check_type(document["id"], str, "id", "a string"),
            boxes=boxes,
            scores=_parse_scores(document.get("scores"), boxes),
            mask=mask,
            no_target=check_type(no_target, bool, "no_target", "true or false"),
        )
    except UnicodeDecodeError as error:
        what = f"is no UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}"
        raise DataError(what, file=file, record=record, remedy="save the file as UTF-8") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(describe_json_error(error), file=file, record=record, remedy=REMEDY) from error


def _parse_boxes(boxes: Any) -> list[list[float]] | None:
    if boxes is None:
        return None
    for box in check_type(boxes, list, "boxes", "a list of boxes"):
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
            raise ValueError(f"box {shorten(box)} is not four finite numbers x0, y0, x1, y1")
        if max(map(abs, box)) > MAX_COORDINATE:
            raise ValueError(f"box {shorten(box)} lies beyond any image; boxes are in pixels")
        if box[2] < box[0] or box[3] < box[1]:
            raise ValueError(f"box {shorten(box)} ends before it starts; boxes are x0, y0, x1, y1")
    return list(boxes)


def _parse_scores(scores: Any, boxes: Sequence[Any] | None) -> list[float] | None:
    if scores is None:
        return None
    if boxes is None:
        raise ValueError("has 'scores', but no 'boxes' that they belong to")
    values: list[float] = check_type(scores, list, "scores", "a list of numbers")
    if not all(is_number(value) for value in values):
        raise ValueError(f"scores {shorten(values)} are not finite numbers")
    if len(values) != len(boxes):
        raise ValueError(f"{len(values)} scores for {len(boxes)} boxes")
    return values


def _parse_mask(mask: Any) -> Rle | None:
    if mask is None:
        return None
    if not isinstance(mask, dict) or "size" not in mask or "counts" not in mask:
        raise ValueError("mask is not an object with 'size' and 'counts'")
    size, counts = mask["size"], mask["counts"]
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and 0 < side <= LONGEST_SIDE for side in size)
    ):
        raise ValueError(f"mask size {shorten(size)} is not [height, width] in pixels")
    # Two common mistakes of writers that convert bytes or NumPy arrays.
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"'):
        raise ValueError(f"mask counts {shorten(counts)} is str() of bytes; write counts.decode('ascii')")
    if isinstance(counts, list) and (floats := [count for count in counts if isinstance(count, float)]):
        raise ValueError(f"mask counts holds {shorten(floats[0])}, not a whole number; write int() of each")
    return validate_rle(counts, *size)
