"""The prediction file: one line of JSON per expression, ours or any other model's.

Lines are read one at a time and trusted in nothing: what is wrong is named with its line, and run lengths are checked
before any C code sees them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.json_values import expect, is_number, refuse_constant, refuse_repetition, say_fault, shorten
from shards.errors import DataError
from shards.files import replace_file
from shards.masks import check_runs, encode_mask, measure_area

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pipelines.postprocess import Answer
    from shards.record import Rle

PREDICTIONS = "predictions.jsonl"
FARTHEST = 1e7
"""Pixels; boxes beyond lie in no picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The final answer about one expression, in pixels of the original picture."""

    id: str
    """DATASET/REF_ID/SENT_ID."""
    boxes: list[list[float]]
    """x0, y0, x1, y1 each."""
    scores: list[float] | None
    """One for each box; None where a model gives none."""
    mask: Rle
    no_target: bool
    """Whether nothing is referred to."""


def encode_answer(answer: Answer) -> Prediction:
    """An answer as a line of the prediction file."""
    return Prediction(
        id=answer.id,
        boxes=answer.boxes.tolist(),
        scores=answer.scores.tolist(),
        mask=encode_mask(answer.mask),
        no_target=answer.no_target,
    )


def write_predictions(file: Path, predictions: Iterable[Prediction]) -> int:
    """Write a prediction file all at once; returns the number of lines."""
    count = 0
    with replace_file(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for prediction in predictions:
            line = {
                "id": prediction.id,
                "boxes": prediction.boxes,
                "scores": prediction.scores,
                "mask": prediction.mask,
                "no_target": prediction.no_target,
            }
            stream.write(json.dumps(line, separators=(",", ":")) + "\n")
            count += 1
    return count


def merge_parts(parts: Sequence[Path], out: Path) -> int:
    """Join prediction files in order into one, all at once; returns how many lines say that there is no target.

    Raises:
        DataError: an expression occurs twice, or a part is damaged.
    """
    seen: set[str] = set()
    empty = 0
    with replace_file(out) as temporary, temporary.open("wb") as stream:
        for part in parts:
            for number, line in enumerate(part.read_bytes().splitlines(keepends=True), start=1):
                prediction = parse_prediction(line, part, number)
                if not line.endswith(b"\n"):
                    raise DataError("the file breaks off", file=part, record=f"line {number}")
                if prediction.id in seen:
                    raise DataError(f"{prediction.id} was predicted twice", file=part, record=f"line {number}")
                seen.add(prediction.id)
                empty += prediction.no_target
                stream.write(line)
    return empty


def read_predictions(file: Path) -> Iterator[Prediction]:
    """The predictions of a file, one line at a time; empty lines are passed over.

    Raises:
        DataError: the file is missing, or a line is not a prediction; names the line.
    """
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield parse_prediction(line, file, number)
    except OSError as error:
        remedy = f"give a {PREDICTIONS}, or the folder that igvg predict made"
        raise DataError(f"cannot be read ({error.strerror})", file=file, remedy=remedy) from error


def parse_prediction(line: bytes, file: Path, number: int) -> Prediction:
    """The prediction of one line.

    Raises:
        DataError: it is none; names file and line.
    """
    try:
        document = json.loads(line, parse_constant=refuse_constant, object_pairs_hook=refuse_repetition)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        for key in ("id", "boxes", "mask"):
            if key not in document:
                raise ValueError(f"has no '{key}'")
        boxes, mask = _read_boxes(document["boxes"]), _read_mask(document["mask"])
        no_target = document.get("no_target")
        if no_target is None:
            no_target = not boxes and measure_area(mask) == 0
        return Prediction(
            id=expect(document["id"], str, "id", "a string"),
            boxes=boxes,
            scores=_read_scores(document.get("scores"), len(boxes)),
            mask=mask,
            no_target=expect(no_target, bool, "no_target", "true or false"),
        )
    except (ValueError, OverflowError, RecursionError) as error:
        remedy = "see the README for what a line holds"
        raise DataError(say_fault(error), file=file, record=f"line {number}", remedy=remedy) from error


def _read_boxes(boxes: Any) -> list[list[float]]:
    for box in expect(boxes, list, "boxes", "a list of boxes"):
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
            raise ValueError(f"box {shorten(box)} is not four finite numbers x0, y0, x1, y1")
        if max(map(abs, box)) > FARTHEST:
            raise ValueError(f"box {shorten(box)} lies beyond any picture; boxes are in pixels")
        if box[2] < box[0] or box[3] < box[1]:
            raise ValueError(f"box {shorten(box)} ends before it starts; boxes are x0, y0, x1, y1")
    return list(boxes)


def _read_scores(scores: Any, count: int) -> list[float] | None:
    if scores is None:
        return None
    values: list[float] = expect(scores, list, "scores", "a list of numbers")
    if not all(is_number(value) for value in values):
        raise ValueError(f"scores {shorten(values)} are not finite numbers")
    if len(values) != count:
        raise ValueError(f"{len(values)} scores for {count} boxes")
    return values


def _read_mask(mask: Any) -> Rle:
    if not isinstance(mask, dict) or "size" not in mask or "counts" not in mask:
        raise ValueError("mask is not an object with 'size' and 'counts'")
    size = mask["size"]
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and 0 < side < 1 << 15 for side in size)
    ):
        raise ValueError(f"mask size {shorten(size)} is not [height, width] in pixels")
    return check_runs(mask["counts"], *size)
