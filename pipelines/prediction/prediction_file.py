"""The prediction file: one line of JSON per expression, written by igvg or by any other program."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipelines.prediction.named_pipe import open_pipe
from pipelines.prediction.prediction import REMEDY, Prediction, parse_prediction
from shards.errors import DataError
from shards.file_kinds import describe_bytes, describe_content, explain_unreadable
from shards.files import replace_file

PREDICTIONS = "predictions.jsonl"
_EXPECTED = "a prediction file"
_GIVE = f"give a {PREDICTIONS}, or the folder that igvg predict made"
_HEAD = 4096
# Bytes; a longer line is refused before it fills the memory.
_MAX_LINE = 1 << 27


def write_predictions(file: Path, predictions: Iterable[Prediction]) -> int:
    """Write a prediction file atomically; returns the number of lines."""
    count = 0
    with replace_file(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for prediction in predictions:
            stream.write(json.dumps(prediction.to_json(), separators=(",", ":")) + "\n")
            count += 1
    return count


def merge_parts(parts: Sequence[Path], out: Path) -> int:
    """Concatenate prediction files into one, atomically; returns the number of lines with `no_target`.

    Raises:
        DataError: an expression occurs twice, or a part is damaged.
    """
    ids: set[str] = set()
    no_target = 0
    with replace_file(out) as temporary, temporary.open("wb") as stream:
        for part in parts:
            for line_number, line in enumerate(part.read_bytes().splitlines(keepends=True), start=1):
                prediction = parse_prediction(line, part, line_number)
                if not line.endswith(b"\n"):
                    raise DataError("the file breaks off", file=part, record=f"line {line_number}")
                if prediction.id in ids:
                    raise DataError(f"{prediction.id} was predicted twice", file=part, record=f"line {line_number}")
                ids.add(prediction.id)
                no_target += prediction.no_target
                stream.write(line)
    return no_target


def read_predictions(file: Path) -> Iterator[Prediction]:
    """The predictions of a file, one line at a time; empty lines are skipped.

    Raises:
        DataError: the file is missing, a line is not a prediction, or a line lacks boxes or a mask that others have;
            names the line.
    """
    first: tuple[int, Prediction] | None = None
    try:
        with open_pipe(file) if file.is_fifo() else file.open("rb") as stream:
            for line_number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE), b""), start=1):
                if not line.strip():
                    continue
                if first is None:
                    _check_first_line(line, file, line_number)
                if len(line) == _MAX_LINE:
                    what = "is longer than any prediction"
                    raise DataError(what, file=file, record=f"line {line_number}", remedy=REMEDY)
                prediction = parse_prediction(line, file, line_number)
                first = first or (line_number, prediction)
                _check_keys(prediction, file, line_number, first)
                yield prediction
    except OSError as error:
        raise explain_unreadable(file, _EXPECTED, error, _GIVE) from error
    if first is None:
        raise DataError(f"is an empty file, not {_EXPECTED}", file=file, remedy=_GIVE)


def _check_first_line(line: bytes, file: Path, line_number: int) -> None:
    """Refuse the first line of a file of another kind, of a JSON list, or of an object over several lines."""
    # A pipe can be read only once.
    content = describe_content(file) if file.is_file() else describe_bytes(line[:_HEAD])
    if content is not None and content.kind not in ("JSON", "text"):
        raise DataError(f"is {content.words}, not {_EXPECTED}", file=file, remedy=content.remedy or _GIVE)
    start = line.removeprefix(codecs.BOM_UTF8).strip()
    if start.startswith(b"[") or start == b"{":
        found = "a JSON list" if start.startswith(b"[") else "a JSON object over several lines"
        remedy = "write each prediction as one JSON object on a line of its own"
        what = f"not JSON lines, but {found} begins here"
        raise DataError(what, file=file, record=f"line {line_number}", remedy=remedy)


def _check_keys(prediction: Prediction, file: Path, line_number: int, first: tuple[int, Prediction]) -> None:
    """Refuse a prediction without boxes or a mask if the first one has them, and the reverse."""
    first_number, first_prediction = first
    for key in ("boxes", "mask"):
        present, expected = (getattr(one, key) is not None for one in (prediction, first_prediction))
        if present != expected:
            lacking, other = (first_number, line_number) if present else (line_number, first_number)
            remedy = f"give '{key}' in all lines, or in none if the model does not predict it"
            what = f"has no '{key}', but line {other} has"
            raise DataError(what, file=file, record=f"line {lacking}", remedy=remedy)
