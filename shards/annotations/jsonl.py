"""Annotations of one's own as JSON lines: a line per image or per expression.

    {"image": "a/1.jpg", "split": "train", "text": "the red cups", "targets": [{"box": [10, 20, 50, 80]}]}
    {"image": "a/1.jpg", "expressions": [{"text": ["a dog", "any dog"], "targets": []}]}

`image` is a path below a folder of images. `text` is one expression, or several about the same targets. `targets` is a
list, empty if the image shows nothing of the kind; a target has a `box` (x0, y0, x1, y1) or a `bbox` (x, y, width,
height) in pixels, one of `polygons`, `rle` (both as COCO's `segmentation`) and `mask` (a PNG, its path relative to the
file), or both. Equal targets of an image are one instance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.annotations.coco import CocoImage
from shards.annotations.drafts import ImageDraft
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.json_lines import Line, read_box, read_line, split_lines, write_key
from shards.annotations.own_instances import MaskFile, OwnAnnotation
from shards.errors import DataError
from shards.record import Expression

_CATEGORY = 1


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
    first_lines: dict[str, int] = {}
    grouped: dict[tuple[str, str], _ImageParts] = {}
    num_annotations = 0
    for line in lines:
        image_ids.setdefault(line.image, len(image_ids) + 1)
        first_lines.setdefault(line.image, line.number)
        parts = grouped.setdefault((line.split, line.image), _ImageParts())
        for ref_id, texts, targets in line.expressions:
            keys = [write_key(target) for target in targets]
            for index, (key, target) in enumerate(zip(keys, targets, strict=True), 1):
                if key not in parts.annotations:
                    num_annotations += 1
                    origin = f"line {line.number}, target {index}"
                    parts.annotations[key] = make_annotation(
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
            image=CocoImage(
                image_id=image_ids[image], file_name=image, width=0, height=0, origin=f"line {first_lines[image]}"
            ),
            annotations=tuple(parts.annotations.values()),
            expressions=tuple(parts.expressions),
            file=file,
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
    for number, data in split_lines(file):
        line = read_line(data, number, 0, [])[0] if b'"mask"' in data else None
        targets = (target for _, _, found in line.expressions for target in found) if line else ()
        names.update(target["mask"] for target in targets if "mask" in target)
    # `Path.is_file` fails on names that are too long.
    return [path for name in sorted(names) if os.path.isfile(path := file.parent / name)]  # noqa: PTH113


def own_names(image: CocoImage) -> list[str]:
    """The names under which an image is looked for: its own alone, as its id is no one's but ours."""
    return [image.file_name]


def _read_lines(file: Path, collector: ErrorCollector) -> Iterator[Line]:
    num_lines, num_expressions = 0, 0
    for number, data in split_lines(file):
        if not num_lines and data.startswith(b"["):
            raise DataError("is a JSON list, not JSON lines", file=file, remedy="write one object per line")
        num_lines += 1
        errors: list[DataError] = []
        line, counted = read_line(data, number, num_expressions, errors)
        num_expressions += counted
        for error in errors:
            collector.add(DataError(error.what, file=file, record=error.record))
        if line is not None:
            yield line
    if not num_lines:
        raise DataError("holds no lines", file=file, remedy="write one object per line, with image, text and targets")


def make_annotation(ann_id: int, image_id: int, target: dict[str, Any], origin: str, file: Path) -> OwnAnnotation:
    """The object that a target is; `file` holds it, and `origin` is the record that errors name."""
    segmentation = target.get("polygons", target.get("rle"))
    if "mask" in target:
        segmentation = MaskFile(file.parent / target["mask"])
    return OwnAnnotation(
        ann_id=ann_id, image_id=image_id, category_id=_CATEGORY, bbox=None, segmentation=segmentation, iscrowd=False,
        box=read_box(target), origin=origin,
    )  # fmt: skip
