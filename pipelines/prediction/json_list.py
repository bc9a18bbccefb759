"""Long lists in JSON files of other programs, read one entry at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.prediction.json_values import STRICT, describe_json_error, shorten
from shards.errors import DataError
from shards.file_kinds import describe_content, explain_unreadable
from shards.files import read_text
from shards.progress import report_progress

_PROGRESS_STEP = 500
_SPACE = re.compile(r"[ \t\n\r]*")


def read_entries(file: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSON list, counted from 1, one at a time: only the text is in memory as a whole.

    Raises:
        DataError: the file cannot be read, or is no such list; names the entry.
    """
    decoder = json.JSONDecoder(**STRICT)
    text, entry_number = read_json_text(file), 0
    delimiter, position = _read_delimiter(text, 0)
    if delimiter != "[":
        raise DataError("is no list", file=file, remedy="give COCO results: a list of entries with image_id and score")
    if _read_delimiter(text, position)[0] == "]":
        delimiter, position = _read_delimiter(text, position)
    while delimiter != "]":
        entry_number += 1
        try:
            entry, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(describe_json_error(error), file=file, record=f"entry {entry_number}") from error
        if entry_number % _PROGRESS_STEP == 0:
            report_progress(position, len(text), file.name)
        yield entry_number, entry
        delimiter, position = _read_delimiter(text, position)
        if delimiter not in ("]", ","):
            what = f"is followed by {shorten(delimiter)}" if delimiter else "is the last before the file breaks off"
            raise DataError(what, file=file, record=f"entry {entry_number}")
    if position < len(text):
        raise DataError("is followed by more after the end of the list", file=file, record=f"entry {entry_number}")


def read_json_text(file: Path) -> str:
    """The text of a file of COCO's, which begins with a list or an object.

    Raises:
        DataError: the file cannot be read, or is something else.
    """
    expected, remedy = "COCO's JSON", "give the file as it was written, in UTF-8"
    text = read_text(file, expected, remedy)
    if not text.lstrip().startswith(("[", "{")) and describe_content(file) is not None:
        raise explain_unreadable(file, expected, "it begins with no list and no object", remedy)
    return text


def _read_delimiter(text: str, start: int) -> tuple[str, int]:
    """The next character that is not white space, empty at the end, and the position of the one after it."""
    position = _skip_space(text, start)
    return text[position : position + 1], _skip_space(text, position + 1)


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start
