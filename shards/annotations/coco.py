"""The images and annotations of COCO's `instances.json`, which every published data set comes with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from shards.annotations.duplicates import UniqueEntries
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.fields import read_flag, read_integer, read_text
from shards.annotations.file_names import base_name, full_name
from shards.errors import DataError
from shards.files import read_json
from shards.record import MAX_PIXELS

INSTANCES_FILE = "instances.json"
_SHOWN = 3

Entry = TypeVar("Entry")
ImageKey = tuple[int, str]
"""The id of an image and its file name: the id alone may stand for different images in different files."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CocoImage:
    """One entry of `images`; sizes in pixels.

    `same_name` and `same_base_name` are ids of other images with the same `file_name`, as it is and without folders.
    `origin` is the record that errors name where the id says nothing to the author of the file, e.g. "line 7".
    """

    image_id: int
    file_name: str
    width: int
    height: int
    same_name: tuple[int, ...] = ()
    same_base_name: tuple[int, ...] = ()
    origin: str = ""

    @property
    def key(self) -> ImageKey:
        """What tells images of several files apart."""
        return self.image_id, self.file_name

    def __repr__(self) -> str:
        # A part of `source` in index.json, as in ImageDraft.
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__slots__ if name != "origin")
        return f"Picture({', '.join(fields)})"


@dataclass(frozen=True, slots=True)
class BoxAlone:
    """In place of the segmentation of an annotation that has none, where a box suffices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One entry of `annotations`: `bbox` is x, y, width, height in pixels as published, None where it is no box."""

    ann_id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | None
    segmentation: Any
    iscrowd: bool


AnnotationReader = Callable[[Any], tuple[int, Annotation]]
"""Reads an entry of `annotations`: its id, and the annotation."""


@dataclass(frozen=True, slots=True)
class CocoInstances:
    """Images and annotations by their ids, and the ids of entries that were refused."""

    images: dict[int, CocoImage]
    annotations: dict[int, Annotation]
    refused_images: frozenset[int] = frozenset()
    refused_annotations: frozenset[int] = frozenset()


def read_instances(file: Path, collector: ErrorCollector, *, boxes_suffice: bool = False) -> CocoInstances:
    """Read an `instances.json`; entries that lack a key, hold a wrong value or repeat an id are collected and left out.

    Args:
        file: the file.
        collector: collects these entries.
        boxes_suffice: whether an annotation may lack the key `segmentation` if it has a box; an empty segmentation is
            no outline of anything, and refused all the same.

    Raises:
        DataError: the file cannot be read, is no JSON, or lacks `images` or `annotations`.
    """
    read_annotation = _read_outline_or_box if boxes_suffice else _read_annotation
    return parse_instances(load_json(file), file, collector, read_annotation)


def parse_instances(
    document: Any, file: Path, collector: ErrorCollector, read_annotation: AnnotationReader
) -> CocoInstances:
    """The images and annotations of a document that was read from `file`, as `read_instances` returns them.

    Args:
        document: the value of the file.
        file: for errors.
        collector: as of `read_instances`.
        read_annotation: reads an entry of the annotations, such as `read_detection`.

    Raises:
        DataError: it lacks `images` or `annotations`.
    """
    if not isinstance(document, dict):
        raise DataError(f"holds a {type(document).__name__}, not a dictionary with images and annotations", file=file)
    for key in ("images", "annotations"):
        if not isinstance(document.get(key), list):
            raise DataError(f"has no list {key!r}", file=file, remedy="use the file that came with the data set")
    images = UniqueEntries[CocoImage]()
    bad_images = _read_entries(document["images"], "image", _read_image, images, file, collector)
    annotations = UniqueEntries[Annotation]()
    bad_annotations = _read_entries(
        document["annotations"], "annotation", read_annotation, annotations, file, collector
    )
    link_same_names(images.entries)
    return CocoInstances(images.entries, annotations.entries, bad_images, bad_annotations)


def _read_entries(
    entries: list[Any],
    kind: str,
    read: Callable[[Any], tuple[int, Entry]],
    found: UniqueEntries[Entry],
    file: Path,
    collector: ErrorCollector,
) -> frozenset[int]:
    """Read one of the two lists into `found`; returns the ids of entries that were refused."""
    malformed = set()
    for index, entry in enumerate(entries, 1):
        try:
            found.add(*read(entry), f"entry {index} of {kind}s")
        except DataError as error:
            known = isinstance(entry, dict) and isinstance(entry.get("id"), int)
            malformed |= {entry["id"]} if known else set()
            record = f"{kind} {entry['id']}" if known else f"{kind} number {index}"
            collector.add(DataError(error.what, file=file, record=record))
    return found.drop_differing(collector, file, kind) | malformed.difference(found.entries)


def load_json(file: Path) -> Any:
    """The value that a published JSON file holds.

    Raises:
        DataError: the file cannot be read, or is cut short, damaged or no JSON; says what it is.
    """
    return read_json(file, "JSON", "download it again")


def _read_image(entry: Any) -> tuple[int, CocoImage]:
    width, height = read_integer(entry, "width"), read_integer(entry, "height")
    if width <= 0 or height <= 0:
        raise DataError(f"an image of {width} × {height} pixels")
    if width * height > MAX_PIXELS:
        raise DataError(f"an image of {width} × {height} pixels; at most {MAX_PIXELS:,} are read")
    image_id = read_integer(entry, "id")
    if image_id < 0:
        raise DataError(f"an image with the number {image_id}")
    name = read_text(entry, "file_name")
    return image_id, CocoImage(image_id=image_id, file_name=name, width=width, height=height)


def _read_annotation(entry: Any) -> tuple[int, Annotation]:
    ann_id = read_integer(entry, "id")
    if "segmentation" not in entry:
        raise DataError("has no segmentation")
    return ann_id, Annotation(
        ann_id=ann_id,
        image_id=read_integer(entry, "image_id"),
        category_id=read_integer(entry, "category_id"),
        bbox=read_bbox(entry.get("bbox")),
        segmentation=entry["segmentation"],
        iscrowd=read_flag(entry, "iscrowd", default=False),
    )


def _read_outline_or_box(entry: Any) -> tuple[int, Annotation]:
    """An annotation without a segmentation if it has a box.

    NOTE: the key is absent, not empty, as in the boxes that pycocotools' `loadRes` takes; detectron2 and MMDetection
    read such annotations, too.
    """
    outlined = not isinstance(entry, dict) or "segmentation" in entry
    ann_id, annotation = _read_annotation(entry if outlined else entry | {"segmentation": BoxAlone()})
    if not outlined and annotation.bbox is None:
        raise DataError("has neither a segmentation nor a bbox with an area")
    return ann_id, annotation


def read_detection(entry: Any) -> tuple[int, Annotation]:
    """An annotation of a detection data set, whose box suffices: without an outline its segmentation is None."""
    outlined = not isinstance(entry, dict) or entry.get("segmentation") not in (None, [])
    # An empty list is how detection data sets write that there is no outline.
    ann_id, annotation = _read_annotation(entry if outlined else entry | {"segmentation": None})
    if not outlined and annotation.bbox is None:
        raise DataError("has neither a segmentation nor a bbox with an area")
    return ann_id, annotation


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


def link_same_names(images: dict[int, CocoImage]) -> None:
    """Store in each image the ids of others with the same file name, with folders and without."""
    for image_id, others in _find_same_names(images, full_name).items():
        images[image_id] = replace(images[image_id], same_name=others)
    for image_id, others in _find_same_names(images, base_name).items():
        images[image_id] = replace(images[image_id], same_base_name=others)


def _find_same_names(images: Mapping[int, CocoImage], shorten: Callable[[str], str]) -> dict[int, tuple[int, ...]]:
    owners: dict[str, list[int]] = defaultdict(list)
    for image in images.values():
        owners[shorten(image.file_name)].append(image.image_id)
    shared = [ids for ids in owners.values() if len(ids) > 1]
    return {
        image_id: tuple([other for other in ids[: _SHOWN + 1] if other != image_id][:_SHOWN])
        for ids in shared
        for image_id in ids
    }
