"""Small shards of drawn masks, and predictions about them that are right until they are changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shards.masks import encode_mask
from shards.record import Expression, ImageRecord, Instance, Rle
from shards.writer import write_split

HEIGHT, WIDTH = 8, 12
BOXES = ((0, 0, 4, 4), (6, 2, 10, 8))
"""The two instances of every image: filled boxes of 16 and 24 pixels."""
References = tuple[tuple[int, ...], ...]
REFERENCES: References = ((), (0,), (1,), (0, 1))
"""The instances of every expression, the same for all images."""


def fill(*boxes: tuple[int, int, int, int]) -> Rle:
    """The mask of some filled boxes."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return encode_mask(mask)


def write_shards(
    folder: Path, dataset: str = "grefcoco", images: int = 3, references: References = REFERENCES, green: int = 0
) -> Path:
    """Shards of split "val", in the order of the expressions' ids, each image of one color."""
    (folder / "images").mkdir(parents=True)
    items = []
    for image_id in range(1, images + 1):
        file = folder / "images" / f"{image_id}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (image_id, green, 0)).save(file)
        items.append((make_record(dataset, image_id, file.name, references), file))
    write_split(folder / "shards", "val", items, return_record)
    return folder / "shards"


def write_noise(folder: Path, images: int, references: References = REFERENCES) -> Path:
    """Likewise, with images of noise: in a plain one rounding would decide which cells become points."""
    generator = np.random.default_rng(5)
    folder.mkdir(parents=True)
    items = []
    for image_id in range(1, images + 1):
        file = folder / f"{image_id}.png"
        Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(file)
        items.append((make_record("grefcoco", image_id, file.name, references), file))
    write_split(folder / "shards", "val", items, return_record)
    return folder / "shards"


def make_record(dataset: str, image_id: int, file_name: str, references: References) -> ImageRecord:
    instances = tuple(
        Instance(ann_id=10 * image_id + n, category_id=1, box=box, mask=fill(box)) for n, box in enumerate(BOXES)
    )
    expressions = tuple(
        Expression(id=f"{dataset}/{image_id}/{n}", text=f"phrase {n}", instances=chosen, ref_id=image_id)
        for n, chosen in enumerate(references)
    )
    return ImageRecord(
        image_id=image_id, file_name=file_name, width=WIDTH, height=HEIGHT, instances=instances, expressions=expressions
    )


def return_record(record: ImageRecord) -> ImageRecord:
    return record


def predict_truth(
    dataset: str = "grefcoco", images: int = 3, references: References = REFERENCES
) -> list[dict[str, Any]]:
    """The lines of a faultless prediction file, in the order of the shards."""
    return [
        {
            "id": f"{dataset}/{image_id}/{n}",
            "boxes": [list(BOXES[position]) for position in chosen],
            "mask": fill(*(BOXES[position] for position in chosen)),
        }
        for image_id in range(1, images + 1)
        for n, chosen in enumerate(references)
    ]


def write_lines(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file
