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
"""The two instances of every picture: filled boxes of 16 and 24 pixels."""
References = tuple[tuple[int, ...], ...]
REFERENCES: References = ((), (0,), (1,), (0, 1))
"""The instances of every expression, the same for all pictures."""


def fill(*boxes: tuple[int, int, int, int]) -> Rle:
    """The mask of some filled boxes."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return encode_mask(mask)


def write_shards(
    folder: Path, dataset: str = "grefcoco", pictures: int = 3, references: References = REFERENCES, green: int = 0
) -> Path:
    """Shards of split "val", in the order of the expressions' ids, each picture of one color."""
    (folder / "pictures").mkdir(parents=True)
    items = []
    for number in range(1, pictures + 1):
        file = folder / "pictures" / f"{number}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (number, green, 0)).save(file)
        items.append((make_record(dataset, number, file.name, references), file))
    write_split(folder / "shards", "val", items, return_record)
    return folder / "shards"


def write_noise(folder: Path, pictures: int, references: References = REFERENCES) -> Path:
    """Likewise, with images of noise: in a plain one rounding would decide which cells become points."""
    generator = np.random.default_rng(5)
    folder.mkdir(parents=True)
    items = []
    for number in range(1, pictures + 1):
        file = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(file)
        items.append((make_record("grefcoco", number, file.name, references), file))
    write_split(folder / "shards", "val", items, return_record)
    return folder / "shards"


def make_record(dataset: str, number: int, file_name: str, references: References) -> ImageRecord:
    instances = tuple(
        Instance(ann_id=10 * number + n, category_id=1, box=box, mask=fill(box)) for n, box in enumerate(BOXES)
    )
    expressions = tuple(
        Expression(id=f"{dataset}/{number}/{n}", text=f"phrase {n}", instances=chosen, ref_id=number)
        for n, chosen in enumerate(references)
    )
    return ImageRecord(
        image_id=number, file_name=file_name, width=WIDTH, height=HEIGHT, instances=instances, expressions=expressions
    )


def return_record(record: ImageRecord) -> ImageRecord:
    return record


def predict_truth(
    dataset: str = "grefcoco", pictures: int = 3, references: References = REFERENCES
) -> list[dict[str, Any]]:
    """The lines of a faultless prediction file, in the order of the shards."""
    return [
        {
            "id": f"{dataset}/{number}/{n}",
            "boxes": [list(BOXES[position]) for position in chosen],
            "mask": fill(*(BOXES[position] for position in chosen)),
        }
        for number in range(1, pictures + 1)
        for n, chosen in enumerate(references)
    ]


def write_lines(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file
