"""Prepared shards as JSON lines of one's own, a line per image, to edit or to join with other sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from shards.annotations.coco import CocoImage
from shards.annotations.json_lines import read_line, write_key
from shards.annotations.jsonl import make_annotation
from shards.annotations.own_instances import build_own_instance
from shards.errors import DataError
from shards.files import replace_file
from shards.masks import rle_to_box
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord, Instance

ANNOTATIONS = "annotations.jsonl"

Content = tuple[int, int]
"""Bytes and CRC-32 of an image file."""


@dataclass(slots=True)
class _Counts:
    """What was written, and what JSON lines cannot say of it."""

    images: int = 0
    expressions: int = 0
    objects: int = 0
    unmasked: int = 0
    crowds: int = 0
    merged: int = 0
    files: dict[str, Content] = field(default_factory=dict)
    """The image files by their names."""


def write_jsonl(folder: Path, readers: Mapping[str, ShardReader]) -> dict[str, int]:
    """Write `ANNOTATIONS` of some splits; `igvg prepare jsonl` reads the same images, texts, boxes and masks from it.

    Ids are not written: those of images, objects and expressions are counted anew. Neither are categories, nor that an
    object is a crowd region.

    Args:
        folder: where to write.
        readers: of the splits, by their names.

    Returns:
        The numbers of `images`, `expressions` and `objects`, of objects without a mask (`unmasked`), of crowd regions
        (`crowds`), and of objects that are one of two with the same box and mask, or that an expression names again
        (`merged`).

    Raises:
        DataError: JSON lines cannot say what a record holds, or two image files have one name; names the image.
    """
    counts = _Counts()
    with replace_file(folder / ANNOTATIONS) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        for split, reader in readers.items():
            names = set[str]()
            for index, record in enumerate(reader.records()):
                content = int(reader.index.images.sizes[index]), int(reader.index.images.crc32s[index])
                try:
                    _check_name(record.file_name, content, names, counts.files)
                    line = _write_line(split, record, counts)
                except DataError as error:
                    # The ids of an edited file are counted; its names are those of the user's files.
                    name = f"image {record.image_id}, {record.file_name!r:.100}"
                    raise DataError(
                        error.what, file=reader.shard_file(index), record=name, remedy=error.remedy
                    ) from error
                if record.expressions:
                    stream.write(line)
                    counts.images += 1
    return {name: getattr(counts, name) for name in _Counts.__slots__ if name != "files"}


def _check_name(name: str, content: Content, names: set[str], files: dict[str, Content]) -> None:
    """Refuse an image whose file name is another one's."""
    if name in names:
        raise DataError("another image of the split has this file name")
    names.add(name)
    if files.setdefault(name, content) != content:
        what = "an image of another split has this file name, and other bytes"
        raise DataError(what, remedy="write one split at a time: --split")


def _write_line(split: str, record: ImageRecord, counts: _Counts) -> str:
    """The line of an image, which is read back and compared."""
    targets = [_write_target(instance) for instance in record.instances]
    entries = list(_write_expressions(record, targets))
    line = json.dumps(
        {"image": record.file_name, "split": split, "expressions": entries}, ensure_ascii=False, separators=(",", ":")
    )
    errors: list[DataError] = []
    if record.expressions:
        read_line(line.encode(errors="surrogatepass"), 1, 0, errors)
    if errors:
        where = (errors[0].record or "").removeprefix("line 1").removeprefix(", ")
        raise DataError(f"{where}: {errors[0].what}" if where else errors[0].what)
    for instance, target in zip(record.instances, targets, strict=True):
        _compare(instance, target, record)
    keys = [write_key(target) for target in targets]
    counts.expressions += len(record.expressions)
    counts.objects += len(record.instances)
    counts.unmasked += sum(instance.mask is None for instance in record.instances)
    counts.crowds += sum(instance.crowd for instance in record.instances)
    counts.merged += len(keys) - len(set(keys))
    counts.merged += sum(len(each.instances) - len(set(each.instances)) for each in record.expressions)
    return f"{line}\n"


def _write_expressions(record: ImageRecord, targets: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The expressions of an image; those in a row about the same targets of a ref are the texts of one."""

    def find_ref(expression: Expression) -> tuple[int, tuple[int, ...]]:
        return expression.ref_id, expression.instances

    for (_, instances), found in groupby(record.expressions, key=find_ref):
        texts = [expression.text for expression in found]
        yield {"text": texts[0] if len(texts) == 1 else texts, "targets": [targets[index] for index in instances]}


def _write_target(instance: Instance) -> dict[str, Any]:
    target: dict[str, Any] = {"box": list(instance.box)}
    if instance.mask is not None:
        target["rle"] = {"size": list(instance.mask["size"]), "counts": instance.mask["counts"]}
        # A box within one pixel is read as fractions of the image; that of the mask is found without it.
        if max(instance.box) <= 1 and rle_to_box(instance.mask) == instance.box:
            del target["box"]
    return target


def _compare(instance: Instance, target: dict[str, Any], record: ImageRecord) -> None:
    """Refuse an object that is not read back as it is.

    Raises:
        DataError: its box or mask cannot be read, or becomes another.
    """
    image = CocoImage(image_id=record.image_id, file_name=record.file_name, width=record.width, height=record.height)
    origin = f"annotation {instance.ann_id}"
    try:
        read = build_own_instance(make_annotation(instance.ann_id, record.image_id, target, origin, Path()), image)
    except DataError as error:
        raise DataError(f"{origin}: {error.what}") from error
    if (read.box, read.mask) != (instance.box, instance.mask):
        raise DataError(f"{origin} would be read with another box or mask")
