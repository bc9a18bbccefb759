"""Prepared shards in gRefCOCO's published layout, `grefs(unc).json` and `instances.json`, for other people's code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.annotations.coco import INSTANCES_FILE
from shards.annotations.grefcoco import NO_TARGET, REF_FORMAT
from shards.errors import DataError
from shards.files import write_json
from shards.masks import rle_area
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord, Instance

_ID_PARTS = 3


@dataclass(slots=True)
class _Document:
    """The entries of both files by their ids."""

    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    refs: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, entry_id: int, entry: dict[str, Any]) -> None:
        """Add an entry, which may be there already, as it is.

        Raises:
            DataError: another one has its id.
        """
        known = getattr(self, f"{kind}s").setdefault(entry_id, entry)
        if known != entry:
            what = f"two {kind}s that differ have this id"
            raise DataError(what, record=f"{kind} {entry_id}", remedy="write one split at a time: --split")


def write_grefcoco(folder: Path, readers: Mapping[str, ShardReader]) -> dict[str, int]:
    """Write both files of some splits; `igvg prepare grefcoco` reads the same records from them.

    The name of the data set, the first part of the expressions' ids, is not written. An object of which only the box is
    known has no `segmentation`.

    Args:
        folder: where to write.
        readers: of the splits, by their names.

    Returns:
        The numbers of `images`, `annotations`, `refs` and `expressions`, and of objects without a mask (`unmasked`).

    Raises:
        DataError: sentences of a ref have different targets, an id is no DATASET/REF_ID/SENT_ID, or entries that
            differ share an id.
    """
    document, categories, num_expressions = _Document(), {1}, 0
    for split, reader in readers.items():
        for record in reader.records():
            names = {"id": record.image_id, "file_name": record.file_name}
            document.add("image", record.image_id, names | {"width": record.width, "height": record.height})
            for instance in record.instances:
                categories.add(instance.category_id)
                document.add("annotation", instance.ann_id, _write_annotation(instance, record.image_id))
            for expression in record.expressions:
                num_expressions += 1
                _add_sentence(document, split, record, expression)
    instances = {
        "images": list(document.images.values()),
        "annotations": list(document.annotations.values()),
        "categories": [{"id": category, "name": f"category {category}"} for category in sorted(categories)],
    }
    write_json(folder / INSTANCES_FILE, instances, compact=True)
    write_json(folder / REF_FORMAT.files[0], list(document.refs.values()), compact=True)
    return {
        "images": len(document.images),
        "annotations": len(document.annotations),
        "refs": len(document.refs),
        "expressions": num_expressions,
        "unmasked": sum("segmentation" not in entry for entry in document.annotations.values()),
    }


def _add_sentence(document: _Document, split: str, record: ImageRecord, expression: Expression) -> None:
    targets = record.targets(expression)
    parts = expression.id.split("/")
    if len(parts) != _ID_PARTS or not parts[2].isdecimal():
        raise DataError("the id is no DATASET/REF_ID/SENT_ID with a number at its end", record=expression.id)
    ref = {
        "ref_id": expression.ref_id,
        "image_id": record.image_id,
        "file_name": record.file_name,
        "split": split,
        "ann_id": [instance.ann_id for instance in targets] or [NO_TARGET],
        "category_id": [instance.category_id for instance in targets] or [NO_TARGET],
        "no_target": not targets,
    }
    known = document.refs.setdefault(expression.ref_id, ref | {"sent_ids": [], "sentences": []})
    if differing := [key for key, value in ref.items() if known[key] != value]:
        what = f"its {differing[0]} is not that of the others of ref {expression.ref_id}, which gRefCOCO cannot say"
        raise DataError(what, record=expression.id)
    sent_id, text = int(parts[2]), expression.text
    known["sent_ids"].append(sent_id)
    known["sentences"].append({"sent_id": sent_id, "sent": text, "raw": text, "tokens": text.split()})


def _write_annotation(instance: Instance, image_id: int) -> dict[str, Any]:
    x0, y0, x1, y1 = instance.box
    width, height = _find_length(x0, x1), _find_length(y0, y1)
    return {
        "id": instance.ann_id,
        "image_id": image_id,
        "category_id": instance.category_id,
        "bbox": [x0, y0, width, height],
        "area": rle_area(instance.mask) if instance.mask else width * height,
        "iscrowd": int(instance.crowd),
        **({"segmentation": instance.mask} if instance.mask else {}),
    }


def _find_length(start: float, end: float) -> float:
    """The length that, added to `start`, gives `end` to the bit, which the difference of the two may miss."""
    length = end - start
    candidates = (length, math.nextafter(length, math.inf), math.nextafter(length, 0))
    return next((each for each in candidates if start + each == end), length)
