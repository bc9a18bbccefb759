"""Prepared splits whose images are chosen by id, file name and color, so that sets share some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from shards.annotations.file_names import coco_name
from shards.record import Expression
from shards.writer import RECORDS_PER_SHARD, write_split
from tests.support.drawn_shards import HEIGHT, WIDTH, make_record, return_record

Texts = Sequence[tuple[str, tuple[int, ...]]]
"""The words of each expression, and the instances that it refers to."""
TEXTS: Texts = (("left", (0,)), ("nothing", ()))


def write_images(
    folder: Path,
    split: str,
    colors: Mapping[int, int],
    *,
    coco: bool = True,
    texts: Texts = TEXTS,
    names: Sequence[str] = (),
    records_per_shard: int = RECORDS_PER_SHARD,
) -> Path:
    """A split of one image for each id, of the color (id → red).

    Images have `names`, or COCO's names, or are named own-ID.png.
    """
    sources = folder.parent / f"{folder.name}-images"
    sources.mkdir(parents=True, exist_ok=True)
    items = []
    for index, (image_id, red) in enumerate(colors.items()):
        name = names[index] if names else coco_name(image_id) if coco else f"own-{image_id}.png"
        file = sources / f"{split}-{Path(name).name}"
        Image.new("RGB", (WIDTH, HEIGHT), (red, 0, 0)).save(file)
        record = make_record(folder.name, image_id, name, ())
        expressions = tuple(
            Expression(id=f"{folder.name}/{image_id}/{number}", text=text, instances=chosen, ref_id=image_id)
            for number, (text, chosen) in enumerate(texts)
        )
        items.append((replace(record, expressions=expressions), file))
    write_split(folder, split, items, return_record, records_per_shard=records_per_shard)
    return folder
