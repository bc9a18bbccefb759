"""Annotations of one's own as JSON lines: a line per image or per expression.

    {"image": "a/1.jpg", "split": "train", "text": "the red cups", "targets": [{"box": [10, 20, 50, 80]}]}
    {"image": "a/1.jpg", "expressions": [{"text": ["a dog", "any dog"], "targets": []}]}

`image` is a path below a folder of images. `text` is one expression, or several about the same targets. `targets` is a
list, empty if the image shows nothing of the kind; a target has a `box` (x0, y0, x1, y1) or a `bbox` (x, y, width,
height) in pixels, one of `polygons`, `rle` (both as COCO's `segmentation`) and `mask` (a PNG, its path relative to the
file), or both. Equal targets of an image are one instance.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from shards.annotations.coco import CocoImage
from shards.annotations.drafts import ImageDraft
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.fields import read_text
from shards.annotations.own_instances import MaskFile, OwnAnnotation
from shards.annotations.refer import SPLIT_NAME
from shards.errors import DataError, near_match_hint
from shards.file_kinds import explain_unreadable
from shards.record import Box, Expression

DEFAULT_SPLIT = "train"
LINE_KEYS = ("image", "split", "text", "targets", "expressions")
EXPRESSION_KEYS = ("text", "targets")
TARGET_KEYS = ("box", "bbox", "polygons", "rle", "mask")
_MASK_KEYS = ("polygons", "rle", "mask")
_CATEGORY = 1
_BOX_VALUES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One usable line; its expressions with their targets, both in the order of the line."""

    number: int
    image: str
    split: str
    expressions: list[tuple[int, tuple[str, ...], list[dict[str, Any]]]]
    """Number in the file, texts and targets of each expression."""


@dataclass(slots=True)
class _ImageParts:
    """What the lines about one image of a split say."""

    annotations: dict[str, OwnAnnotation] = field(default_factory=dict)
    """By the keys of the targets."""
    expressions: list[Expression] = field(default_factory=list)


def read_jsonl(file: Path, name: str, collector: ErrorCollector, splits: Sequence[str] = ()) -> list[ImageDraft]:
    """Read annotations of one's own; the sizes of images are 0 × 0, as the file does not say them.

    Args:
        file: JSON lines as above.
        name: of the data set, the first part of the expressions' ids.
        collector: collects the lines and expressions that cannot be used; they are left out.
        splits: names of the splits; none means all.

    Returns:
        One draft per image and split, sorted by the name of the split and the image id: images are counted from 1 in
        the order of the file, and so are expressions, whose number is the `ref_id`.

    Raises:
        DataError: the file cannot be read, holds no lines, or has no such split.
    """
    lines = list(_read_lines(file, collector))
    known = dict.fromkeys(line.split for line in lines)
    for split in splits:
        if split not in known:
            raise DataError(f"has no split {split!r}; there are {', '.join(known) or 'none'}", file=file)
    image_ids: dict[str, int] = {}
    grouped: dict[tuple[str, str], _ImageParts] = {}
    num_annotations = 0
    for line in lines:
        image_ids.setdefault(line.image, len(image_ids) + 1)
        parts = grouped.setdefault((line.split, line.image), _ImageParts())
        for ref_id, texts, targets in line.expressions:
            keys = [_write_key(target) for target in targets]
            for index, (key, target) in enumerate(zip(keys, targets, strict=True), 1):
                if key not in parts.annotations:
                    num_annotations += 1
                    origin = f"line {line.number}, target {index}"
                    parts.annotations[key] = _make_annotation(
                        num_annotations, image_ids[line.image], target, origin, file
                    )
            indices = {key: index for index, key in enumerate(parts.annotations)}
            parts.expressions += [
                Expression(
                    id=f"{name}/{ref_id}/{sent_id}", text=text, ref_id=ref_id,
                    instances=tuple(dict.fromkeys(indices[key] for key in keys)),
                )
                for sent_id, text in enumerate(texts)
            ]  # fmt: skip
    return [
        ImageDraft(
            split=split,
            image=CocoImage(image_id=image_ids[image], file_name=image, width=0, height=0),
            annotations=tuple(parts.annotations.values()),
            expressions=tuple(parts.expressions),
        )
        for (split, image), parts in sorted(grouped.items(), key=lambda item: (item[0][0], image_ids[item[0][1]]))
        if not splits or split in splits
    ]


def list_mask_files(file: Path) -> list[Path]:
    """The PNG masks that a file names and that are there, sorted.

    Raises:
        DataError: the file cannot be read.
    """
    names: set[str] = set()
    for number, data in _split_lines(file):
        line = _read_line(data, number, 0, [])[0] if b'"mask"' in data else None
        targets = (target for _, _, found in line.expressions for target in found) if line else ()
        names.update(target["mask"] for target in targets if "mask" in target)
    # `Path.is_file` fails on names that are too long.
    return [path for name in sorted(names) if os.path.isfile(path := file.parent / name)]  # noqa: PTH113


def own_names(image: CocoImage) -> list[str]:
    """The names under which an image is looked for: its own alone, as its id is no one's but ours."""
    return [image.file_name]


def _split_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise explain_unreadable(file, "annotations in JSON lines", error, "give the .jsonl file") from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line.strip()


def _read_lines(file: Path, collector: ErrorCollector) -> Iterator[_Line]:
    num_lines, num_expressions = 0, 0
    for number, data in _split_lines(file):
        if not num_lines and data.startswith(b"["):
            raise DataError("is a JSON list, not JSON lines", file=file, remedy="write one object per line")
        num_lines += 1
        errors: list[DataError] = []
        line, counted = _read_line(data, number, num_expressions, errors)
        num_expressions += counted
        for error in errors:
            collector.add(DataError(error.what, file=file, record=error.record))
        if line is not None:
            yield line
    if not num_lines:
        raise DataError("holds no lines", file=file, remedy="write one object per line, with image, text and targets")


def _read_line(data: bytes, number: int, before: int, errors: list[DataError]) -> tuple[_Line | None, int]:
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
    line = _Line(number=number, image=image, split=split, expressions=expressions) if expressions else None
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
        raise DataError(f"a {type(value).__name__} where an object with {', '.join(known)} should be")
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
    if not SPLIT_NAME.fullmatch(split):
        raise DataError(f"split is {split[:40]!a}, which names no folder")
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
    _read_box(target)
    if "mask" in target:
        _check_mask_name(read_text(target, "mask"))
    for key, kind in (("polygons", list), ("rle", dict)):
        if key in target and not isinstance(target[key], kind):
            what = "a list of polygons" if kind is list else "an object with size and counts"
            raise DataError(f"has {key} that are {reprlib.repr(target[key])}, not {what}")


def _read_box(target: dict[str, Any]) -> Box | None:
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


def _write_key(target: dict[str, Any]) -> str:
    """A text that equal targets share: 10 is 10.0, and a `bbox` is the `box` that covers the same."""
    shape = {key: target[key] for key in _MASK_KEYS if key in target}
    return f"{_read_box(target)} {json.dumps(_unify_numbers(shape), sort_keys=True)}"


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


def _make_annotation(ann_id: int, image_id: int, target: dict[str, Any], origin: str, file: Path) -> OwnAnnotation:
    segmentation = target.get("polygons", target.get("rle"))
    if "mask" in target:
        segmentation = MaskFile(file.parent / target["mask"])
    return OwnAnnotation(
        ann_id=ann_id, image_id=image_id, category_id=_CATEGORY, bbox=None, segmentation=segmentation, iscrowd=False,
        box=_read_box(target), origin=origin,
    )  # fmt: skip
