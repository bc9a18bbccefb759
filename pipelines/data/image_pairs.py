"""Files of pairs of an image and a text: CSV with the columns image and text, or JSON lines with these keys."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.data.image_folder import clean_line
from pipelines.data.image_queries import ImageQueries
from shards.errors import DataError, join_first
from shards.files import read_text

_KEYS = ("image", "text")
_EXPECTED = "a file of pairs of an image and a text"
_REMEDY = "give CSV with the columns image and text, or JSON lines with these keys"
_SHOWN = 10


def read_pairs(file: Path) -> ImageQueries:
    """The pairs of a file; other columns and keys are ignored, empty lines are passed over.

    The paths of images are relative to the folder of the file. A pair may occur several times.

    Raises:
        DataError: the file is of another kind, or some of its lines are wrong; names these lines.
    """
    text = read_text(file, _EXPECTED, _REMEDY)
    kind = file.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        raise DataError(f"is named {kind or 'without an ending'}, neither .csv nor .jsonl", file=file, remedy=_REMEDY)
    errors: list[str] = []
    pairs: list[tuple[Path, str]] = []
    for line, values in _read_csv(text, file) if kind == ".csv" else _read_json_lines(text):
        try:
            pairs.append(_check_pair(values, file.parent))
        except ValueError as error:
            errors.append(f"line {line}: {error}")
    if errors:
        what = f"{len(errors)} of {len(errors) + len(pairs)} pairs cannot be used: {join_first(errors, _SHOWN, '; ')}"
        raise DataError(clean_line(what), file=file, remedy="correct these lines")
    if not pairs:
        raise DataError("holds no pair", file=file, remedy=_REMEDY)
    # Absolute, but with links as they are: two links may have names of their own.
    keys = [os.path.abspath(image) for image, _ in pairs]  # noqa: PTH100
    images = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    first = {key: image for key, (image, _) in reversed(list(zip(keys, pairs, strict=True)))}
    return ImageQueries(
        files=tuple(first[key] for key in images),
        texts=tuple(text for _, text in pairs),
        pairs=tuple(sorted((images[key], index) for index, key in enumerate(keys))),
        listed=True,
    )


def _read_csv(text: str, file: Path) -> Iterator[tuple[int, object]]:
    """Each row with the number of its first line; a row of another length as a text that says so."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in rows:
            start, line = line, rows.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [name.strip() for name in row]
                _check_header(header, file, start)
            elif len(row) != len(header):
                remedy = "; put a text with commas in quotes" if len(row) > len(header) else ""
                yield start, ValueError(f"{len(row)} fields instead of {len(header)}{remedy}")
            else:
                yield start, dict(zip(header, row, strict=True))
    except csv.Error as error:
        what = f"is no CSV from here on ({error})"
        raise DataError(
            what, file=file, record=f"line {line}", remedy="close quotes, and double those inside"
        ) from error


def _check_header(header: list[str], file: Path, line: int) -> None:
    if missing := [key for key in _KEYS if header.count(key) != 1]:
        found = clean_line(", ".join(header))
        what = f"the header has no column {missing[0]}" if missing[0] not in header else f"two columns {missing[0]}"
        remedy = "begin it with the line image,text, and separate by commas"
        raise DataError(f"{what}; found {found}", file=file, record=f"line {line}", remedy=remedy)


def _read_json_lines(text: str) -> Iterator[tuple[int, object]]:
    # Not splitlines: strings may hold other line separators of Unicode.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "it is nested too deeply")
            yield number, ValueError(f"no JSON ({reason})")


def _check_pair(values: object, folder: Path) -> tuple[Path, str]:
    """The image's path and the text of a row.

    Raises:
        ValueError: one of them is missing or cannot be used.
    """
    from pipelines.data.tokenizer import clean_expression

    if isinstance(values, ValueError):
        raise values
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    for key in _KEYS:
        value = values.get(key)
        if not isinstance(value, str):
            raise ValueError(f'no "{key}"' if key not in values else f'"{key}" is no text')
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError(f'"{key}" holds half of a surrogate pair')
    image, text = values["image"].strip(), values["text"]
    if not clean_expression(text):
        raise ValueError(f'the text "{text}" has no word' if text.strip() else "the text is empty")
    if not image or "\0" in image:
        raise ValueError("the image is no path")
    path = folder / image
    try:
        if path.is_file():
            return path, text
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no file'}")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
