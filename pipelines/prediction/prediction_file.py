"""The prediction file: one line of JSON per expression, ours or any other model's.

Lines are read one at a time and trusted in nothing: what is wrong is named with its line, and run lengths are checked
before any C code sees them.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.prediction.json_values import (
    describe_json_error,
    expect,
    is_number,
    reject_constant,
    reject_duplicate_keys,
    shorten,
)
from pipelines.prediction.postprocess import GroundingResult
from shards.errors import DataError
from shards.file_kinds import describe_bytes, describe_content, explain_unreadable
from shards.files import decode_text, replace_file
from shards.masks import encode_mask, rle_area, validate_rle
from shards.record import LONGEST_SIDE, Rle

PREDICTIONS = "predictions.jsonl"
_REMEDY = "see the README for what a line holds"
_WANTED = "a prediction file"
_GIVE = f"give a {PREDICTIONS}, or the folder that igvg predict made"
_HEAD = 4096
_LONGEST_LINE = 1 << 27
"""Bytes; a line of more would fill the memory before it is refused."""
MAX_COORDINATE = 1e7
"""Pixels; boxes beyond lie in no picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The final answer about one expression, in pixels of the original picture."""

    id: str
    """DATASET/REF_ID/SENT_ID."""
    boxes: list[list[float]] | None
    """x0, y0, x1, y1 each; None where a model predicts no boxes at all."""
    scores: list[float] | None
    """One for each box; None where a model gives none."""
    mask: Rle | None
    """None where a model predicts no masks at all."""
    no_target: bool
    """Whether nothing is referred to."""


@dataclass(slots=True)
class BoxRange:
    """How many boxes predictions hold, and their lowest and highest coordinate."""

    boxes: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    def add(self, prediction: Prediction) -> None:
        """Count the boxes of one more prediction."""
        for box in prediction.boxes or ():
            self.boxes += 1
            self.lowest, self.highest = min(self.lowest, *box), max(self.highest, *box)

    def warnings(self, file: Path) -> list[str]:
        """A warning if all boxes lie within 0 to 1, as boxes in fractions of the image do; boxes of zeros do not."""
        if not (self.boxes and self.lowest >= 0 and 0 < self.highest <= 1):
            return []
        what = f"all {self.boxes} boxes lie within 0 to 1, so they look normalized"
        wanted = "boxes are x0, y0, x1, y1 in pixels of the original image"
        return [f"Warning: {file}: {what}; {wanted}: multiply them by its width and height"]


def encode_result(answer: GroundingResult) -> Prediction:
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
            stream.write(json.dumps(describe_prediction(prediction), separators=(",", ":")) + "\n")
            count += 1
    return count


def describe_prediction(prediction: Prediction) -> dict[str, Any]:
    """The JSON object of a prediction's line, without the keys that the model does not predict."""
    line: dict[str, Any] = {"id": prediction.id}
    if prediction.boxes is not None:
        line |= {"boxes": prediction.boxes, "scores": prediction.scores}
    if prediction.mask is not None:
        line |= {"mask": prediction.mask}
    return line | {"no_target": prediction.no_target}


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
        DataError: the file is missing, a line is not a prediction, or a line lacks boxes or a mask that others have;
            names the line.
    """
    first: tuple[int, Prediction] | None = None
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), start=1):
                if not line.strip():
                    continue
                if first is None:
                    _refuse_other_files(line, file, number)
                if len(line) == _LONGEST_LINE:
                    raise DataError("is longer than any prediction", file=file, record=f"line {number}", remedy=_REMEDY)
                prediction = parse_prediction(line, file, number)
                first = first or (number, prediction)
                _refuse_other_keys(prediction, file, number, first)
                yield prediction
    except OSError as error:
        raise explain_unreadable(file, _WANTED, error, _GIVE) from error
    if first is None:
        raise DataError(f"is an empty file, not {_WANTED}", file=file, remedy=_GIVE)


def parse_prediction(line: bytes, file: Path, number: int) -> Prediction:
    """The prediction of one line.

    Raises:
        DataError: it is none; names file and line.
    """
    try:
        document = json.loads(
            decode_text(line), parse_constant=reject_constant, object_pairs_hook=reject_duplicate_keys
        )
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        if "id" not in document:
            raise ValueError("has no 'id'")
        boxes, mask = _read_boxes(document.get("boxes")), _read_mask(document.get("mask"))
        if boxes is None and mask is None:
            raise ValueError("has neither 'boxes' nor 'mask'")
        no_target = document.get("no_target")
        if no_target is None:
            no_target = not boxes and (mask is None or rle_area(mask) == 0)
        return Prediction(
            id=expect(document["id"], str, "id", "a string"),
            boxes=boxes,
            scores=_read_scores(document.get("scores"), boxes),
            mask=mask,
            no_target=expect(no_target, bool, "no_target", "true or false"),
        )
    except UnicodeDecodeError as error:
        what = f"is no UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}"
        raise DataError(what, file=file, record=f"line {number}", remedy="save the file as UTF-8") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(describe_json_error(error), file=file, record=f"line {number}", remedy=_REMEDY) from error


def _refuse_other_files(line: bytes, file: Path, number: int) -> None:
    """Refuse a first line with which a JSON list, an object over several lines or a file of another kind begins."""
    # A pipe can be read only once.
    content = describe_content(file) if file.is_file() else describe_bytes(line[:_HEAD])
    if content is not None and content.kind not in ("JSON", "text"):
        raise DataError(f"is {content.words}, not {_WANTED}", file=file, remedy=content.remedy or _GIVE)
    start = line.removeprefix(codecs.BOM_UTF8).strip()
    what = None
    if start.startswith(b"["):
        what = "not JSON lines, but a JSON list begins here"
    elif start == b"{":
        what = "not JSON lines, but a JSON object over several lines begins here"
    if what:
        remedy = "write each prediction as one JSON object on a line of its own"
        raise DataError(what, file=file, record=f"line {number}", remedy=remedy)


def _refuse_other_keys(prediction: Prediction, file: Path, number: int, first: tuple[int, Prediction]) -> None:
    """Refuse a prediction that lacks boxes or a mask where the first has them, or has what the first lacks."""
    first_number, example = first
    for key in ("boxes", "mask"):
        given, expected = (getattr(one, key) is not None for one in (prediction, example))
        if given != expected:
            without, other = (first_number, number) if given else (number, first_number)
            remedy = f"give '{key}' in all lines, or in none if the model does not predict it"
            what = f"has no '{key}', but line {other} has"
            raise DataError(what, file=file, record=f"line {without}", remedy=remedy)


def _read_boxes(boxes: Any) -> list[list[float]] | None:
    if boxes is None:
        return None
    for box in expect(boxes, list, "boxes", "a list of boxes"):
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
            raise ValueError(f"box {shorten(box)} is not four finite numbers x0, y0, x1, y1")
        if max(map(abs, box)) > MAX_COORDINATE:
            raise ValueError(f"box {shorten(box)} lies beyond any picture; boxes are in pixels")
        if box[2] < box[0] or box[3] < box[1]:
            raise ValueError(f"box {shorten(box)} ends before it starts; boxes are x0, y0, x1, y1")
    return list(boxes)


def _read_scores(scores: Any, boxes: Sequence[Any] | None) -> list[float] | None:
    if scores is None:
        return None
    if boxes is None:
        raise ValueError("has 'scores', but no 'boxes' that they belong to")
    values: list[float] = expect(scores, list, "scores", "a list of numbers")
    if not all(is_number(value) for value in values):
        raise ValueError(f"scores {shorten(values)} are not finite numbers")
    if len(values) != len(boxes):
        raise ValueError(f"{len(values)} scores for {len(boxes)} boxes")
    return values


def _read_mask(mask: Any) -> Rle | None:
    if mask is None:
        return None
    if not isinstance(mask, dict) or "size" not in mask or "counts" not in mask:
        raise ValueError("mask is not an object with 'size' and 'counts'")
    size = mask["size"]
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and 0 < side <= LONGEST_SIDE for side in size)
    ):
        raise ValueError(f"mask size {shorten(size)} is not [height, width] in pixels")
    _refuse_other_counts(mask["counts"])
    return validate_rle(mask["counts"], *size)


def _refuse_other_counts(counts: Any) -> None:
    """Refuse counts as writers leave them that convert bytes or arrays in a wrong way; says how to convert them."""
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"'):
        raise ValueError(f"mask counts {shorten(counts)} is str() of bytes; write counts.decode('ascii')")
    if isinstance(counts, list):
        floats = [count for count in counts if isinstance(count, float)]
        if floats:
            raise ValueError(f"mask counts holds {shorten(floats[0])}, not a whole number; write int() of each")
