"""The lines of a file of JSON lines, checked one by one: what `shards.annotations.jsonl` describes."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shards.annotations.fields import read_text
from shards.annotations.refer import check_split_name
from shards.errors import DataError, near_match_hint
from shards.file_kinds import explain_unreadable
from shards.record import Box

DEFAULT_SPLIT = "train"
LINE_KEYS = ("image", "split", "text", "targets", "expressions")
EXPRESSION_KEYS = ("text", "targets")
TARGET_KEYS = ("box", "bbox", "polygons", "rle", "mask")
_MASK_KEYS = ("polygons", "rle", "mask")
_BOX_VALUES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One usable line; its expressions with their targets, both in the order of the line."""

    number: int
    image: str
    split: str
    expressions: list[tuple[int, tuple[str, ...], list[dict[str, Any]]]]
    """Number in the file, texts and targets of each expression."""


def split_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise explain_unreadable(file, "annotations in JSON lines", error, "give the .jsonl file") from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line.strip()


def read_line(data: bytes, number: int, before: int, errors: list[DataError]) -> tuple[Line | None, int]:
    """What a line says, and how many expressions it counts for; `before` are those of the lines before it."""
    record = f"line {number}"
    expressions = []
    try:
        value = _parse(data)
        _check_keys(value, LINE_KEYS)
        image, split = _read_image(value), _read_split(value)
        entries = _list_expressions(value)
    except DataError as error:
        errors.append(DataError(error.what, record=record))
        return None, 1
    for index, entry in enumerate(entries, 1):
        place = record if entry is value else f"{record}, expression {index}"
        try:
            if entry is not value:
                _check_keys(entry, EXPRESSION_KEYS)
            expressions.append((before + index, _read_texts(entry), _read_targets(entry)))
        except DataError as error:
            errors.append(DataError(error.what, record=place))
    line = Line(number=number, image=image, split=split, expressions=expressions) if expressions else None
    return line, len(entries)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_read_object)
    except UnicodeDecodeError as error:
        raise DataError(f"is no UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"is no JSON ({error.msg} at character {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise DataError("is no JSON that can be read: a number or its nesting is too long") from error
    if not isinstance(value, dict):
        raise DataError(f"is a {type(value).__name__}, not an object with image, text and targets")
    return value


def _refuse_constant(name: str) -> None:
    raise DataError(f"holds {name}, which is no number of JSON")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise DataError(f"has {next(name for name in names if names.count(name) > 1)!r:.40} twice in one object")
    return found


def _check_keys(value: Any, known: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise DataError(f"is {reprlib.repr(value)}, not an object with {', '.join(known)}")
    for key in value:
        if key not in known:
            raise DataError(f"has the unknown key {key!r:.40}; {near_match_hint(key, known)}")


def _read_image(value: dict[str, Any]) -> str:
    name = read_text(value, "image")
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip() or not name.isprintable() or not path.name:
        raise DataError(f"image is {name[:40]!a}, which names no file")
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"image is {name[:80]!r}; write its path below the folder that --images gives")
    return str(path)


def _read_split(value: dict[str, Any]) -> str:
    split = read_text(value, "split") if "split" in value else DEFAULT_SPLIT
    check_split_name(split)
    return split


def _list_expressions(value: dict[str, Any]) -> list[Any]:
    """The objects that hold `text` and `targets`: the line itself, or those of its `expressions`."""
    if "expressions" not in value:
        return [value]
    if "text" in value or "targets" in value:
        raise DataError("has expressions beside text or targets; put these into expressions")
    entries = value["expressions"]
    if not isinstance(entries, list) or not entries:
        raise DataError("expressions is no list of objects with text and targets")
    return entries


def _read_texts(entry: dict[str, Any]) -> tuple[str, ...]:
    values = entry.get("text")
    texts = values if isinstance(values, list) else [values]
    if "text" not in entry or not texts:
        raise DataError("has no text")
    for text in texts:
        if not read_text({"text": text}, "text").strip():
            raise DataError("text is empty")
    return tuple(texts)


def _read_targets(entry: dict[str, Any]) -> list[dict[str, Any]]:
    if "targets" not in entry:
        raise DataError("has no targets; write [] for an expression about nothing in the image")
    if not isinstance(entry["targets"], list):
        raise DataError(f"targets is {reprlib.repr(entry['targets'])}, not a list")
    for index, target in enumerate(entry["targets"], 1):
        try:
            _check_target(target)
        except DataError as error:
            raise DataError(f"target {index} {error.what}") from error
    return entry["targets"]


def _check_target(target: Any) -> None:
    _check_keys(target, TARGET_KEYS)
    for group in (("box", "bbox"), _MASK_KEYS):
        if len(given := [key for key in group if key in target]) > 1:
            raise DataError(f"has {' and '.join(given)}; give one of them")
    if not target:
        raise DataError(f"is empty; give one of {', '.join(TARGET_KEYS)}")
    read_box(target)
    if "mask" in target:
        _check_mask_name(read_text(target, "mask"))
    for key, kind in (("polygons", list), ("rle", dict)):
        if key in target and not isinstance(target[key], kind):
            what = "a list of polygons" if kind is list else "an object with size and counts"
            raise DataError(f"has {key} that are {reprlib.repr(target[key])}, not {what}")


def read_box(target: dict[str, Any]) -> Box | None:
    """The box of a target, in pixels; None where it has none.

    Raises:
        DataError: it is no box, or covers nothing.
    """
    key = next((key for key in ("box", "bbox") if key in target), None)
    if key is None:
        return None
    values = target[key]
    if not isinstance(values, list) or len(values) != _BOX_VALUES or not all(map(_is_number, values)):
        raise DataError(f"has {key} {reprlib.repr(values)}, which is no list of four numbers")
    x0, y0, x1, y1 = map(float, values)
    if key == "bbox":
        x1, y1 = x0 + x1, y0 + y1
    if not (x0 < x1 and y0 < y1):
        order = "x0, y0, x1, y1 with x0 < x1 and y0 < y1" if key == "box" else "x, y, width, height above 0"
        raise DataError(f"has {key} {reprlib.repr(values)}, which covers nothing; expected {order}")
    return x0, y0, x1, y1


def write_key(target: dict[str, Any]) -> str:
    """A text that equal targets share: 10 is 10.0, and a `bbox` is the `box` that covers the same."""
    shape = {key: target[key] for key in _MASK_KEYS if key in target}
    return f"{read_box(target)} {json.dumps(_unify_numbers(shape), sort_keys=True)}"


def _unify_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unify_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unify_numbers(each) for each in value]
    return float(value) if _is_number(value) else value


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _check_mask_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name.strip() or not name.isprintable() or path.is_absolute() or ".." in path.parts:
        raise DataError(f"has mask {name[:80]!a}; write the path of a PNG relative to the folder of the file, below it")
