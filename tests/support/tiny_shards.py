"""Small images and their records, and a build function that worker processes can import."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from shards.errors import DataError
from shards.masks import encode_mask
from shards.record import Expression, ImageRecord, Instance
from shards.writer import write_split

Item = tuple[ImageRecord, Path]


def make_items(folder: Path, expressions: list[int], extension: str = "jpg") -> list[Item]:
    """One noisy image per entry, with so many expressions."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number, count in enumerate(expressions):
        height, width = 12 + number % 5, 16
        levels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        file = folder / f"image{number}.{extension}"
        Image.fromarray(levels).save(file)
        items.append((make_record(100 + 7 * number, file.name, (width, height), count), file))
    return items


def make_record(image_id: int, file_name: str, size: tuple[int, int], count: int) -> ImageRecord:
    width, height = size
    instance = Instance(
        ann_id=image_id * 10,
        category_id=1,
        box=(0.25, 1.0, width / 3, height - 1.0),
        mask={"size": [height, width], "counts": f"{height}0"},
    )
    return ImageRecord(
        image_id=image_id,
        file_name=file_name,
        width=width,
        height=height,
        instances=(instance,),
        expressions=tuple(
            Expression(id=f"grefcoco/{image_id}/{n}", text=f"das {n}. Männchen", instances=(0,) * (n % 2), ref_id=n)
            for n in range(count)
        ),
    )


def fill_masks(record: ImageRecord) -> ImageRecord:
    """The record with a mask of all pixels for each instance; without it, tiny masks are none that decode."""
    mask = encode_mask(np.ones((record.height, record.width), dtype=bool))
    return replace(record, instances=tuple(replace(instance, mask=mask) for instance in record.instances))


def write_items(folder: Path, items: list[Item], records: int = 2, workers: int = 1) -> list[DataError]:
    """Write split "val" in shards of so many records; returns the errors."""
    return list(write_split(folder, "val", items, return_record, workers=workers, records_per_shard=records).errors)


def return_record(record: ImageRecord) -> ImageRecord:
    return record


def refuse_crowds(record: ImageRecord) -> ImageRecord:
    if len(record.expressions) > 2:
        raise DataError("too many expressions", record=f"image {record.image_id}")
    return record


def stumble(record: ImageRecord) -> ImageRecord:
    raise ZeroDivisionError(f"a bug at {record.image_id}")


def dawdle(record: ImageRecord) -> ImageRecord:
    time.sleep(0.2)
    return record
