"""COCO's side of every published data set: pictures and annotations of `instances.json`, and where image files are."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from shards.errors import DataError
from shards.index import PICTURE_EXTENSIONS
from shards.published.values import read_flag, read_integer, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shards.audit import Audit

INSTANCES_FILE = "instances.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One entry of `images`; sizes in pixels."""

    image_id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One entry of `annotations`: `bbox` is x, y, width, height in pixels as published, None where it is no box."""

    ann_id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | None
    segmentation: Any
    iscrowd: bool


@dataclass(frozen=True, slots=True)
class CocoInstances:
    """Pictures and annotations by their ids."""

    pictures: dict[int, Picture]
    annotations: dict[int, Annotation]


def read_instances(file: Path, audit: Audit) -> CocoInstances:
    """Read an `instances.json`.

    Args:
        file: the file.
        audit: collects entries that lack a key or hold a wrong value; they are left out.

    Raises:
        DataError: the file cannot be read, is no JSON, or lacks `images` or `annotations`.
    """
    document = load_json(file)
    if not isinstance(document, dict):
        raise DataError(f"holds a {type(document).__name__}, not a dictionary with images and annotations", file=file)
    for key in ("images", "annotations"):
        if not isinstance(document.get(key), list):
            raise DataError(f"has no list {key!r}", file=file, remedy="use the file that came with the data set")
    pictures: dict[int, Picture] = {}
    for number, entry in enumerate(document["images"], 1):
        try:
            picture = _read_picture(entry)
            pictures[picture.image_id] = picture
        except DataError as fault:
            audit.add(DataError(fault.what, file=file, record=_name(entry, "image", number)))
    annotations: dict[int, Annotation] = {}
    for number, entry in enumerate(document["annotations"], 1):
        try:
            annotation = _read_annotation(entry)
            annotations[annotation.ann_id] = annotation
        except DataError as fault:
            audit.add(DataError(fault.what, file=file, record=_name(entry, "annotation", number)))
    return CocoInstances(pictures, annotations)


def load_json(file: Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        DataError: the file cannot be read, or is cut short, damaged or no JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=file) from error
    except ValueError as error:
        raise DataError(f"damaged, cut short or no JSON ({error})", file=file, remedy="download it again") from error
    except RecursionError as error:
        raise DataError("this JSON is nested too deep", file=file, remedy="download it again") from error


def index_folders(folders: Sequence[Path]) -> dict[str, Path]:
    """Image files by name, each folder listed once; where two folders hold a name, the first one's counts.

    Raises:
        DataError: a folder cannot be listed.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if _is_picture(entry.name) and entry.is_file()]
        except OSError as error:
            raise DataError(f"is no folder of pictures ({error.strerror})", file=folder) from error
        for name in names:
            files.setdefault(name, folder / name)
    return files


def candidate_names(picture: Picture) -> list[str]:
    """Names under which COCO's releases hold a picture; the first is that of `instances.json`, without folders."""
    names = [PurePosixPath(picture.file_name.replace("\\", "/")).name]
    names += [f"{prefix}{picture.image_id:012d}.jpg" for prefix in ("COCO_train2014_", "COCO_val2014_", "")]
    return list(dict.fromkeys(names))


def locate_picture(picture: Picture, files: Mapping[str, Path]) -> Path | None:
    """The image file among those of `index_folders`, under any of its names; None if there is none."""
    return next((files[name] for name in candidate_names(picture) if name in files), None)


def _is_picture(name: str) -> bool:
    stem, _, extension = name.rpartition(".")
    return extension.lower() in PICTURE_EXTENSIONS and bool(stem) and not name.startswith(".")


def _read_picture(entry: Any) -> Picture:
    width, height = read_integer(entry, "width"), read_integer(entry, "height")
    if width <= 0 or height <= 0:
        raise DataError(f"a picture of {width} × {height} pixels")
    image_id = read_integer(entry, "id")
    if image_id < 0:
        raise DataError(f"a picture with the number {image_id}")
    return Picture(image_id=image_id, file_name=read_text(entry, "file_name"), width=width, height=height)


def _read_annotation(entry: Any) -> Annotation:
    ann_id = read_integer(entry, "id")
    if "segmentation" not in entry:
        raise DataError("has no segmentation")
    return Annotation(
        ann_id=ann_id,
        image_id=read_integer(entry, "image_id"),
        category_id=read_integer(entry, "category_id"),
        bbox=read_bbox(entry.get("bbox")),
        segmentation=entry["segmentation"],
        iscrowd=read_flag(entry, "iscrowd", default=False),
    )


def read_bbox(values: Any) -> tuple[float, float, float, float] | None:
    """A published box as x, y, width, height in pixels; None where it is missing, malformed or without area."""
    if not isinstance(values, list) or len(values) != 4:
        return None
    try:
        x, y, width, height = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    if not all(math.isfinite(value) for value in (x, y, width, height)):
        return None
    return (x, y, width, height) if width > 0 and height > 0 else None


def _name(entry: Any, kind: str, number: int) -> str:
    known = isinstance(entry, dict) and isinstance(entry.get("id"), int)
    return f"{kind} {entry['id']}" if known else f"{kind} number {number}"
